"""What the site says of a player, and the event that it becomes."""

import typing as t

from ..protocol.wire import Event
from ..protocol.wire import shorten


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


def make_event(
    name: str, identity: str, token: str, server_id: str, moment: int, test: bool
) -> Event:
    """A player's event. One of each name is all there can be, so its
    ``server_event_id`` follows from the player.

    :param moment: When it happened, in integer milliseconds.
    """
    prefix = {"registered": "reg", "qualified": "qual"}[name]
    return Event(
        event=name,
        token=token,
        server_id=server_id,
        server_event_id=f"{prefix}-{identity}",
        ts=moment // 1000,
        referee_identity=identity if name == "registered" else None,
        test=test,
    )
