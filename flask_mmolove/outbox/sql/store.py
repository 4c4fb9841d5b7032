"""The outbox in a SQL database: PostgreSQL, MariaDB, MySQL, or SQLite beside a site's
own tables.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sqlite3
import sys
import time
import typing as t

from sqlalchemy import Connection
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import make_url
from sqlalchemy import MetaData
from sqlalchemy import URL
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool import StaticPool

from ...errors import ConfigError
from ...errors import OutboxBusy
from ...errors import OutboxError
from ...text import is_secret
from ...text import mask
from ...text import mask_values
from ..statements import Transaction
from ..store import Outbox
from .tables import Place
from .tables import SQLAlchemyTransaction
from .tables import tables

R = t.TypeVar("R")

# Under these an UPDATE and a locking read see what others committed meanwhile. SQLite
# knows one writer at a time, and needs none.
ISOLATION = "READ COMMITTED"
_SERVERS = {"postgresql", "mysql", "mariadb"}

# Locks of others are waited for in turns, so that the caller's patience is kept.
# Milliseconds for a turn; MariaDB knows whole seconds only.
_TURN = 1000


class _Limit(t.NamedTuple):
    """How a database is told how long to wait for a lock.

    :param swap: Statements of which the first gives what it was, and that set it. One
        is better than two: each is a round trip that a signup waits for.
    :param reset: The statement that sets it back.
    :param unit: In how many parts of a second it is counted.
    """

    swap: tuple[str, ...]
    reset: str
    unit: int


_MYSQL_SET = "SET SESSION innodb_lock_wait_timeout = {}"
_MYSQL = _Limit(("SELECT @@innodb_lock_wait_timeout", _MYSQL_SET), _MYSQL_SET, 1)
_SQLITE_SET = "PRAGMA busy_timeout = {}"
_LIMITS = {
    "postgresql": _Limit(
        (
            "SELECT current_setting('lock_timeout'),"
            " set_config('lock_timeout', '{}', true)",
        ),
        "SET LOCAL lock_timeout = '{}'",
        1000,
    ),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "sqlite": _Limit(("PRAGMA busy_timeout", _SQLITE_SET), _SQLITE_SET, 1000),
}

# A machine that acknowledges nothing, not even a probe, is gone. How long a statement
# may last is another matter, and not limited.
_LIBPQ = {
    "connect_timeout": 2,
    "tcp_user_timeout": 1500,  # milliseconds
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}

# These drivers can limit no more than the wait for an answer. No statement of ours
# takes nearly that long, for locks are waited for in turns.
_MYSQL_CONNECT = {"connect_timeout": 1, "read_timeout": 5, "write_timeout": 5}

# Seconds for connections whose arguments are ours to choose, by driver.
_CONNECT: dict[str, dict[str, t.Any]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "pymysql": _MYSQL_CONNECT,
    "mysqldb": _MYSQL_CONNECT,
    "pysqlite": {"timeout": 0.1},
}

# Another transaction was in the way: a deadlock, a lock, a serialization failure. After
# a deadlock MariaDB has forgotten the savepoint too (1305). SQLite has words only.
_CONFLICT = {"40P01", "55P03", "40001", "1213", "1205", "1020", "1305"}
_CONFLICT_SQLITE = ("is locked",)

# The same, or someone made the same table or fact first.
_IN_THE_WAY = _CONFLICT | {"23505", "42P07", "42701", "1062", "1050", "1060", "1061"}
_IN_THE_WAY_SQLITE = (
    *_CONFLICT_SQLITE,
    "already exists",
    "duplicate column name",
    "UNIQUE constraint failed",
)

# A table is not there, or a column that a later version has brought.
_NO_TABLE = {"42P01", "1146", "42703", "1054"}
_NO_TABLE_SQLITE = ("no such table", "no such column", "has no column named")

_NO_SCHEMA = {"3F000", "1049"}
_NO_SCHEMA_SQLITE = ("unknown database",)

# Times that a lost connection, or tables that are not there, are made anew.
_MENDS = 3

# What a connection to SQLite had changed when its transaction began, in its ``info``.
_BEGUN = "mmolove.begun"

# In the same place: that it commits each statement by itself, but for now.
_AUTOCOMMIT = "mmolove.autocommit"

_PAUSE = 0.002
_PAUSE_MOST = 0.1


class _NoTables(OutboxError):
    """The outbox's tables, or columns of them, are not there."""


class SQLAlchemyOutbox(Outbox):
    """An :class:`~flask_mmolove.outbox.Outbox` in a SQL database.

    :param engine_or_url: Where it is. Connections are made as an engine's are, but they
        are our own: who holds one of a pool and waits for another could wait for ever.
    :param metadata: Where the tables are to be defined; see :func:`tables`.
    :param creates: Says whether tables that are not there are made at the first use;
        if not, the site's migrations make them.
    :param key: The setting that names the database.
    :param shared: Gives a connection on which everything is to be done, in savepoints,
        or None.
    :raises ConfigError: If no such database can be used.
    """

    def __init__(
        self,
        engine_or_url: Engine | URL | str,
        metadata: MetaData | None = None,
        *,
        creates: t.Callable[[], bool] = lambda: True,
        key: str = "MMOLOVE_OUTBOX",
        shared: t.Callable[[], Connection | None] = lambda: None,
    ) -> None:
        self._shared = shared
        if isinstance(engine_or_url, Engine):
            self._given: Engine | None = engine_or_url
            self._url = _check(engine_or_url.url, key)
        else:
            self._given = None
            self._url = _check_file(_check(engine_or_url, key), key)
        self._key = key
        self._is_mysql = self._url.get_backend_name() in {"mysql", "mariadb"}
        self._creates = creates
        self.tables = tables(MetaData() if metadata is None else metadata)
        self._place = Place(self.tables, self._schemas())
        super().__init__(self._place.dialect(self._url.get_dialect()()))
        self._engines: dict[int, Engine] = {}
        # A missing driver is told now, not at a signup. What the site has to say of its
        # own engine's connections may be said later.
        if self._given is None:
            self._engine()

    def __str__(self) -> str:
        shown = mask(self._url.render_as_string(hide_password=True))
        schema = self._place.schema
        return f"{shown}, schema {schema}" if schema else shown

    @property
    def is_in_memory(self) -> bool:
        """Whether it is a SQLite database that lives as long as one connection."""
        return self._given is not None and isinstance(self._given.pool, StaticPool)

    def within(self, connection: Connection) -> SQLAlchemyTransaction:
        """The outbox as part of a transaction that someone else began and will end."""
        if connection.dialect.name == "sqlite":
            # Without one, Python's driver would take our savepoints for the whole.
            _begin_immediate(connection)
        return SQLAlchemyTransaction(connection, self._place)

    def ride(
        self,
        connection: Connection,
        work: t.Callable[[Transaction], R],
        timeout: float | None = None,
    ) -> R:
        """Do a piece of work as part of a transaction of someone else's, in a savepoint
        so that theirs stands whatever becomes of ours. Tables that are not there are
        made, as at every first use.

        :param timeout: Seconds for which it may wait for the locks of others.
        :raises OutboxError: If it failed.
        :raises SQLAlchemyError: If the whole transaction is lost, with its connection
            or as in a deadlock of MariaDB: then nothing of theirs stands either.
        """
        with _limited(connection, timeout):
            try:
                transaction = self.within(connection)
            except SQLAlchemyError as e:  # of a BEGIN: nothing of theirs is lost
                raise self.in_words(e) from self._cause(e)
            try:
                return self._in_savepoint(connection, lambda: work(transaction))
            except _NoTables:
                if not self._creates():
                    raise
            if connection.dialect.name == "sqlite":  # its one lock is taken
                self._in_savepoint(connection, transaction.create)
            else:  # MariaDB would commit what is theirs
                self.run(SQLAlchemyTransaction.create, timeout)
            return self._in_savepoint(connection, lambda: work(transaction))

    def _in_savepoint(self, connection: Connection, work: t.Callable[[], R]) -> R:
        savepoint = connection.begin_nested()
        try:
            result = work()
            savepoint.commit()
        except BaseException as e:
            savepoint.rollback()  # fails if the whole is lost
            if isinstance(e, SQLAlchemyError) and not connection.invalidated:
                raise self.in_words(e) from self._cause(e)
            raise
        return result

    def has_written(self, connection: Connection) -> bool:
        """Whether a transaction of someone else's has changed anything, where the
        database can say so. MariaDB cannot.
        """
        if connection.dialect.name == "postgresql":
            assigned = connection.exec_driver_sql("SELECT txid_current_if_assigned()")
            return assigned.scalar() is not None
        if connection.dialect.name == "sqlite":
            db = connection.connection
            # A transaction may have been begun by what only reads.
            changed = db.total_changes != connection.info.get(_BEGUN)
            return bool(db.in_transaction) and changed
        return False

    def is_autocommit(self, connection: Connection) -> bool:
        """Whether each statement of a connection is committed by itself: as its engine
        or session says, or its driver's own arguments, of which SQLAlchemy knows
        nothing.
        """
        driver: t.Any = connection.connection.driver_connection
        if connection.dialect.name == "sqlite":
            # Python 3.12 has the attribute, and commits nothing where it is true.
            if getattr(driver, "autocommit", False) is True:
                return True
            return driver.isolation_level is None and not driver.in_transaction
        if hasattr(driver, "get_autocommit"):
            return bool(driver.get_autocommit())
        return getattr(driver, "autocommit", False) is True

    def create(self) -> bool:
        """Make the tables, columns and indexes that are not there. Others may do so at
        once.
        """
        return self.run(SQLAlchemyTransaction.create)

    def probe(self) -> None:
        super().probe()
        self.run(SQLAlchemyTransaction.probe)

    def close(self) -> None:
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None and engine is not self._given:
            engine.dispose()

    def run(
        self,
        work: t.Callable[[SQLAlchemyTransaction], R],
        timeout: float | None = None,
        *,
        writes: bool = True,
    ) -> R:
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        # A turn that is begun lasts, so the last one begins early.
        latest = deadline - (_TURN / 1000 if self._is_mysql else 0)
        for attempt in itertools.count(1):
            try:
                with self._transaction(deadline if writes else None) as transaction:
                    return work(transaction)
            except SQLAlchemyError as e:
                error = e
            is_late = time.monotonic() >= latest
            is_lost = getattr(error, "connection_invalidated", False)
            if _has_no_table(error) and attempt <= _MENDS and self._creates():
                self.run(SQLAlchemyTransaction.create, deadline - time.monotonic())
            elif is_lost and attempt <= _MENDS and not is_late:
                continue
            elif is_late or not _is_busy(error):
                # The driver's own error: SQLAlchemy's shows what was to be written.
                raise self.in_words(error) from self._cause(error)
            pause(attempt)
        raise AssertionError

    @contextlib.contextmanager
    def _transaction(self, deadline: float | None) -> t.Iterator[SQLAlchemyTransaction]:
        """A transaction; one that writes has a deadline for the locks of others."""
        if shared := self._shared():
            transaction = self.within(shared)
            with shared.begin_nested():
                yield transaction
            return
        with self._engine().begin() as connection:
            if deadline is not None:
                _open(connection, deadline)
            yield SQLAlchemyTransaction(connection, self._place)

    def _schemas(self) -> t.Mapping[str | None, str | None]:
        options = self._given.get_execution_options() if self._given else {}
        return options.get("schema_translate_map") or {}

    def _engine(self) -> Engine:
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            engine = self._engines.setdefault(pid, self._make_engine())
        return engine

    def _make_engine(self) -> Engine:
        options: dict[str, t.Any] = {}
        if schemas := self._schemas():
            options["schema_translate_map"] = schemas
        if self._url.get_backend_name() in _SERVERS:
            options["isolation_level"] = ISOLATION
        if self._given is None:
            engine = _create_engine(self._url, options)
        elif self.is_in_memory:
            return self._given
        else:
            pool = self._given.pool.recreate()
            engine = create_engine(self._url, pool=pool, hide_parameters=True)
            engine = engine.execution_options(**options)
        event.listen(engine, "connect", _settle_in)
        if self._is_mysql:
            event.listen(engine, "connect", _wait_in_turns)
        return engine

    def in_words(self, error: SQLAlchemyError) -> OutboxError:
        """What failed in the database, and what to do."""
        if _is_busy(error):
            return OutboxBusy(f"The outbox in {self} was kept busy by others.")
        orig = getattr(error, "orig", None)
        cause = str(orig.args[-1] if orig and orig.args else type(error).__name__)
        cause = cause.strip().partition("\n")[0]  # PostgreSQL shows the statement too
        cause = self._masked(cause)
        if self._place.schema and _says(error, _NO_SCHEMA, _NO_SCHEMA_SQLITE):
            cure = f"Make the schema {self._place.schema!r} first."
        elif _has_no_table(error) and self._creates():
            cure = (
                "Run 'flask mmolove init-db', or make what is missing with a migration."
            )
        elif _has_no_table(error):
            cure = (
                "The site has Flask-Migrate, so its migrations make the outbox's "
                "tables: run 'flask db migrate' and 'flask db upgrade', also after an "
                "update of Flask-MMOLove. If the migrations are not yours to change, "
                "run 'flask mmolove init-db --yes' instead."
            )
        else:
            cure = (
                f"See that the server runs, that {self._key} names it, and that the "
                "user may make its tables mmolove_*, read and write them."
            )
        kind = _NoTables if _has_no_table(error) else OutboxError
        return kind(f"The outbox in {self} failed: {cause}. {cure}")

    def _cause(self, error: SQLAlchemyError) -> BaseException | None:
        """The driver's own error, for a traceback, unless it quotes a password."""
        orig: BaseException | None = getattr(error, "orig", None)
        return orig if self._masked(str(orig)) == str(orig) else None

    def _masked(self, text: str) -> str:
        query = self._url.normalized_query
        secrets = [each for name in query if is_secret(name) for each in query[name]]
        return mask_values(mask(text), [str(self._url.password or ""), *secrets])


def _check(url: URL | str, key: str) -> URL:
    try:
        url = make_url(url)
        dialect = url.get_dialect()
    except NoSuchModuleError as e:
        raise _wrong(key, f"names what SQLAlchemy does not know: {e}") from None
    except (SQLAlchemyError, ValueError):
        # Its words may show the password.
        raise _wrong(key, "is no URL of a database") from None
    if url.get_backend_name() not in {*_SERVERS, "sqlite"}:
        raise _wrong(key, f"cannot be {url.get_backend_name()!r}")
    if dialect.is_async:
        raise _wrong(key, f"names a driver for asyncio, {url.get_driver_name()!r}")
    return url


def _check_file(url: URL, key: str) -> URL:
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise _wrong(key, "names no file: an outbox in memory would forget")
    return url


def _wrong(key: str, what: str) -> ConfigError:
    return ConfigError(
        f"{key} {what}. The outbox can be in a PostgreSQL, MariaDB, MySQL or SQLite "
        "database, such as 'postgresql+psycopg://user:password@host/database'.",
        key,
    )


def _create_engine(url: URL, options: dict[str, t.Any]) -> Engine:
    try:
        return create_engine(
            url,
            connect_args=_connect_args(url),
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


def _connect_args(url: URL) -> dict[str, t.Any]:
    driver = url.get_driver_name()
    args = {k: v for k, v in _CONNECT.get(driver, {}).items() if k not in url.query}
    if "tcp_user_timeout" in args:
        dbapi: t.Any = url.get_dialect().import_dbapi()
        libpq = (
            dbapi.pq.version if driver == "psycopg" else dbapi.extensions.libpq_version
        )
        if libpq() < 120000:  # refuses what it does not know
            del args["tcp_user_timeout"]
    return args


def _settle_in(connection: t.Any, record: object) -> None:
    """Have a connection as we need it, whatever the site's engine makes of its own."""
    if hasattr(connection, "prepare_threshold"):
        # PgBouncer gives each transaction another server's connection, which does not
        # have the statements that psycopg prepared.
        connection.prepare_threshold = None
    if sys.version_info >= (3, 12) and isinstance(connection, sqlite3.Connection):
        connection.autocommit = sqlite3.LEGACY_TRANSACTION_CONTROL


def _wait_in_turns(connection: t.Any, record: object) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(_MYSQL_SET.format(_TURN // 1000))


@contextlib.contextmanager
def _limited(connection: Connection, timeout: float | None) -> t.Iterator[None]:
    """Let a connection of someone else's wait no longer than that for locks."""
    name = connection.dialect.name
    if timeout is None or name not in _LIMITS:
        yield
        return
    limit = _LIMITS[name]
    wait = max(1, int(timeout * limit.unit))
    first, *others = (statement.format(wait) for statement in limit.swap)
    before = connection.exec_driver_sql(first).scalar()
    for statement in others:
        connection.exec_driver_sql(statement)
    try:
        yield
    except BaseException:
        with contextlib.suppress(SQLAlchemyError):  # it may be lost
            connection.exec_driver_sql(limit.reset.format(before))
        raise
    connection.exec_driver_sql(limit.reset.format(before))


def _open(connection: Connection, deadline: float) -> None:
    """Begin to write."""
    left = int((deadline - time.monotonic()) * 1000)
    turn = max(1, min(left, _TURN))
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {turn}")
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {turn}")
        _begin_immediate(connection)


def note_begin(connection: Connection) -> None:
    """Keep what ``has_written`` compares with: SQLite counts what a connection changes,
    and not what a transaction does.
    """
    if connection.dialect.name == "sqlite":
        connection.info[_BEGUN] = connection.connection.total_changes


def keep_autocommit(connection: Connection) -> None:
    """Let a site's connection, in which a transaction is begun, commit each statement
    by itself again when its pool has it back.
    """
    connection.info[_AUTOCOMMIT] = True
    event.listen(connection.engine, "checkin", _commit_again)


def _commit_again(driver: t.Any, record: ConnectionPoolEntry) -> None:
    if record.info.pop(_AUTOCOMMIT, False) and driver is not None:
        if callable(driver.autocommit):
            driver.autocommit(True)
        else:
            driver.autocommit = True


def _begin_immediate(connection: Connection) -> None:
    """Take SQLite's one lock for writing, unless a transaction is open already: one
    that reads first and writes then fails at once if another did so meanwhile.
    """
    driver: t.Any = connection.connection
    if not driver.in_transaction and getattr(driver, "autocommit", None) is not True:
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


def is_conflict(error: SQLAlchemyError) -> bool:
    """Whether a transaction failed for another's sake, and may do better next time."""
    return _says(error, _CONFLICT, _CONFLICT_SQLITE)


def pause(attempt: int) -> None:
    """Wait a little, so that those who were in each other's way come apart."""
    most = min(_PAUSE * 2 ** min(attempt, 9), _PAUSE_MOST)
    time.sleep(random.uniform(0, most))


def _is_busy(error: SQLAlchemyError) -> bool:
    if isinstance(error, PoolTimeout):
        return True
    return _says(error, _IN_THE_WAY, _IN_THE_WAY_SQLITE)


def _has_no_table(error: SQLAlchemyError) -> bool:
    return _says(error, _NO_TABLE, _NO_TABLE_SQLITE)
