"""All that is done with the rows of an outbox within one open transaction.

It is written once, in the SQL that every store understands, and split by subject. A
store says how a statement is run, and how a row is put in.
"""

from __future__ import annotations

import abc
import typing as t

from ..protocol.wire import Event
from .actions import Actions
from .entry import Entry
from .friends import Friends
from .held import Held
from .invitation import Invitation
from .report import Report
from .rules import as_second
from .rules import new_entry


class Transaction(Held, Friends, Actions):
    """The outbox within one open transaction.

    What others do meanwhile can show as an error of the database, after which the whole
    transaction has to be run again.
    """

    def record(self, report: Report, server_id: str) -> list[Entry]:
        """Put a report's events in, and give the entries that are new: none if the
        player was not referred, or if they are there already.

        :param server_id: The server to which the events are addressed.
        """
        invitation = self._invitation_of(report)
        if invitation is None:
            return []
        if report.held is not None and not report.names:
            self.hold(report.held, invitation, report.moment)
            return []
        token, referrer = invitation
        events = report.events(token, server_id)
        new = self.add(report.identity, events, report.moment, referrer=referrer)
        if report.held is not None:
            self.let_go(report.held)
        return new

    def _invitation_of(self, report: Report) -> Invitation | None:
        """How the player of a report was invited; None if it is not known."""
        if report.token is not None:
            return Invitation(report.token, report.referrer)
        if report.held is not None:
            return self.held(report.held, report.moment)
        known = self.of(report.identity, report.test).get("registered")
        return Invitation(known.token, known.referrer) if known else None

    def add(
        self,
        identity: str,
        events: t.Sequence[Event],
        now: int,
        *,
        referrer: str | None = None,
    ) -> list[Entry]:
        """Record events of one player, and give those that are new.

        An event that stands already stays as it is. A ``qualified`` waits until its
        player's ``registered`` is accepted. A ``registered`` whose token belongs to
        another account is ignored from the start, and so is what follows it.

        :param referrer: Who invited the player, where it is known.
        """
        new = []
        for event in events:
            start = self._start(identity, event.event, event.test, now)
            entry = new_entry(identity, event, start, now, referrer)
            id = self._insert(entry)
            if id is None and event.event not in self.of(identity, event.test):
                entry = as_second(entry)
                id = self._insert(entry)
            if id is not None:
                new.append(entry._replace(id=id))
        return new

    def insertion(self, names: t.Iterable[str]) -> str:
        """The statement that puts a row in, unless ``:used`` is the digest of a token
        whose row is gone.
        """
        columns, places = ", ".join(names), ", ".join(f":{name}" for name in names)
        return (
            f"INSERT INTO {self._event} ({columns})"
            f" SELECT {places}{self._dialect.no_table} WHERE NOT EXISTS"
            f" (SELECT 1 FROM {self._dialect.used} WHERE digest = :used)"
        )

    @abc.abstractmethod
    def _insert(self, entry: Entry) -> int | None:
        """The id of a new row; None if the event stands already, or if its token
        belongs to another account. See :meth:`insertion`.
        """
