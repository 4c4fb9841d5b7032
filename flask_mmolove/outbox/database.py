"""A SQLite file as several processes and their threads share it."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import typing as t
from pathlib import Path

from ..errors import OutboxBusy
from ..errors import OutboxError

#: Seconds a background worker may wait for the store; a request waits less.
WORKER_PATIENCE = 30.0

# SQLite before this version can corrupt a WAL database when two connections write and
# checkpoint at once (https://sqlite.org/wal.html, "The WAL-reset bug").
_WAL_IS_SOUND = (3, 51, 3)

# SQLite's own busy handler waits longer and longer, so that under load the unlucky
# starve for seconds. Short random pauses are fair enough.
_PAUSE = 0.002


class Database:
    """Runs transactions on a SQLite file.

    Each process has one connection, under a lock, opened when it is first wanted. After
    a fork the child makes its own and never touches its parent's, not even to close it:
    that would drop the locks the parent holds on the file.

    :param path: The file; it and its folder are made if they are not there.
    :param migrations: Scripts that each bring the schema one version further.
    """

    def __init__(self, path: Path, migrations: t.Sequence[str]) -> None:
        self.path = path
        self._migrations = migrations
        self._handles: dict[int, _Handle] = {}

    @contextlib.contextmanager
    def transaction(
        self, patience: float = WORKER_PATIENCE
    ) -> t.Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end, or rolled back if it raises.

        :param patience: Seconds to wait for others at the most.
        :raises OutboxBusy: If they took longer.
        :raises OutboxError: If the store cannot be read or written.
        """
        deadline = time.monotonic() + patience
        with self._connection(deadline) as connection:
            _patiently(connection, "BEGIN IMMEDIATE", (), deadline)
            try:
                yield connection
                _patiently(connection, "COMMIT", (), deadline)
            except BaseException:
                # On a full disk SQLite has rolled back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def query(
        self, sql: str, parameters: t.Sequence[t.Any] = (), patience: float = 30.0
    ) -> list[t.Any]:
        """The rows of a statement that only reads. Raises what a transaction does."""
        deadline = time.monotonic() + patience
        with self._connection(deadline) as connection:
            return _patiently(connection, sql, parameters, deadline)

    def close(self) -> None:
        """Close this process's connection, if it has one."""
        handle = self._handles.get(os.getpid())
        if handle is not None:
            with handle.lock:
                handle.close()

    @contextlib.contextmanager
    def _connection(self, deadline: float) -> t.Iterator[sqlite3.Connection]:
        # One step, so that two threads of a new process cannot make two.
        handle = self._handles.setdefault(os.getpid(), _Handle())
        if not handle.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise OutboxBusy(
                f"The outbox {self.path} was kept busy by this process's other threads."
            )
        try:
            yield self._open(handle, deadline)
        except sqlite3.Error as e:
            raise self._in_words(e) from e
        finally:
            handle.lock.release()

    def _open(self, handle: _Handle, deadline: float) -> sqlite3.Connection:
        if handle.connection is not None and handle.inode == _inode(self.path):
            return handle.connection
        # A file that was deleted or replaced takes writes into nowhere.
        handle.close()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutboxError(
                f"The folder of the outbox {self.path} cannot be made: {e.strerror}. "
                "Set MMOLOVE_OUTBOX to a place that the site may write to."
            ) from e
        connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection, deadline)
        except BaseException:
            connection.close()
            raise
        handle.connection = connection
        handle.inode = _inode(self.path)
        return connection

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        mode = "WAL" if sqlite3.sqlite_version_info >= _WAL_IS_SOUND else "TRUNCATE"
        _patiently(connection, f"PRAGMA journal_mode={mode}", (), deadline)
        connection.execute("PRAGMA synchronous=FULL")
        newest = len(self._migrations)
        if self._version(connection, deadline) == newest:
            return
        # Another process may do the same at this moment: lock first, then look again.
        _patiently(connection, "BEGIN IMMEDIATE", (), deadline)
        version = self._version(connection, deadline)
        if version > newest:
            connection.execute("ROLLBACK")
            raise OutboxError(
                f"The outbox {self.path} was made by a newer Flask-MMOLove (schema "
                f"{version}, this one knows {newest}): update the package, or set "
                "MMOLOVE_OUTBOX to another file."
            )
        for script in self._migrations[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={newest}")
        _patiently(connection, "COMMIT", (), deadline)

    def _version(self, connection: sqlite3.Connection, deadline: float) -> int:
        ((version,),) = _patiently(connection, "PRAGMA user_version", (), deadline)
        return int(version)

    def _in_words(self, error: sqlite3.Error) -> OutboxError:
        if _is_busy(error):
            return OutboxBusy(
                f"The outbox {self.path} was kept busy by other processes."
            )
        return OutboxError(
            f"The outbox {self.path} failed: {error}. See that the disk has room and "
            "that the site may write to the file and to its folder."
        )


class _Handle:
    """One process's connection."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self.inode: tuple[int, int] | None = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def _patiently(
    connection: sqlite3.Connection,
    sql: str,
    parameters: t.Sequence[t.Any],
    deadline: float,
) -> list[t.Any]:
    while True:
        try:
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as e:
            if not _is_busy(e) or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0, 2 * _PAUSE))


def _is_busy(error: sqlite3.Error) -> bool:
    return "is locked" in str(error)  # Python 3.10 does not tell SQLite's code


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
