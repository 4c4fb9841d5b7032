"""What is to be recorded of a player, before it is an entry."""

from __future__ import annotations

import typing as t

from ..protocol.wire import Event
from ..protocol.wire import shorten
from .entry import Entry
from .entry import Invitation
from .entry import make_event
from .statements import Transaction


class Note(t.NamedTuple):
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
        """What it is about, for the person who reads of it."""
        return f"The event of player {self.identity}" if self.names else "A held token"

    @property
    def key(self) -> str:
        """Whose it is: the player's identity, or the key of a held token."""
        return self.identity or self.held or ""

    def events(self, token: str, server_id: str) -> list[Event]:
        """The events themselves."""
        who = (self.identity, token, server_id, self.moment, self.test)
        return [make_event(name, *who) for name in self.names]

    def __repr__(self) -> str:
        token = None if self.token is None else shorten(self.token)
        return f"<Note {[*self.names]} of {self.identity!r} token={token}>"


def record(note: Note, server_id: str, outbox: Transaction) -> list[Entry]:
    """Put what a note says into an outbox, and give the entries that are new. None are
    if the player was not referred, or if it was said before.

    :param server_id: The server to which the events are addressed.
    """
    invitation = _recall(note, outbox)
    if invitation is None:
        return []
    if note.held is not None and not note.names:
        outbox.hold(note.held, invitation, note.moment)
        return []
    token, referrer = invitation
    events = note.events(token, server_id)
    new = outbox.add(note.identity, events, note.moment, referrer=referrer)
    if note.held is not None:
        outbox.let_go(note.held)
    return new


def _recall(note: Note, outbox: Transaction) -> Invitation | None:
    """By what the player of a note came."""
    if note.token is not None:
        return Invitation(note.token, note.referrer)
    if note.held is not None:
        return outbox.held(note.held, note.moment)
    known = outbox.of(note.identity, note.test).get("registered")
    return Invitation(known.token, known.referrer) if known else None
