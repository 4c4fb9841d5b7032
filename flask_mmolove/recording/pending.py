"""A report of a player whom the site has named."""

from __future__ import annotations

import typing as t

from ..orm import is_in_session
from ..orm import is_undone
from ..outbox.report import Report

if t.TYPE_CHECKING:
    from .recorder import Recorder


class PendingReport:
    """A report until it is recorded or withdrawn. This one is recorded as soon as it is
    submitted, in a transaction of its own.

    :param report: With an empty identity where that is not known yet.
    :param player: Who is asked for it then.
    :param trouble: Why the outbox cannot take it, so that it is spooled.
    :ivar is_recorded: Whether it is committed, or spooled.
    :ivar is_awaited: Whether the site is told if it never is.
    """

    #: Whether the site's commit decides if it is recorded, and not the response.
    follows_commit = False

    def __init__(
        self, recorder: Recorder, report: Report, player: t.Any, trouble: str = ""
    ) -> None:
        self.report = report
        self.player = player
        self.is_recorded = False
        self.is_awaited = True
        self._recorder = recorder
        self._trouble = trouble
        self._was_in_session = is_in_session(player)

    def submit(self) -> bool:
        """The site means it. False if it had to be spooled.

        :raises IdentityError: If the player has no identity.
        :raises OutboxError: If neither the outbox nor any disk can take it.
        """
        return self.is_recorded or self._record()

    def settle(self) -> bool:
        """Record it if submitted and not waiting for a commit; tell whether it is."""
        return self.is_recorded

    def withdraw(self) -> None:
        """Do not record it, unless that is done already."""

    @property
    def is_undone(self) -> bool:
        """Whether the player's row was rolled back, or deleted."""
        had_row = self.report.identity and self._was_in_session
        return bool(had_row and is_undone(self.player))

    def _identify(self) -> None:
        if not self.report.identity:
            identity = self._recorder.identify(self.player)
            self.report = self.report._replace(identity=identity)

    def _record(self) -> bool:
        self._identify()
        if self._trouble:
            self._recorder.spool(self.report, self._trouble)
        is_stored = not self._trouble and self._recorder.record(self.report)
        self.is_recorded = True
        return is_stored
