"""The outbox in a SQL database: PostgreSQL, MariaDB, MySQL, or SQLite beside a site's
own tables.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
import typing as t

from sqlalchemy import Connection
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import make_url
from sqlalchemy import MetaData
from sqlalchemy import URL
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import Pool

from ..errors import ConfigError
from ..errors import OutboxBusy
from ..errors import OutboxError
from ..wire import Event
from .database import WORKER_PATIENCE
from .entry import Entry
from .entry import Settlement
from .entry import State
from .entry import Summary
from .host import Host
from .journal import Execute
from .journal import Journal
from .rows import tables
from .rows import Transaction

R = t.TypeVar("R")

# Under these an UPDATE and a locking read see what others committed meanwhile. SQLite
# knows one writer at a time, and needs none.
_ISOLATION = {
    "postgresql": "READ COMMITTED",
    "mysql": "READ COMMITTED",
    "mariadb": "READ COMMITTED",
}

# Locks of others are waited for in turns, so that the caller's patience is kept.
# Milliseconds for a turn; MariaDB knows whole seconds only.
_TURN = 1000

# The same for connections that are our own, by driver.
_MYSQL = {
    "connect_timeout": 1,
    "init_command": f"SET SESSION innodb_lock_wait_timeout = {_TURN // 1000}",
}
_CONNECT: dict[str, dict[str, t.Any]] = {
    "psycopg": {"connect_timeout": 2},
    "psycopg2": {"connect_timeout": 2},
    "pymysql": _MYSQL,
    "mysqldb": _MYSQL,
    "pysqlite": {"timeout": 0.1},
}

# Another transaction was in the way: a deadlock, a lock, a serialization failure, or
# someone made the same table or fact first. After a deadlock MariaDB has forgotten the
# savepoint too (1305). SQLite has words only.
_IN_THE_WAY = {
    *("40P01", "55P03", "40001", "23505", "42P07"),
    *("1213", "1205", "1020", "1062", "1050", "1061", "1305"),
}
_IN_THE_WAY_SQLITE = ("is locked", "already exists", "UNIQUE constraint failed")

_NO_TABLE = {"42P01", "1146"}
_NO_TABLE_SQLITE = ("no such table",)

# Times that a lost connection, or tables that are not there, are made anew.
_MENDS = 3

_PAUSE = 0.002
_PAUSE_MOST = 0.1


class SQLAlchemyOutbox:
    """An :class:`~flask_mmolove.outbox.Outbox` in a SQL database.

    :param engine_or_url: Where it is. An engine that is given is used as it is set up,
        its patience with locks and connections included, and stays the giver's to
        dispose of.
    :param metadata: Where the tables are to be defined; see :func:`tables`.
    :param creates: Whether tables that are not there are made at the first use.
    :raises ConfigError: If no such database can be used.
    """

    def __init__(
        self,
        engine_or_url: Engine | URL | str,
        metadata: MetaData | None = None,
        *,
        creates: bool = True,
    ) -> None:
        given = engine_or_url if isinstance(engine_or_url, Engine) else None
        self._given = given
        self._url = given.url if given else _check(t.cast("URL | str", engine_or_url))
        self._is_mysql = self._url.get_backend_name() in {"mysql", "mariadb"}
        self._creates = creates
        self.tables = tables(MetaData() if metadata is None else metadata)
        # MariaDB would read all newer rows of the state before those that are wanted.
        hint = "FORCE INDEX (mmolove_event_state)" if self._is_mysql else ""
        self.journal = Journal(self._ask, "mmolove_", hint)
        self._pid = os.getpid()
        self._engines: dict[int, Engine] = {}
        self._inherited: list[Pool] = []
        self._engine()  # so that a missing driver is told now, not at a signup

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def within(self, connection: Connection) -> Transaction:
        """The outbox as part of a transaction that someone else began and will end."""
        if connection.dialect.name == "sqlite":
            # Without one, Python's driver would take our savepoints for the whole.
            _begin_immediate(connection)
        return Transaction(connection, self.tables)

    def create(self) -> None:
        """Make the tables and indexes that are not there. Others may do so at once."""
        self._run(Transaction.create)

    def add(
        self,
        identity: str,
        events: t.Sequence[Event],
        now: int,
        patience: float = WORKER_PATIENCE,
    ) -> list[Entry]:
        return self._run(lambda db: db.add(identity, events, now), patience)

    def of(
        self, identity: str, test: bool, patience: float = WORKER_PATIENCE
    ) -> dict[str, Entry]:
        return self._read(lambda db: db.of(identity, test), patience)

    def claim(self, state: State, now: int, lease: int, limit: int) -> list[Entry]:
        return self._run(lambda db: db.claim(state, now, lease, limit))

    def settle(
        self,
        settlements: t.Sequence[Settlement],
        now: int,
        learn: t.Callable[[Host], Host] = lambda host: host,
    ) -> list[Entry]:
        return self._run(lambda db: db.settle(settlements, now, learn))

    def release(
        self, entries: t.Sequence[Entry], patience: float = WORKER_PATIENCE
    ) -> None:
        self._run(lambda db: db.release(entries), patience)

    @property
    def incident(self) -> bool:
        return False

    def rescue(self) -> int:
        return 0  # a database looks after its own files

    def next_due(self, now: int, patience: float = WORKER_PATIENCE) -> int | None:
        return self._read(lambda db: db.next_due(now), patience)

    def adopt(self, fingerprint: str, server_id: str, now: int) -> int:
        if self._read(lambda db: db.fact("settings")) == fingerprint:
            return 0
        return self._run(lambda db: db.adopt(fingerprint, server_id, now))

    def retry(self, now: int, ids: t.Collection[int] | None = None) -> list[Entry]:
        return self._run(lambda db: db.retry(now, ids))

    def find(self, states: t.Collection[State], limit: int) -> list[Entry]:
        return self._read(lambda db: db.find(states, limit))

    def decide(self, id: int, state: State, now: int) -> Entry | None:
        return self._run(lambda db: db.decide(id, state, now))

    def host(self) -> Host:
        return self._read(lambda db: db.host())

    def summary(self) -> Summary:
        return self._read(lambda db: db.summary())

    def close(self) -> None:
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None and self._given is None:
            engine.dispose()

    def _ask(self, work: t.Callable[[Execute], R], *, writes: bool) -> R:
        return self._run(lambda db: work(db.execute), writes=writes)

    def _read(
        self,
        work: t.Callable[[Transaction], R],
        patience: float = WORKER_PATIENCE,
    ) -> R:
        return self._run(work, patience, writes=False)

    def _run(
        self,
        work: t.Callable[[Transaction], R],
        patience: float = WORKER_PATIENCE,
        *,
        writes: bool = True,
    ) -> R:
        """Do a piece of work in a transaction, and all of it anew as long as another
        one is in the way.

        :param work: May be called several times; what counts is the last.
        :param patience: Seconds that this may take.
        """
        deadline = time.monotonic() + patience
        # A turn that is begun lasts, so the last one begins early.
        latest = deadline - (_TURN / 1000 if self._is_mysql else 0)
        for attempt in itertools.count(1):
            try:
                with self._transaction(deadline if writes else None) as transaction:
                    return work(transaction)
            except SQLAlchemyError as e:
                error = e
            if _has_no_table(error) and self._creates and attempt <= _MENDS:
                self.create()
            elif getattr(error, "connection_invalidated", False) and attempt <= _MENDS:
                continue
            elif not _is_busy(error) or time.monotonic() >= latest:
                # The driver's own error: SQLAlchemy's shows what was to be written.
                raise self._in_words(error) from getattr(error, "orig", None)
            most = min(_PAUSE * 2 ** min(attempt, 9), _PAUSE_MOST)
            time.sleep(random.uniform(0, most))
        raise AssertionError

    @contextlib.contextmanager
    def _transaction(self, deadline: float | None) -> t.Iterator[Transaction]:
        """A transaction; one that writes has a deadline for the locks of others."""
        with self._engine().begin() as connection:
            if deadline is not None:
                _open(connection, deadline)
            yield Transaction(connection, self.tables)

    def _engine(self) -> Engine:
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            engine = self._engines.setdefault(pid, self._make_engine())
        return engine

    def _make_engine(self) -> Engine:
        isolation = _ISOLATION.get(self._url.get_backend_name())
        if self._given is None:
            return _create_engine(self._url, isolation)
        if os.getpid() != self._pid:
            # The connections are the parent's. They are kept, for one that is collected
            # may say farewell to the server in the parent's name.
            self._inherited.append(self._given.pool)
            self._given.dispose(close=False)
            self._pid = os.getpid()
        if isolation is None:
            return self._given
        return self._given.execution_options(isolation_level=isolation)

    def _in_words(self, error: SQLAlchemyError) -> OutboxError:
        shown = self._url.set(query={}).render_as_string(hide_password=True)
        if _is_busy(error):
            return OutboxBusy(f"The outbox in {shown} was kept busy by others.")
        orig = getattr(error, "orig", None)
        cause = str(orig.args[-1] if orig and orig.args else type(error).__name__)
        if self._url.password:
            cause = cause.replace(str(self._url.password), "***")
        if _has_no_table(error):
            cure = "Make its tables with a migration, or with 'flask mmolove init-db'."
        else:
            cure = (
                "See that the server runs, that MMOLOVE_OUTBOX names it, and that the "
                "user may read and write the tables whose names begin with mmolove_."
            )
        return OutboxError(f"The outbox in {shown} failed: {cause.strip()}. {cure}")


def _check(url: URL | str) -> URL:
    try:
        url = make_url(url)
        dialect = url.get_dialect()
    except NoSuchModuleError as e:
        raise _wrong(f"names what SQLAlchemy does not know: {e}") from None
    except (SQLAlchemyError, ValueError):
        # Its words may show the password.
        raise _wrong("is no URL of a database") from None
    if url.get_backend_name() not in {*_ISOLATION, "sqlite"}:
        raise _wrong(f"cannot be {url.get_backend_name()!r}")
    if dialect.is_async:
        raise _wrong(f"names a driver for asyncio, {url.get_driver_name()!r}")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise _wrong("names no file: an outbox in memory would forget")
    return url


def _wrong(what: str) -> ConfigError:
    key = "MMOLOVE_OUTBOX"
    return ConfigError(
        f"{key} {what}. It is a file, or the URL of a PostgreSQL, MariaDB, MySQL or "
        "SQLite database, such as 'postgresql+psycopg://user:password@host/database'.",
        key,
    )


def _create_engine(url: URL, isolation: str | None) -> Engine:
    options: dict[str, t.Any] = {"isolation_level": isolation} if isolation else {}
    connect = _CONNECT.get(url.get_driver_name(), {})
    try:
        return create_engine(
            url,
            connect_args={k: v for k, v in connect.items() if k not in url.query},
            hide_parameters=True,
            # Firewalls forget connections that are idle for long.
            pool_recycle=300,
            pool_timeout=1,
            **options,
        )
    except ImportError as e:
        raise ConfigError(
            f"MMOLOVE_OUTBOX needs a driver that is not installed: {e}. Install it, or "
            "name another one in the URL.",
            "MMOLOVE_OUTBOX",
        ) from e


def _open(connection: Connection, deadline: float) -> None:
    """Begin to write."""
    if connection.dialect.name == "postgresql":
        left = int((deadline - time.monotonic()) * 1000)
        turn = max(1, min(left, _TURN))
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {turn}")
    elif connection.dialect.name == "sqlite":
        _begin_immediate(connection)


def _begin_immediate(connection: Connection) -> None:
    """Take SQLite's one lock for writing, unless a transaction is open already: one
    that reads first and writes then fails at once if another did so meanwhile.
    """
    if not connection.connection.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _codes(error: SQLAlchemyError) -> set[str]:
    """What the driver says: an SQLSTATE, MariaDB's number, or words."""
    orig = getattr(error, "orig", None)
    said = [getattr(orig, name, None) for name in ("sqlstate", "pgcode")]
    said += getattr(orig, "args", ())[:1]
    return {str(each) for each in said if each is not None}


def _says(error: SQLAlchemyError, codes: set[str], words: t.Iterable[str]) -> bool:
    said = _codes(error)
    return bool(said & codes) or any(each in text for each in words for text in said)


def _is_busy(error: SQLAlchemyError) -> bool:
    if isinstance(error, PoolTimeout):
        return True
    return _says(error, _IN_THE_WAY, _IN_THE_WAY_SQLITE)


def _has_no_table(error: SQLAlchemyError) -> bool:
    return _says(error, _NO_TABLE, _NO_TABLE_SQLITE)
