"""The row of the outbox."""

# Without "from __future__ import annotations": a named tuple would compile the type of
# each of its fields, and take nearly twice as long to import.

import json
import typing as t

from ..protocol.wire import Event
from ..protocol.wire import shorten
from .report import make_event
from .states import EntryState
from .tokens import TOKEN_USED

#: Seconds for which a background worker waits for the store; a request waits less.
TIMEOUT = 30.0

#: Earlier answers that are kept of an event.
ANSWERS_AT_MOST = 10

#: Characters that are kept of an answer.
ANSWER_LENGTH = 500

#: Later than every id, and a number that every database takes.
LAST = 1 << 62


def is_id(number: int) -> bool:
    """Whether a number can be an id. Some databases fail on one that is too large."""
    return 0 < number < LAST


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
