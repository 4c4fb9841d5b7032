"""How long a transaction waits for the locks of others, in each database's own way."""

from __future__ import annotations

import contextlib
import random
import time
import typing as t

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .connections import has_written

#: Milliseconds of a turn: locks are waited for in turns, so that the caller's timeout
#: is kept. MariaDB knows whole seconds only.
TURN = 1000


# MariaDB and MySQL have one limit for rows, and another for tables, which a migration
# may have locked. MariaDB can set both for a statement alone.
_MARIADB = "SET STATEMENT innodb_lock_wait_timeout = {0}, lock_wait_timeout = {0} FOR "
_MYSQL = (
    "SET @mmolove_rows = @@innodb_lock_wait_timeout,"
    " @mmolove_tables = @@lock_wait_timeout,"
    " SESSION innodb_lock_wait_timeout = {0}, SESSION lock_wait_timeout = {0}"
)
_MYSQL_RESET = (
    "SET SESSION innodb_lock_wait_timeout = @mmolove_rows,"
    " SESSION lock_wait_timeout = @mmolove_tables"
)

_PAUSE = 0.002
_PAUSE_MOST = 0.1


def limited(connection: Connection, timeout: float) -> t.ContextManager[str]:
    """Let a connection of someone else's wait no longer than that for locks, and give
    what each statement has to begin with. PostgreSQL is told with the savepoint.
    """
    dialect: t.Any = connection.dialect
    seconds = max(1, int(timeout))
    if dialect.name == "sqlite" and not has_written(connection):  # or it has the lock
        return _limited_sqlite(connection, int(timeout * 1000))
    if dialect.name in ("mysql", "mariadb"):
        if dialect.is_mariadb:
            return contextlib.nullcontext(_MARIADB.format(seconds))
        return _limited_mysql(connection, seconds)
    return contextlib.nullcontext("")


@contextlib.contextmanager
def _limited_sqlite(connection: Connection, milliseconds: int) -> t.Iterator[str]:
    before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")
    try:
        yield ""
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {before}")


@contextlib.contextmanager
def _limited_mysql(connection: Connection, seconds: int) -> t.Iterator[str]:
    connection.exec_driver_sql(_MYSQL.format(seconds))
    try:
        yield ""
    finally:
        with contextlib.suppress(SQLAlchemyError):  # it may be lost
            connection.exec_driver_sql(_MYSQL_RESET)


def begin_writing(connection: Connection, deadline: float) -> None:
    """Begin to write, and wait no longer than until then for the locks of others."""
    left = int((deadline - time.monotonic()) * 1000)
    turn = max(1, min(left, TURN))
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {turn}")
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {turn}")
        begin_immediate(connection)


def begin_immediate(connection: Connection) -> None:
    """Take SQLite's one lock for writing, unless a transaction is open already: one
    that reads first and writes then fails at once if another did so meanwhile. Nor
    would Python's driver know of a transaction that a savepoint begins.
    """
    if connection.dialect.name != "sqlite":
        return
    driver: t.Any = connection.connection
    if not driver.in_transaction and getattr(driver, "autocommit", None) is not True:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def wait_in_turns(connection: t.Any, record: object) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {TURN // 1000}")


def pause(attempt: int) -> None:
    """Wait a little, so that those who were in each other's way come apart."""
    most = min(_PAUSE * 2 ** min(attempt, 9), _PAUSE_MOST)
    time.sleep(random.uniform(0, most))
