"""A SQLite file as several processes and their threads share it."""

from __future__ import annotations

import contextlib
import glob
import os
import random
import re
import secrets
import sqlite3
import threading
import time
import typing as t
from pathlib import Path

from ... import errors
from ...log import logger
from ...log import Throttle
from .. import folder
from ..entry import TIMEOUT
from ..owner import make_file
from ..owner import make_folder
from . import damage
from .groupcommit import Group
from .groupcommit import Work
from .schema import foreign
from .schema import lock_file
from .schema import Schema

R = t.TypeVar("R")

# SQLite before this version can corrupt a WAL database when two connections write and
# checkpoint at once (https://sqlite.org/wal.html, "The WAL-reset bug").
_WAL_IS_SOUND = (3, 51, 3)

# A file of SQLite's own may stand beside the database.
SIDE_FILES = ("", "-journal", "-wal", "-shm")

# How the name of a damaged file ends once it was moved aside, and a side file's.
_ASIDE = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}(-journal|-wal|-shm)?", re.ASCII)

# SQLite's own busy handler waits longer and longer, so that under load the unlucky
# starve for seconds. Short random pauses are fair enough.
_PAUSE = 0.002


class Database:
    """Runs transactions on a SQLite file.

    Each process has one connection, under a lock, opened when it is first wanted. After
    a fork the child makes its own and never touches its parent's, not even to close it
    (https://sqlite.org/howtocorrupt.html, section 2.6).

    :param path: The file; it and its folder are made if they are not there.
    :param schema: What it is like. A file of something else is refused, never moved.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self._schema = schema
        #: Something happened to the file since this was last cleared, or may have
        #: happened before this process began.
        self.incident = True
        self._handles: dict[int, _Handle] = {}
        self._warned = Throttle(float("inf"))

    @contextlib.contextmanager
    def transaction(self, timeout: float = TIMEOUT) -> t.Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end, or rolled back if it raises.

        :param timeout: Seconds to wait for others at the most.
        :raises OutboxBusy: If they took longer.
        :raises OutboxError: If the store cannot be read or written.
        """
        deadline = time.monotonic() + timeout
        with self._connection(deadline) as connection:
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            try:
                yield connection
                patiently(lambda: connection.execute("COMMIT"), deadline)
            except BaseException:
                # On a full disk SQLite has rolled back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def together(self, work: Work[R], timeout: float) -> R:
        """Do a piece of work in a transaction, in one with other threads' if they want
        the same at this moment. Raises what a transaction does.
        """
        return self._handle.group.run(self.transaction, work, timeout)

    @contextlib.contextmanager
    def reading(self, timeout: float = TIMEOUT) -> t.Iterator[sqlite3.Connection]:
        """The connection, to read only. Raises what a transaction does."""
        with self._connection(time.monotonic() + timeout) as connection:
            yield connection

    def close(self) -> None:
        """Close this process's connection, if it has one."""
        handle = self._handle
        with handle.lock:
            handle.close_all()

    def __del__(self) -> None:
        # Python 3.13 warns of connections that are left to the collector. At exit a
        # daemon thread may have been stopped for good with the lock in its hand.
        handle = self._handle
        if handle.lock.acquire(blocking=False):
            handle.close_all()

    @property
    def _handle(self) -> _Handle:
        pid = os.getpid()
        # Made in one step, so that two threads of a new process cannot make two.
        return self._handles.get(pid) or self._handles.setdefault(pid, _Handle())

    @contextlib.contextmanager
    def _connection(self, deadline: float) -> t.Iterator[sqlite3.Connection]:
        handle = self._handle
        if not handle.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise errors.OutboxBusy(
                f"The outbox {self.path} was kept busy by this process's other threads."
            )
        try:
            yield self._open(handle, deadline)
        except errors.MMOLoveError:
            raise
        except (sqlite3.Error, damage.DamagedError) as e:
            if not _is_busy(e):
                self._recover(handle, e)
            raise self._in_words(e) from e
        except Exception as e:
            # Damage can show as any error, and SQLite's message may not even be text.
            if not isinstance(e, UnicodeDecodeError):
                if handle.connection is None or damage.is_sound(handle.connection):
                    raise
            error = damage.DamagedError(f"{type(e).__name__} while it was read")
            self._recover(handle, error)
            raise self._in_words(error) from e
        finally:
            handle.lock.release()

    def orphans(self) -> list[sqlite3.Connection]:
        """This process's connections to files that were deleted or replaced."""
        return [*self._handle.orphans]

    def close_orphan(self, connection: sqlite3.Connection) -> None:
        """Close one of them, with which its file is gone for good."""
        self._handle.orphans.remove(connection)
        connection.close()

    def check(self) -> None:
        """Look for damage for half a second at most, and move a damaged file aside."""
        deadline = time.monotonic() + damage.CHECK
        with contextlib.suppress(errors.OutboxError), self._connection(deadline) as db:
            if not damage.is_sound(db):
                raise damage.DamagedError("the integrity check failed")

    def files_aside(self) -> list[Path]:
        """Damaged files that were moved out of the way, oldest first. One that this
        site has not moved there, as far as anyone can tell, is logged and left out.
        """
        prefix = f"{self.path.name}.corrupt-"
        found = []
        for file in sorted(self.path.parent.glob(f"{glob.escape(prefix)}*")):
            name = _ASIDE.fullmatch(file.name, len(prefix))
            if name is None:
                self._pass_over(file, "has a name that this site does not give")
            elif not name[1] and self._is_ours(file):
                found.append(file)
        return found

    def read_aside(self, file: Path) -> bytes | None:
        """The content of a file aside or beside it; None if it is missing or not ours.

        :raises OSError: If it cannot be read.
        """
        try:
            return folder.read_file(file, self._rule)
        except FileNotFoundError:
            return None
        except folder.NotOurs as e:
            self._pass_over(file, e.why)
            return None

    def _is_ours(self, file: Path) -> bool:
        try:
            self._rule.check(file, os.lstat(file), folder=False)
        except FileNotFoundError:
            return False
        except folder.NotOurs as e:
            self._pass_over(file, e.why)
            return False
        return True

    @property
    def _rule(self) -> folder.Rule:
        """It was the outbox once: its owner has not changed, nor who may read it."""
        owners = {folder.user(), os.stat(self.path.parent).st_uid}
        closed = 0o077
        with contextlib.suppress(FileNotFoundError):  # no new one is begun yet
            status = os.stat(self.path)
            owners.add(status.st_uid)
            closed &= ~status.st_mode
        return folder.Rule(owners, closed)

    def _pass_over(self, file: Path, why: str) -> None:
        if self._warned.passes(file.name):
            logger.warning(
                "%s is passed over: it %s. If it is an outbox of this site that was "
                "damaged, give it the owner and the mode of the outbox and a name such "
                "as %s.corrupt-20300131-235959-0a1b; else remove it.",
                file,
                why,
                self.path.name,
            )

    def _open(self, handle: _Handle, deadline: float) -> sqlite3.Connection:
        if handle.connection is not None:
            if handle.inode == _inode(self.path):
                return handle.connection
            self._orphan(handle, handle.connection)
        try:
            make_folder(self.path.parent)
        except OSError as e:
            raise errors.OutboxError(
                f"The folder of the outbox {self.path} cannot be made: {e.strerror}. "
                "Set MMOLOVE_OUTBOX to a place that the site may write to."
            ) from e
        # It contains tokens. SQLite gives the files beside it the same owner.
        with contextlib.suppress(OSError):
            make_file(self.path)
        handle.connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            handle.inode = _inode(self.path)
            self._prepare(handle.connection, deadline)
        except BaseException:
            handle.close()
            raise
        return handle.connection

    def _orphan(self, handle: _Handle, connection: sqlite3.Connection) -> None:
        # Writes to it would be lost, but it can still be read.
        logger.critical(
            "The outbox %s was moved, deleted or replaced while the site ran. It is "
            "recreated, and the old one's entries are recovered.",
            self.path,
        )
        handle.orphans.append(connection)
        self.incident = True
        handle.connection = None

    def _recover(self, handle: _Handle, error: Exception) -> None:
        """Get ready for the next call; this one has failed."""
        handle.close()
        if not damage.is_damage(error):
            return
        with contextlib.suppress(OSError):
            if self.path.stat().st_size == 0:
                logger.critical(
                    "The outbox %s was emptied while the site ran. It is recreated.",
                    self.path,
                )
                return
        if not self._schema.was_ours(self.path):
            raise foreign(self.path) from error
        self._set_aside(handle.inode, error)

    def _set_aside(self, damaged: tuple[int, int] | None, error: Exception) -> None:
        moment = time.strftime("%Y%m%d-%H%M%S")
        name = f"{self.path.name}.corrupt-{moment}-{secrets.token_hex(2)}"
        aside = self.path.with_name(name)
        try:
            with self._alone():
                if _inode(self.path) != damaged:
                    return  # another process was faster
                with contextlib.suppress(OSError):  # it is somebody else's
                    self.path.chmod(0o600)
                for suffix in SIDE_FILES:
                    side = self.path.with_name(self.path.name + suffix)
                    if side.exists():
                        side.rename(aside.with_name(aside.name + suffix))
        except (OSError, sqlite3.Error) as e:
            logger.critical(
                "The outbox %s is damaged (%s) and could not be moved aside: %s.",
                self.path,
                damage.in_words(error),
                e,
            )
        else:
            self.incident = True
            logger.critical(
                "The outbox %s is damaged (%s). It was moved aside as %s and is "
                "recreated; what can still be read is recovered.",
                self.path,
                damage.in_words(error),
                aside.name,
            )

    @contextlib.contextmanager
    def _alone(self) -> t.Iterator[None]:
        """Keep other processes away by SQLite's lock, which ends with its process."""
        lock = lock_file(self.path)
        make_file(lock)
        connection = sqlite3.connect(lock, timeout=0.5, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            yield
        finally:
            connection.close()

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        def run(sql: str) -> list[t.Any]:
            return patiently(lambda: connection.execute(sql).fetchall(), deadline)

        mode = "WAL" if sqlite3.sqlite_version_info >= _WAL_IS_SOUND else "TRUNCATE"
        run(f"PRAGMA journal_mode={mode}")
        run("PRAGMA synchronous=FULL")
        # What is erased is to be gone from the file too.
        run("PRAGMA secure_delete=ON")
        if not self._schema.is_current(run):
            run("BEGIN IMMEDIATE")
            self._schema.migrate(connection, self.path)
            run("COMMIT")

    def _in_words(self, error: Exception) -> errors.OutboxError:
        if _is_busy(error):
            words = "was kept busy by other processes"
            return errors.OutboxBusy(f"The outbox {self.path} {words}.")
        return errors.OutboxError(
            f"The outbox {self.path} failed: {damage.in_words(error)}. See that the "
            "disk has room and that the site may write to the file and to its folder."
        )


class _Handle:
    """One process's connection."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.group = Group()
        self.connection: sqlite3.Connection | None = None
        self.inode: tuple[int, int] | None = None
        self.orphans: list[sqlite3.Connection] = []

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close_all(self) -> None:
        self.close()
        while self.orphans:
            self.orphans.pop().close()


def patiently(run: t.Callable[[], R], deadline: float) -> R:
    """Run a statement, and again as long as another process is in the way.

    :param deadline: By :func:`time.monotonic`.
    """
    while True:
        try:
            return run()
        except sqlite3.OperationalError as e:
            if not _is_busy(e) or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0, 2 * _PAUSE))


def _is_busy(error: Exception) -> bool:
    return "is locked" in str(error)  # Python 3.10 does not tell SQLite's code


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
