"""Puts reports into an app's outbox, or into the spool while it takes nothing."""

from __future__ import annotations

import typing as t

from flask import Flask
from flask import has_request_context

from .. import signals
from ..callbacks import Callbacks
from ..clock import milliseconds
from ..delivery.engine import Engine
from ..delivery.events import warn_of_other_token
from ..delivery.events import warn_of_second
from ..delivery.watchdog import Watchdog
from ..log import logger
from ..log import shielded
from ..log import Throttle
from ..outbox.entry import Entry
from ..outbox.entry import TIMEOUT
from ..outbox.invitation import Invitation
from ..outbox.report import Report
from ..outbox.spool import Spool
from ..outbox.store import Outbox
from ..settings import Settings
from .pending import PendingReport

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session

#: Seconds a request may wait for the outbox; a script waits as a worker does. A signup
#: may be held up for 2 s in all, the spool included.
REQUEST_TIMEOUT = 1.5
READ_TIMEOUT = 0.2


class Recorder:
    """Records reports in transactions of their own.

    :param engine: Is woken for what is new.
    :param watchdog: Looks then whether what is older was delivered.
    :param looked: Forgets the tokens that are recorded.
    """

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        callbacks: Callbacks,
        outbox: Outbox,
        spool: Spool,
        engine: Engine,
        watchdog: Watchdog,
        looked: Throttle,
    ) -> None:
        self._app = app
        self._settings = settings
        self._outbox = outbox
        self._spool = spool
        self._engine = engine
        self._watchdog = watchdog
        self._looked = looked
        self.identify = callbacks.identify

    @property
    def timeout(self) -> float:
        """Seconds the caller may wait for the outbox."""
        return REQUEST_TIMEOUT if has_request_context() else TIMEOUT

    @property
    def read_timeout(self) -> float:
        """The same for a look before and after it."""
        return READ_TIMEOUT if has_request_context() else TIMEOUT

    def report(
        self, identity: str, invitation: Invitation | None, *names: str
    ) -> Report:
        """What happens to a player at this moment.

        :param invitation: By what the player came; None where only the outbox knows.
        """
        token, referrer = invitation or (None, None)
        test = self._settings.test
        return Report(identity, token, names, test, milliseconds(), referrer)

    def prepare(
        self, report: Report, player: t.Any, trouble: str = ""
    ) -> PendingReport:
        """A report that the site may still withdraw; see :class:`.PendingReport`."""
        return PendingReport(self, report, player, trouble)

    def record(self, report: Report) -> bool:
        """Record a report now, and have it delivered. False if it had to be spooled.

        :raises OutboxError: If neither the outbox nor any disk can take it.
        """
        try:
            new = self._outbox.record(report, self._settings.server_id, self.timeout)
        except Exception as e:  # whatever it is, the event must not vanish
            self.spool(report, str(e))
            return False
        self.announce(report, new)
        return True

    def record_all(self, reports: t.Sequence[Report]) -> None:
        """Record some hundred reports in one transaction, and have them delivered.

        :raises OutboxError: If the outbox cannot take them; then it has none.
        """
        server_id = self._settings.server_id
        new = self._outbox.record_all(reports, server_id, self.timeout)
        for entry in new:
            signals.announce(self._app, entry)
        self._wake([entry.id for entry in new])

    def announce(self, report: Report, new: t.Sequence[Entry]) -> None:
        """Tell of what a report brought into the outbox, and have it delivered.

        :param new: The entries that are new.
        """
        for entry in new:
            if entry.is_second:
                warn_of_second(entry)
            signals.announce(self._app, entry)
        if report.names:
            self._wake([entry.id for entry in new])
        self._looked.forget(report.token or "")
        if report.token and report.names and not new:
            with shielded("Whether a player came by another token is not known."):
                known = self._outbox.of(report.identity, report.test, READ_TIMEOUT)
                warn_of_other_token(report, known)

    def spool(self, report: Report, reason: str) -> None:
        """Put a report that the outbox cannot take into the spool.

        :param reason: Why it cannot, in a sentence.
        :raises OutboxError: If no disk can take it either.
        """
        file = self._spool.write(report)
        logger.error(
            "%s %s is spooled in %s and imported automatically.",
            reason,
            report.subject,
            file,
        )
        if self._settings.delivery != "inline":  # that would wait for the store again
            self._wake()

    def _wake(self, ids: t.Collection[int] = ()) -> None:
        self._engine.wake(ids)
        self._watchdog.look_out()

    def entries(self, identity: str) -> dict[str, Entry]:
        """A player's entries by event name.

        :raises OutboxError: If they cannot be read in time.
        """
        return self._outbox.of(identity, self._settings.test, self.read_timeout)

    def flush(self, player: t.Any) -> None:
        """Let a new account have its identity.

        :raises SQLAlchemyError: If the database refuses what the site has changed.
        """

    def joins(self, session: Session) -> bool:
        """Whether what is submitted before a session commits is committed with it."""
        return False

    def close(self, error: BaseException | None = None) -> None:
        """The app context ends.

        :param error: What ended it, if something did.
        """
