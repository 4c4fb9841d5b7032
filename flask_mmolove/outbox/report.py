"""What happened to a player, before it is an entry of the outbox."""

import typing as t

from ..protocol.wire import Event
from ..protocol.wire import shorten
from .entry import Entry
from .entry import Invitation
from .entry import make_event
from .statements import Transaction


class Report(t.NamedTuple):
    """Events of one player that happened at one moment.

    :param identity: The player's; empty as long as it is not known.
    :param token: The player's token; None where only the outbox knows it.
    :param names: The events' names, in order; none if a token is to be held.
    :param moment: When it happened, in integer milliseconds.
    :param referrer: Who invited the player, where it is known.
    :param held: The key under which the outbox holds the token, or is to hold it.
    """

    identity: str
    token: str | None
    names: t.Sequence[str]
    test: bool
    moment: int
    referrer: str | None = None
    held: str | None = None

    @property
    def subject(self) -> str:
        """What it is about, for messages."""
        return f"The event of player {self.identity}" if self.names else "A held token"

    @property
    def key(self) -> str:
        """Whose it is: the player's identity, or the key of a held token."""
        return self.identity or self.held or ""

    @property
    def is_one_row(self) -> bool:
        """Whether nothing else is written for it."""
        return len(self.names) == 1 and self.held is None

    def events(self, token: str, server_id: str) -> list[Event]:
        """The events themselves."""
        who = (self.identity, token, server_id, self.moment, self.test)
        return [make_event(name, *who) for name in self.names]

    def __repr__(self) -> str:
        token = None if self.token is None else shorten(self.token)
        return f"<Report {[*self.names]} of {self.identity!r} token={token}>"


def record(report: Report, server_id: str, outbox: Transaction) -> list[Entry]:
    """Put a report's events into an outbox, and give the entries that are new: none if
    the player was not referred, or if they are there already.

    :param server_id: The server to which the events are addressed.
    """
    invitation = _recall(report, outbox)
    if invitation is None:
        return []
    if report.held is not None and not report.names:
        outbox.hold(report.held, invitation, report.moment)
        return []
    token, referrer = invitation
    events = report.events(token, server_id)
    new = outbox.add(report.identity, events, report.moment, referrer=referrer)
    if report.held is not None:
        outbox.let_go(report.held)
    return new


def _recall(report: Report, outbox: Transaction) -> Invitation | None:
    """By what the player of a report came."""
    if report.token is not None:
        return Invitation(report.token, report.referrer)
    if report.held is not None:
        return outbox.held(report.held, report.moment)
    known = outbox.of(report.identity, report.test).get("registered")
    return Invitation(known.token, known.referrer) if known else None
