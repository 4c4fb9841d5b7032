"""The outbox as part of the site's own session: what is recorded there is committed
with the site's changes, or not at all.

A note is enlisted in the session, and written when the session is flushed or commits,
for a new account has its id then. A rollback drops it, of the session or of the
savepoint in which it was enlisted; that of a savepoint in which it was only written has
it written again.
"""

from __future__ import annotations

import contextlib
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

from ...errors import IdentityError
from ...errors import MMOLoveError
from ...errors import OutboxError
from ...log import complain
from ...log import logger
from ...log import shielded
from ..counters import reached
from ..entry import Entry
from ..entry import Settlement
from ..report import Note
from ..report import record
from ..rules import begin
from ..rules import new_entry
from ..statements import Transaction
from .connections import has_written
from .connections import is_autocommit
from .connections import keep_autocommit
from .connections import note_begin
from .engines import ISOLATION
from .errors import is_conflict
from .locks import pause
from .store import SQLAlchemyOutbox

# What a session knows of us, in its ``info``.
_ENLISTED = "mmolove.enlisted"
_FLUSHED = "mmolove.flushed"

_FAILED = "A player could not be reported to MMOLove."
_FORGOTTEN = (
    "Player %s was not reported to MMOLove: db.session was not committed before the "
    "app context ended."
)


class Site(t.Protocol):
    """What a session's outbox asks of its app."""

    @property
    def timeout(self) -> float:
        """Seconds for which a commit may be held up."""

    def identify(self, player: t.Any) -> str:
        """A player's identity."""

    def record(self, note: Note) -> bool:
        """Record a note in a transaction of its own."""

    def spool_report(self, note: Note, reason: str) -> None:
        """Take the emergency exit with a note."""

    def committed(self, note: Note, new: list[Entry] | None, trouble: str) -> None:
        """A note was committed, as these entries or with this trouble."""


class SessionOutbox:
    """What one app records in its session.

    :param outbox: The same rows, for everyone who has no part in the session.
    :param session: Gives Flask-SQLAlchemy's ``db.session``. Tests put another there.
    :param server_id: The server to which events are addressed.
    :param site: Gives what the app has besides.
    """

    def __init__(
        self,
        outbox: SQLAlchemyOutbox,
        session: t.Callable[[], scoped_session[t.Any]],
        server_id: str,
        site: t.Callable[[], Site],
    ) -> None:
        self._outbox = outbox
        self._get_session = session
        self._heard = session()
        self._server_id = server_id
        self.site = site

    @property
    def _session(self) -> scoped_session[t.Any]:
        session = self._get_session()
        if session is not self._heard:
            listen(session)
            self._heard = session
        return session

    def enlist(self, note: Note, player: t.Any, trouble: str = "") -> Enlistment:
        """Record a note with the session's next commit.

        :param note: With an empty identity where that is not known yet.
        :param player: Of whom it is asked once the session is flushed.
        :param trouble: Why it cannot be written: once the session commits, it takes the
            emergency exit.
        """
        session = self._session()
        enlistment = Enlistment(self, session, note, player, trouble)
        session.info.setdefault(_ENLISTED, []).append(enlistment)
        return enlistment

    def is_of(self, session: Session) -> bool:
        """Whether a session is the one that an outbox's notes are enlisted in now."""
        return bool(self._session.registry.has() and self._session() is session)

    def flush(self, player: t.Any) -> None:
        """Let a new account have its identity.

        :raises SQLAlchemyError: If the database refuses what the site has changed.
        """
        session = self._session()
        if player in session.new:
            session.flush()

    def of(self, identity: str, test: bool) -> dict[str, Entry]:
        """A player's entries as they will be once what is enlisted is committed; they
        have no id yet.
        """
        entries = {}
        for note in (enlistment.note for enlistment in _enlisted(self._session())):
            if note.token and (note.identity, note.test) == (identity, test):
                for each in note.events(note.token, self._server_id):
                    start = begin(each.event, None, note.moment)
                    entry = new_entry(identity, each, start, note.moment, note.referrer)
                    entries[each.event] = entry
        return entries

    def is_committed(self, player: t.Any) -> bool:
        """Whether an account is there for good, as far as its session can tell."""
        state = inspect(player, raiseerr=False)
        return getattr(state, "has_identity", True) and not self.has_changes()

    def has_changes(self) -> bool:
        """Whether the session has something that is not committed."""
        if not self._session.registry.has():
            return False
        session = self._session()
        if session.new or session.dirty or session.deleted:
            return True
        if not session.in_transaction():
            return False
        try:
            if self.is_autocommit(session):
                return False
            if session.info.get(_FLUSHED):
                return True
            return has_written(self._connection(session))
        except (OutboxError, SQLAlchemyError):
            return True  # something failed, and was not rolled back yet

    def is_autocommit(self, session: Session) -> bool:
        """Whether what a session flushes is there for good at once.

        :raises OutboxError: If its connection to the outbox's database failed.
        """
        return is_autocommit(self._checked_connection(session))

    def write(self, session: Session, note: Note) -> list[Entry]:
        """Put a note into a session's transaction.

        :raises OutboxError: If that failed. What the site has changed stands.
        :raises SQLAlchemyError: If the whole transaction is lost.
        """
        return self._outbox.ride(
            self._checked_connection(session),
            lambda transaction: record(note, self._server_id, transaction),
            self.site().timeout,
        )

    def pay(
        self, settlement: Settlement, now: int, give: t.Callable[[], t.Any]
    ) -> Entry | None:
        """Give a reward and write it down in one transaction of the session; all of it
        anew as long as another transaction is in the way.

        :param settlement: How it is written down.
        :param give: May be called several times; what it did before is rolled back.
        :return: The entry as it is now, or None if it is somebody else's.
        :raises SQLAlchemyError: If it cannot be written down.
        """
        deadline = time.monotonic() + self._outbox.timeout
        for attempt in itertools.count(1):
            try:
                return self._pay(settlement, now, give)
            except SQLAlchemyError as e:
                self._session.rollback()
                if not is_conflict(e) or time.monotonic() > deadline:
                    raise
            pause(attempt)
        raise AssertionError

    def _pay(
        self, settlement: Settlement, now: int, give: t.Callable[[], t.Any]
    ) -> Entry | None:
        session = self._session()
        # First, so that it is committed too if the callback commits by itself.
        rows = self._begin(session)
        changed = rows.settle([settlement], now, lambda host: host, counts=False)
        if not changed:
            session.rollback()
            return None
        begun = session.get_transaction()
        give()
        if session.get_transaction() is not begun:
            self._check_paid(settlement.entry)
        (paid,) = changed
        # Last: others wait for it.
        self._rows().count(reached(paid, settlement.entry.state))
        session.commit()
        return paid

    def _begin(self, session: Session) -> Transaction:
        """The outbox in a transaction of the session, though its engine may commit
        each statement by itself.

        :raises MMOLoveError: If there can be none.
        """
        rows = self._rows()
        connection = self._connection(session)
        if not is_autocommit(connection):
            return rows
        if connection.dialect.name == "sqlite":
            raise MMOLoveError(
                "A reward is given in a transaction, and connections to SQLite that "
                "are made with autocommit=True know none. Take that out of the "
                "connect_args in SQLALCHEMY_ENGINE_OPTIONS."
            )
        session.rollback()
        keep_autocommit(self._connection(session, isolation_level=ISOLATION))
        return self._rows()

    def _check_paid(self, entry: Entry) -> None:
        """The callback has ended the transaction in which it was called."""
        found = self._rows().of(entry.identity, entry.test)
        if found[entry.event].state != "rewarded":
            raise MMOLoveError(
                "The reward callback rolled db.session back, or closed it, so that its "
                "reward is not written down. Let it raise instead."
            )

    def _rows(self) -> Transaction:
        return self._outbox.within(self._connection(self._session()))

    def close(self, error: BaseException | None = None) -> None:
        """The app context ends: record what was enlisted and has nothing to wait for.

        :param error: What ended it, if something did. Then what waits for a commit is
            dropped without a word: so is what it was to be committed with.
        """
        if not self._session.registry.has():
            return
        for enlistment in _enlisted(self._session()):
            with shielded(_FAILED):
                if enlistment.settle() or error is not None:
                    continue
                if enlistment.is_awaited:
                    logger.warning(_FORGOTTEN, enlistment.note.identity or "?")

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


class Enlistment:
    """A note that is to be written with a session's commit.

    :ivar recorded: Whether it was committed; it may be in the emergency exit.
    """

    def __init__(
        self,
        outbox: SessionOutbox,
        session: Session,
        note: Note,
        player: t.Any,
        trouble: str = "",
    ) -> None:
        self.note = note
        self.recorded = False
        #: Whether the site is told if it is never committed.
        self.is_awaited = True
        self._player = player
        self._outbox = outbox
        self._list = session.info.setdefault(_ENLISTED, [])
        self._savepoints = tuple(_savepoints(session))
        self._written_in: tuple[SessionTransaction, ...] = ()
        # What it tells of may be among the changes that are not committed yet.
        self._depends = outbox.has_changes()
        self._entries: list[Entry] | None = None
        self._trouble = trouble
        # It is to be recorded in a transaction of its own.
        self._stands_alone = False

    def settle(self) -> bool:
        """Record it now, unless there are changes with which it is to be committed.

        :return: Whether it is recorded.
        """
        if self in self._list and not self._depends:
            if self._stands_alone or self._outbox.is_committed(self._player):
                self.withdraw()
                self.note = self._identified()
                if self._trouble:
                    self._outbox.site().spool_report(self.note, self._trouble)
                else:
                    self._outbox.site().record(self.note)
                self.recorded = True
        return self.recorded

    def withdraw(self) -> None:
        """Do not record it, unless it is committed already."""
        if self in self._list:
            self._list.remove(self)

    def write(self, session: Session) -> None:
        """Put it into the session's transaction, once the player has an identity."""
        if self._is_written:
            return
        self._written_in = tuple(_savepoints(session))
        try:
            self.note = self._identified()
            if self._outbox.is_autocommit(session):
                # What it tells of stands already, and no transaction is there to join.
                self._stands_alone = True
                self._depends = False
            else:
                self._entries = self._outbox.write(session, self.note)
        except (IdentityError, SQLAlchemyError):
            raise
        except Exception as e:  # whatever it is, the event must not vanish
            self._trouble = str(e)

    def committed(self) -> None:
        """The session has committed."""
        self._depends = False
        self.recorded = self._is_written or self._stands_alone

    def ended(self) -> None:
        """The session's transaction has ended, one way or the other."""
        if self.recorded or self._depends:
            self.withdraw()
        if self.recorded:
            with shielded(_FAILED):
                site = self._outbox.site()
                if self._is_written:
                    site.committed(self.note, self._entries, self._trouble)
                else:
                    site.record(self.note)

    def rolled_back(self, transaction: SessionTransaction) -> None:
        """A transaction of the session, or a savepoint, was rolled back."""
        if transaction.parent is None or transaction in self._savepoints:
            self.withdraw()
        elif transaction in self._written_in:
            self._entries = None
            self._trouble = ""

    @property
    def _is_written(self) -> bool:
        return self._entries is not None or bool(self._trouble)

    def _identified(self) -> Note:
        if self.note.identity:
            return self.note
        return self.note._replace(identity=self._outbox.site().identify(self._player))


def listen(session: scoped_session[t.Any]) -> None:
    """Let notes be enlisted in a site's sessions. Twice is no more than once."""
    event.listen(session, "after_begin", _after_begin)
    event.listen(session, "after_flush_postexec", _after_flush)
    event.listen(session, "before_commit", _before_commit)
    event.listen(session, "after_commit", _after_commit)
    event.listen(session, "after_transaction_end", _after_transaction_end)
    event.listen(session, "after_soft_rollback", _after_soft_rollback)


def _enlisted(session: Session) -> list[Enlistment]:
    return [*session.info.get(_ENLISTED, ())]


def _savepoints(session: Session) -> t.Iterator[SessionTransaction]:
    transaction = session.get_nested_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


def _after_begin(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    if not transaction.nested:
        note_begin(connection)


def _after_flush(session: Session, context: object) -> None:
    session.info[_FLUSHED] = True
    for enlistment in _enlisted(session):
        with contextlib.suppress(IdentityError):  # it may have one after the next flush
            enlistment.write(session)


def _before_commit(session: Session) -> None:
    if session.in_nested_transaction() or not _enlisted(session):
        return
    session.flush()  # what fails in here would fail in the commit itself
    for enlistment in _enlisted(session):
        try:
            enlistment.write(session)
        except IdentityError as e:
            enlistment.withdraw()
            complain(_FAILED, e)


def _after_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        for enlistment in _enlisted(session):
            enlistment.committed()


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(_FLUSHED, None)
        for enlistment in _enlisted(session):
            enlistment.ended()


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    # A flush that failed took along what it was part of, and no more.
    while transaction.parent is not None and not transaction.nested:
        transaction = transaction.parent
    for enlistment in _enlisted(session):
        enlistment.rolled_back(transaction)
