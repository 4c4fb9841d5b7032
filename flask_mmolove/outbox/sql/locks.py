"""How long a transaction waits for the locks of others, in each database's own way."""

from __future__ import annotations

import contextlib
import random
import time
import typing as t

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

#: Milliseconds of a turn: locks are waited for in turns, so that the caller's timeout
#: is kept. MariaDB knows whole seconds only.
TURN = 1000


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

_PAUSE = 0.002
_PAUSE_MOST = 0.1


@contextlib.contextmanager
def limited(connection: Connection, timeout: float | None) -> t.Iterator[None]:
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
    that reads first and writes then fails at once if another did so meanwhile.
    """
    driver: t.Any = connection.connection
    if not driver.in_transaction and getattr(driver, "autocommit", None) is not True:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def wait_in_turns(connection: t.Any, record: object) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(_MYSQL_SET.format(TURN // 1000))


def pause(attempt: int) -> None:
    """Wait a little, so that those who were in each other's way come apart."""
    most = min(_PAUSE * 2 ** min(attempt, 9), _PAUSE_MOST)
    time.sleep(random.uniform(0, most))
