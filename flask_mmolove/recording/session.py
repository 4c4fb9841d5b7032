"""Reports that are committed with the site's changes: ``MMOLove(app, db=db)``.

A report is enlisted in the session, and written when that is flushed or commits, for a
new account has its id then. A rollback drops it, of the session or of the savepoint in
which it was enlisted; that of a savepoint in which it was only written has it written
again.
"""

from __future__ import annotations

import contextlib
import typing as t

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import scoped_session
from sqlalchemy.orm import Session
from sqlalchemy.orm import SessionTransaction

from ..errors import IdentityError
from ..log import log_failure
from ..log import logger
from ..log import shielded
from ..outbox.entry import Entry
from ..outbox.report import Report
from ..outbox.rules import begin
from ..outbox.rules import new_entry
from ..outbox.sql.session import SessionOutbox
from .pending import PendingReport
from .recorder import READ_TIMEOUT
from .recorder import Recorder

# The reports that are enlisted in a session, in its ``info``.
_ENLISTED = "mmolove.enlisted"

_FAILED = "A player could not be reported to MMOLove."
_FORGOTTEN = (
    "Player %s was not reported to MMOLove: db.session was not committed before the "
    "app context ended."
)


class SessionRecorder(Recorder):
    """Records reports with the site's changes, where there are any.

    :param session: The outbox in the site's session.
    """

    def __init__(self, session: SessionOutbox, *parts: t.Any) -> None:
        super().__init__(*parts)
        self._session = session
        session.listen(_listen)

    @property
    def read_timeout(self) -> float:
        # The site's session may hold a lock itself.
        return READ_TIMEOUT

    def prepare(
        self, report: Report, player: t.Any, trouble: str = ""
    ) -> PendingReport:
        return SessionReport(self, self._session, report, player, trouble)

    def entries(self, identity: str) -> dict[str, Entry]:
        """A player's entries, with those yet to be committed, which have no id."""
        known = super().entries(identity)
        return self._enlisted(identity) | known

    def _enlisted(self, identity: str) -> dict[str, Entry]:
        entries, whose = {}, (identity, self._settings.test)
        for report in (each.report for each in _enlisted(self._session.session)):
            if report.token and (report.identity, report.test) == whose:
                for each in report.events(report.token, self._settings.server_id):
                    start, now = begin(each.event, None, report.moment), report.moment
                    entry = new_entry(identity, each, start, now, report.referrer)
                    entries[each.event] = entry
        return entries

    def flush(self, player: t.Any) -> None:
        self._session.flush(player)

    def joins(self, session: Session) -> bool:
        return self._session.is_of(session)

    def close(self, error: BaseException | None = None) -> None:
        """The app context ends: record what was enlisted and has nothing to wait for.

        :param error: What ended it, if something did. Then what waits for a commit is
            dropped without a word, like the changes it belongs to.
        """
        if not self._session.is_used:
            return
        for report in _enlisted(self._session.session):
            with shielded(_FAILED):
                if not report.settle() and report.is_awaited and error is None:
                    logger.warning(_FORGOTTEN, report.report.identity or "?")


class SessionReport(PendingReport):
    """A report written with a session's commit, if its player is not committed yet."""

    follows_commit = True

    def __init__(
        self,
        recorder: Recorder,
        outbox: SessionOutbox,
        report: Report,
        player: t.Any,
        trouble: str = "",
    ) -> None:
        super().__init__(recorder, report, player, trouble)
        self._outbox = outbox
        # The reports of the session in which it is enlisted.
        self._list: list[SessionReport] = []
        self._is_submitted = False
        # What it tells of may be among the changes that are not committed yet.
        self._depends = False
        # Its player stands already, and there is no transaction to join.
        self._stands_alone = False
        self._entries: list[Entry] | None = None
        # The savepoints in which it was enlisted, and in which it was written.
        self._savepoints: tuple[SessionTransaction, ...] = ()
        self._written_in: tuple[SessionTransaction, ...] = ()
        if not outbox.is_committed(player):
            self.submit()

    def submit(self) -> bool:
        """Enlist it. What troubles it comes out when the session commits."""
        if not self._is_submitted:
            session = self._outbox.session
            self._is_submitted = True
            self._savepoints = tuple(_savepoints(session))
            self._depends = self._outbox.has_changes()
            self._list = session.info.setdefault(_ENLISTED, [])
            self._list.append(self)
        return True

    def settle(self) -> bool:
        if self in self._list and not self._depends:
            if self._stands_alone or self._outbox.is_committed(self.player):
                self.withdraw()
                self._record()
        return self.is_recorded

    def withdraw(self) -> None:
        if self in self._list:
            self._list.remove(self)

    def write(self, session: Session) -> None:
        """Put it into the session's transaction, once the player has an identity."""
        if self._is_written:
            return
        self._written_in = tuple(_savepoints(session))
        try:
            self._identify()
            if self._outbox.is_autocommit(session):
                self._stands_alone = True
                self._depends = False
            else:
                timeout = self._recorder.timeout
                self._entries = self._outbox.write(session, self.report, timeout)
        except (IdentityError, SQLAlchemyError):
            raise
        except Exception as e:  # whatever it is, the event must not vanish
            self._trouble = str(e)

    def committed(self) -> None:
        """The session has committed."""
        self._depends = False
        self.is_recorded = self._is_written or self._stands_alone

    def ended(self) -> None:
        """The session's transaction has ended, one way or the other."""
        if self.is_recorded or self._depends:
            self.withdraw()
        if self.is_recorded:
            with shielded(_FAILED):
                if self._entries is None:
                    self._record()
                else:
                    self._recorder.announce(self.report, self._entries)

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


def _listen(session: scoped_session[t.Any]) -> None:
    event.listen(session, "after_flush_postexec", _after_flush)
    event.listen(session, "before_commit", _before_commit)
    event.listen(session, "after_commit", _after_commit)
    event.listen(session, "after_transaction_end", _after_transaction_end)
    event.listen(session, "after_soft_rollback", _after_soft_rollback)


def _enlisted(session: Session) -> list[SessionReport]:
    return [*session.info.get(_ENLISTED, ())]


def _savepoints(session: Session) -> t.Iterator[SessionTransaction]:
    transaction = session.get_nested_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


def _after_flush(session: Session, context: object) -> None:
    for report in _enlisted(session):
        with contextlib.suppress(IdentityError):  # it may have one after the next flush
            report.write(session)


def _before_commit(session: Session) -> None:
    if session.in_nested_transaction() or not _enlisted(session):
        return
    session.flush()  # what fails in here would fail in the commit itself
    for report in _enlisted(session):
        try:
            report.write(session)
        except IdentityError as e:
            report.withdraw()
            log_failure(_FAILED, e)


def _after_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        for report in _enlisted(session):
            report.committed()


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        for report in _enlisted(session):
            report.ended()


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    # A flush that failed took along what it was part of, and no more.
    while transaction.parent is not None and not transaction.nested:
        transaction = transaction.parent
    for report in _enlisted(session):
        report.rolled_back(transaction)
