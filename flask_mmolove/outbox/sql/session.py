"""The outbox in the site's session: committed with the site's changes or not at all."""

from __future__ import annotations

import itertools
import time
import typing as t

from sqlalchemy import Connection
from sqlalchemy import event
from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import scoped_session
from sqlalchemy.orm import Session
from sqlalchemy.orm import SessionTransaction

from ...errors import MMOLoveError
from ...errors import OutboxError
from ..counters import reached
from ..entry import Entry
from ..entry import Settlement
from ..report import Report
from ..statements import Transaction
from . import connections
from .engines import ISOLATION
from .errors import is_conflict
from .locks import pause
from .store import SQLAlchemyOutbox

# In a session's ``info``: whether its transaction has flushed something.
_FLUSHED = "mmolove.flushed"

Listen = t.Callable[["scoped_session[t.Any]"], None]


class SessionOutbox:
    """The rows of an outbox in the transactions of the site's session.

    :param outbox: The same rows, for everyone who has no part in the session.
    :param session: Gives Flask-SQLAlchemy's ``db.session``. Tests put another there.
    :param server_id: The server to which events are addressed.
    """

    def __init__(
        self,
        outbox: SQLAlchemyOutbox,
        session: t.Callable[[], scoped_session[t.Any]],
        server_id: str,
    ) -> None:
        self._outbox = outbox
        self._get_session = session
        self._server_id = server_id
        self._heard: scoped_session[t.Any] | None = None
        self._listeners: list[Listen] = []
        self.listen(_listen)

    def listen(self, listener: Listen) -> None:
        """Add a listener to the site's sessions, and to those a test puts there."""
        self._listeners.append(listener)
        listener(self._session)

    @property
    def _session(self) -> scoped_session[t.Any]:
        session = self._get_session()
        if session is not self._heard:
            self._heard = session
            for listen in self._listeners:
                listen(session)
        return session

    @property
    def is_used(self) -> bool:
        """Whether the site has used its session since it was last removed."""
        return bool(self._session.registry.has())

    @property
    def session(self) -> Session:
        """The site's session."""
        return t.cast(Session, self._session())

    def is_of(self, session: Session) -> bool:
        """Whether a session is the site's own."""
        return self.is_used and self.session is session

    def flush(self, player: t.Any) -> None:
        """Let a new account have its identity.

        :raises SQLAlchemyError: If the database refuses what the site has changed.
        """
        session = self.session
        if player in session.new:
            session.flush()

    def is_committed(self, player: t.Any) -> bool:
        """Whether an account is there for good, as far as its session can tell."""
        state = inspect(player, raiseerr=False)
        return getattr(state, "has_identity", True) and not self.has_changes()

    def has_changes(self) -> bool:
        """Whether the session has something that is not committed."""
        if not self.is_used:
            return False
        session = self.session
        if session.new or session.dirty or session.deleted:
            return True
        if not session.in_transaction():
            return False
        try:
            if self.is_autocommit(session):
                return False
            if session.info.get(_FLUSHED):
                return True
            return connections.has_written(self._connection(session))
        except (OutboxError, SQLAlchemyError):
            return True  # something failed, and was not rolled back yet

    def is_autocommit(self, session: Session) -> bool:
        """Whether what a session flushes is there for good at once.

        :raises OutboxError: If its connection to the outbox's database failed.
        """
        return connections.is_autocommit(self._checked_connection(session))

    def write(self, session: Session, report: Report, timeout: float) -> list[Entry]:
        """Put a report into a session's transaction.

        :param timeout: Seconds for which the commit may be held up.
        :raises OutboxError: If that failed. What the site has changed stands.
        :raises SQLAlchemyError: If the whole transaction is lost.
        """
        return self._outbox.ride(
            self._checked_connection(session),
            lambda db: db.record(report, self._server_id),
            timeout,
            is_one_row=report.is_one_row,
        )

    def grant(
        self, settlement: Settlement, now: int, give: t.Callable[[], t.Any]
    ) -> Entry | None:
        """Give a reward and record that in one transaction of the session; both again
        as long as another transaction is in the way.

        :param settlement: How it is recorded.
        :param give: May be called several times; what it did before is rolled back.
        :return: The entry as it is now, or None if it is somebody else's.
        :raises SQLAlchemyError: If it cannot be recorded.
        """
        deadline = time.monotonic() + self._outbox.timeout
        for attempt in itertools.count(1):
            try:
                return self._grant(settlement, now, give)
            except SQLAlchemyError as e:
                self._session.rollback()
                if not is_conflict(e) or time.monotonic() > deadline:
                    raise
            pause(attempt)
        raise AssertionError

    def _grant(
        self, settlement: Settlement, now: int, give: t.Callable[[], t.Any]
    ) -> Entry | None:
        session = self.session
        # First, so that it is committed too if the callback commits by itself.
        rows = self._begin(session)
        changed = rows.settle([settlement], now, lambda host: host, counts=False)
        if not changed:
            session.rollback()
            return None
        begun = session.get_transaction()
        give()
        if session.get_transaction() is not begun:
            self._check_granted(settlement.entry)
        (granted,) = changed
        # Last: others wait for it.
        self._rows().count(reached(granted, settlement.entry.state))
        session.commit()
        return granted

    def _begin(self, session: Session) -> Transaction:
        """The outbox in a transaction of the session, even one that autocommits.

        :raises MMOLoveError: If there can be none.
        """
        rows = self._rows()
        connection = self._connection(session)
        if not connections.is_autocommit(connection):
            return rows
        if connection.dialect.name == "sqlite":
            raise MMOLoveError(
                "A reward is granted in a transaction, and connections to SQLite that "
                "are made with autocommit=True know none. Take that out of the "
                "connect_args in SQLALCHEMY_ENGINE_OPTIONS."
            )
        session.rollback()
        connection = self._connection(session, isolation_level=ISOLATION)
        connections.keep_autocommit(connection)
        return self._rows()

    def _check_granted(self, entry: Entry) -> None:
        """The callback has ended the transaction in which it was called."""
        found = self._rows().of(entry.identity, entry.test)
        if found[entry.event].state != "rewarded":
            raise MMOLoveError(
                "The reward callback rolled db.session back, or closed it, so that its "
                "reward is not written down. Let it raise instead."
            )

    def _rows(self) -> Transaction:
        return self._outbox.within(self._connection(self.session))

    def _connection(self, session: Session, **options: t.Any) -> Connection:
        where = {"clause": self._outbox.tables.event}
        return session.connection(where, execution_options=options)

    def _checked_connection(self, session: Session) -> Connection:
        # Where the site's changes are in other binds, this is the first that is done
        # in ours: they stand whatever becomes of it.
        try:
            return self._connection(session)
        except SQLAlchemyError as e:
            raise self._outbox.in_words(e) from getattr(e, "orig", None)


def _listen(session: scoped_session[t.Any]) -> None:
    event.listen(session, "after_begin", _after_begin)
    event.listen(session, "after_flush_postexec", _after_flush)
    event.listen(session, "after_transaction_end", _after_transaction_end)


def _after_begin(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    if not transaction.nested:
        connections.note_begin(connection)


def _after_flush(session: Session, context: object) -> None:
    session.info[_FLUSHED] = True


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_FLUSHED, None)
