"""What keeps a fault of ours from undoing what someone else's transaction holds."""

from __future__ import annotations

import typing as t

from sqlalchemy import Connection
from sqlalchemy import NestedTransaction
from sqlalchemy.exc import SQLAlchemyError

from . import pipeline


class Savepoint:
    """A piece of our work in someone else's transaction, with a savepoint as SQLAlchemy
    makes one.

    :ivar options: SQLAlchemy's options for our statements.
    """

    options: t.Mapping[str, t.Any] = {}

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self) -> None:
        """What is done from here on can be undone."""
        self._made: NestedTransaction = self._connection.begin_nested()

    def release(self) -> None:
        """What was done belongs to the transaction from now on."""
        self._made.commit()

    def undo(self) -> bool:
        """Undo what was done, and return whether the transaction stands. It does not if
        its connection is lost, or after a deadlock in MariaDB.
        """
        if self._connection.invalidated:
            return False
        try:
            return self._undo()
        except SQLAlchemyError:
            return False

    def _undo(self) -> bool:
        self._made.rollback()  # fails if the transaction is lost
        return True


class _WithLimit(Savepoint):
    """One in PostgreSQL, where the wait for locks is limited in the same round trips.

    :param limit: Milliseconds.
    """

    def __init__(self, connection: Connection, limit: int) -> None:
        super().__init__(connection)
        self._limit = limit

    def begin(self) -> None:
        self._run(f"{pipeline.BEGIN}; {pipeline.SET_LIMIT.format(self._limit)}")

    def release(self) -> None:
        self._run(f"{pipeline.RESET_LIMIT}; {pipeline.RELEASE}")

    def _undo(self) -> bool:
        self._run(pipeline.UNDO)
        return True

    def _run(self, sql: str) -> None:
        self._connection.exec_driver_sql(sql).close()


class _Nothing(Savepoint):
    """None, because a statement that fails undoes itself. Nothing else is undone then,
    or all of the transaction is.
    """

    def begin(self) -> None:
        pass

    def release(self) -> None:
        pass

    def _undo(self) -> bool:
        driver: t.Any = self._connection.connection.driver_connection
        if self._connection.dialect.name == "sqlite":
            return bool(driver.in_transaction)
        sql = "SELECT @@in_transaction"
        return bool(self._connection.exec_driver_sql(sql).scalar())


class _Pipelined(_Nothing):
    """The same in PostgreSQL, where a pipeline brings a savepoint for each statement.

    :param limit: Milliseconds for which one may wait for a lock.
    """

    def __init__(self, connection: Connection, limit: int) -> None:
        super().__init__(connection)
        self.options = {pipeline.LIMIT: limit}

    def _undo(self) -> bool:
        driver: t.Any = self._connection.connection.driver_connection
        return bool(driver.info.transaction_status.name == "INTRANS")


def savepoint(connection: Connection, timeout: float, is_one_row: bool) -> Savepoint:
    """The one with the fewest round trips, because a signup waits for each.

    :param timeout: Seconds for which PostgreSQL may wait for a lock; the others have
        :func:`.locks.limited`.
    :param is_one_row: Whether the work writes no more than that.
    """
    dialect: t.Any = connection.dialect
    if dialect.name == "postgresql":
        limit = max(1, int(timeout * 1000))
        if is_one_row and pipeline.is_possible(connection):
            return _Pipelined(connection, limit)
        return _WithLimit(connection, limit)
    if is_one_row and (dialect.name == "sqlite" or dialect.is_mariadb):
        return _Nothing(connection)
    return Savepoint(connection)
