"""The row of the outbox, and its states."""

# Without "from __future__ import annotations": a named tuple would compile the type of
# each of its fields, and take nearly twice as long to import.

import json
import typing as t
from datetime import datetime
from datetime import timezone

from ..protocol.wire import Event
from ..protocol.wire import is_token
from ..protocol.wire import shorten
from .tokens import TOKEN_USED

#: ``pending``
#:     To be sent; or, without ``due``, waiting for its player's ``registered``.
#: ``accepted``
#:     MMOLove took it. A ``qualified`` with ``due`` has a reward to come.
#: ``rewarded``
#:     The site's reward callback did its work.
#: ``ignored``
#:     Another referrer registered the player first, or another account was reported
#:     with the token first: never a reward.
#: ``rejected``
#:     The dead letter: refused, or failed too often; kept until a person acts.
#: ``reward_unconfirmed``
#:     An at-most-once reward that began, and nobody knows whether it was granted.
#: ``reward_failed``
#:     The callback failed too often, or there is none: kept until a person acts.
EntryState = t.Literal[
    "pending",
    "accepted",
    "rewarded",
    "ignored",
    "rejected",
    "reward_unconfirmed",
    "reward_failed",
]

#: What two states were called until the third schema of the SQLite file.
RENAMED: dict[str, EntryState] = {
    "unknown": "reward_unconfirmed",
    "unpaid": "reward_failed",
}

#: Seconds for which a background worker waits for the store; a request waits less.
TIMEOUT = 30.0

#: Earlier answers that are kept of an event.
ANSWERS_AT_MOST = 10

#: Characters that are kept of an answer.
ANSWER_LENGTH = 500

#: Later than every id, and a number that every database takes.
LAST = 1 << 62


def as_datetime(milliseconds: int) -> datetime:
    """A time of an entry, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def is_id(number: int) -> bool:
    """Whether a number can be an id. Some databases fail on one that is too large."""
    return 0 < number < LAST


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


class Invitation(t.NamedTuple):
    """By what a player came.

    :param token: The ``mmref``.
    :param referrer: The identity of the player who invited, where it is known.
    """

    token: str
    referrer: str | None = None

    def pack(self) -> t.Any:
        """It in JSON's types, as short as can be."""
        return self.token if self.referrer is None else [self.token, self.referrer]

    @classmethod
    def unpack(cls, packed: t.Any) -> "Invitation | None":
        """Take it back; None if it is none."""
        match packed:
            case [str(token), str(referrer)] if is_token(token):
                return cls(token, referrer)
            case str(token) if is_token(token):
                return cls(token)
        return None

    def __repr__(self) -> str:
        return f"<Invitation {shorten(self.token)} by {self.referrer!r}>"


class Answer(t.NamedTuple):
    """What once came of an event, in the words of :class:`Entry`.

    :param settled: When, in milliseconds.
    :param took: How long the attempt took, in milliseconds, if that is known.
    """

    settled: int
    status: int | None
    words: str
    took: int | None = None


class Entry(t.NamedTuple):
    """One event through its whole life. Times are integer milliseconds.

    :param due: When it is next to be handled, or until when a claim on it holds; None
        where only a person can act.
    :param claim: Names the claim under which it is being handled.
    :param attempts: Counted when it is claimed, so that a crash counts.
    :param crashes: Those of the attempts that nobody settled.
    :param begun: The uptime at its first claim, by which its age is measured; 0 before.
        See :meth:`Breaker.uptime`. For a reward, the time of its first attempt.
    :param status: The last answer's HTTP status; 0 where none came.
    :param answer: The last answer's words, or what went wrong.
    :param referrer: The identity of who invited the player, where it is known.
    :param history: The answers before it, as JSON; see :attr:`answers`.
    :param digest: What of the token is kept from other accounts, where this entry owns
        it; see :mod:`~flask_mmolove.outbox.tokens`.
    :param number: Which credited friend of its referrer this is, once it is one; see
        :mod:`~flask_mmolove.outbox.numbers`.
    :param took: How many milliseconds the last attempt took, if that is known.
    """

    id: int
    identity: str
    event: str
    test: bool
    token: str
    server_id: str
    body: bytes
    state: EntryState
    due: int | None
    claim: str | None
    attempts: int
    crashes: int
    recorded: int
    begun: int
    settled: int | None
    status: int | None
    answer: str | None
    referral_id: str | None
    referrer: str | None = None
    history: str | None = None
    digest: str | None = None
    number: int | None = None
    took: int | None = None

    @property
    def is_second(self) -> bool:
        """Whether it is ignored because its token belongs to another account."""
        return self.state == "ignored" and self.answer == TOKEN_USED

    @property
    def is_junk(self) -> bool:
        """Whether it is a signup that MMOLove refused because it does not know the
        token. Where the settings were wrong all along, it does not know any.
        """
        known = self.event, self.state, self.status
        return known == ("registered", "rejected", 404)

    @property
    def answers(self) -> list[Answer]:
        """The last answers, oldest first."""
        earlier = []
        if self.history is not None:
            earlier = [Answer(*each) for each in json.loads(self.history)]
        if self.answer is None or self.settled is None:
            return earlier
        last = Answer(self.settled, self.status, self.answer, self.took)
        return [*earlier, last]

    @property
    def key(self) -> tuple[str, str, bool]:
        """What identifies the entry. Its ``id`` changes when it is recovered from a
        damaged file.
        """
        return self.identity, self.event, self.test

    def addressed_to(self, server_id: str) -> Event:
        """The event for another server id."""
        return make_event(
            self.event,
            self.identity,
            self.token,
            server_id,
            self.recorded,
            self.test,
        )

    def __repr__(self) -> str:
        return (
            f"<Entry {self.id} {self.event} of {self.identity!r} {self.state}"
            f" token={shorten(self.token)}>"
        )


class Settlement(t.NamedTuple):
    """What becomes of a claimed entry.

    :param entry: The entry as it was claimed.
    :param state: What it is from now on.
    :param due: When it is to be handled again, if ever.
    :param is_fact: It really happened out there, so it holds although another claim may
        have been made meanwhile; a failure is settled by the claim's holder only.
    :param resets_attempts: A new phase begins, and attempts are counted from none.
    """

    entry: Entry
    state: EntryState
    due: int | None = None
    is_fact: bool = False
    resets_attempts: bool = False
    status: int | None = None
    answer: str | None = None
    referral_id: str | None = None
    took: int | None = None
