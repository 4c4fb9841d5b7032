"""What is asked of a connection that is somebody else's: a site's session has it."""

from __future__ import annotations

import typing as t

from sqlalchemy import Connection
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry

# What a connection to SQLite had changed when its transaction began, in its ``info``.
_BEGUN = "mmolove.begun"

# In the same place: that it commits each statement by itself, but for now.
_AUTOCOMMIT = "mmolove.autocommit"


def has_written(connection: Connection) -> bool:
    """Whether a site's transaction has changed anything; MariaDB cannot tell."""
    if connection.dialect.name == "postgresql":
        assigned = connection.exec_driver_sql("SELECT txid_current_if_assigned()")
        return assigned.scalar() is not None
    if connection.dialect.name == "sqlite":
        db = connection.connection
        # A transaction may have been begun by what only reads.
        changed = db.total_changes != connection.info.get(_BEGUN)
        return bool(db.in_transaction) and changed
    return False


def is_autocommit(connection: Connection) -> bool:
    """Whether each statement of a connection is committed by itself, as its engine or
    session says, or its driver's own arguments, which SQLAlchemy does not know.
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


def note_begin(connection: Connection) -> None:
    """Keep what ``has_written`` compares with: SQLite counts by connection."""
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
