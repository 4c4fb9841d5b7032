"""The row of the outbox, its states, and the seam behind which a store keeps it."""

from __future__ import annotations

import json
import typing as t

from ..wire import Event
from ..wire import is_token
from ..wire import shorten
from .host import Host

if t.TYPE_CHECKING:
    from .journal import Journal

#: ``pending``
#:     To be sent; or, without ``due``, waiting for its player's ``registered``.
#: ``accepted``
#:     MMOLove took it. A ``qualified`` with ``due`` has a reward to come.
#: ``rewarded``
#:     The site's reward callback did its work.
#: ``ignored``
#:     Another referrer registered the player first: never a reward.
#: ``rejected``
#:     The dead letter: refused or given up, kept until a person sends it again.
#: ``unknown``
#:     An at-most-once reward that began, and nobody knows whether it was given.
#: ``unpaid``
#:     A reward set aside for a person after the callback failed too often.
State = t.Literal[
    "pending", "accepted", "rewarded", "ignored", "rejected", "unknown", "unpaid"
]


#: Earlier answers that are kept of an event.
ANSWERS_AT_MOST = 10

#: Attempts that are made before an event is given up, however old it is.
ATTEMPTS_AT_LEAST = 12


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
    def unpack(cls, packed: t.Any) -> Invitation | None:
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
    """

    settled: int
    status: int | None
    words: str


class Entry(t.NamedTuple):
    """One event through its whole life. Times are integer milliseconds.

    :param due: When it is next to be handled, or until when a claim on it holds; None
        where nothing is to be done by itself.
    :param claim: Names the claim under which it is being handled.
    :param attempts: Counted when it is claimed, so that a crash counts.
    :param crashes: Those of the attempts that nobody settled.
    :param begun: The host's uptime at its first claim, by which its age is measured; 0
        before. See :class:`Host`.
    :param status: The last answer's HTTP status; 0 where none came.
    :param answer: The last answer's words, or what went wrong.
    :param referrer: The identity of who invited the player, where it is known.
    :param history: The answers before it, as JSON; see :attr:`answers`.
    """

    id: int
    identity: str
    event: str
    test: bool
    token: str
    server_id: str
    body: bytes
    state: State
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

    @property
    def answers(self) -> list[Answer]:
        """The last answers, oldest first."""
        earlier = []
        if self.history is not None:
            earlier = [Answer(*each) for each in json.loads(self.history)]
        if self.answer is None or self.settled is None:
            return earlier
        return [*earlier, Answer(self.settled, self.status, self.answer)]

    @property
    def key(self) -> tuple[str, str, bool]:
        """What the entry is known by. Its ``id`` is another after its file was damaged
        and its rows were taken over into a new one.
        """
        return self.identity, self.event, bool(self.test)

    def addressed_to(self, server_id: str) -> Event:
        """The event anew, for another server id."""
        return make_event(
            self.event,
            self.identity,
            self.token,
            server_id,
            self.recorded,
            bool(self.test),
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
    :param sure: It really happened out there, so it holds although another claim may
        have been made meanwhile; a failure is settled by the claim's holder only.
    :param renewed: A new phase begins, and attempts are counted from none.
    """

    entry: Entry
    state: State
    due: int | None = None
    sure: bool = False
    renewed: bool = False
    status: int | None = None
    answer: str | None = None
    referral_id: str | None = None


class Summary(t.NamedTuple):
    """What stands in an outbox.

    :param counts: How many entries are in each state.
    :param waiting: Those of the pending that wait for their ``registered``.
    :param oldest: When the oldest pending entry was recorded, in milliseconds.
    :param host: What is known of MMOLove.
    """

    counts: dict[State, int]
    waiting: int
    oldest: int | None
    host: Host


class Outbox(t.Protocol):
    """Where entries are kept.

    Each method is one transaction: when it returns, it is on disk, and when it raises
    :exc:`~flask_mmolove.errors.OutboxError`, nothing happened.
    """

    def create(self) -> bool:
        """Make the store, and say whether something of it was not there."""

    def add(
        self,
        identity: str,
        events: t.Sequence[Event],
        now: int,
        patience: float = 30.0,
        *,
        referrer: str | None = None,
    ) -> list[Entry]:
        """Record events of one player, and give those that are new.

        An event that stands already stays as it is. A ``qualified`` waits until its
        player's ``registered`` is accepted.

        :param patience: Seconds the caller may wait.
        :param referrer: Who invited the player, where it is known.
        """

    def hold(
        self, key: str, invitation: Invitation, now: int, patience: float = 30.0
    ) -> None:
        """Keep an invitation for an account that is yet to be, in place of an earlier
        one, for as long as its token can be good.

        :param key: At most 64 characters.
        """

    def held(self, key: str, now: int, patience: float = 30.0) -> Invitation | None:
        """What is kept under a key."""

    def let_go(self, key: str, patience: float = 30.0) -> None:
        """Forget what is kept under a key."""

    def of(self, identity: str, test: bool, patience: float = 30.0) -> dict[str, Entry]:
        """A player's entries by event name."""

    def claim(
        self,
        state: State,
        now: int,
        lease: int,
        limit: int,
        ids: t.Collection[int] | None = None,
    ) -> list[Entry]:
        """Take due entries of a state, until ``now + lease`` for this caller alone.

        No more ``pending`` ones are given than the :class:`Host` bears. An entry whose
        last claim was never settled comes alone, so that it is clear which one it is
        that kills its worker.

        :param ids: Take none but these, a few hundred at the most.
        """

    def settle(
        self,
        settlements: t.Sequence[Settlement],
        now: int,
        learn: t.Callable[[Host], Host] = lambda host: host,
    ) -> list[Entry]:
        """Write what became of claimed entries, and give those that were changed.

        A ``registered`` that is accepted makes its player's ``qualified`` due; one that
        is ignored takes it along.

        :param learn: What the attempts taught about the host.
        """

    def release(self, entries: t.Sequence[Entry], patience: float = 30.0) -> None:
        """Give claims back unused: nothing was tried."""

    @property
    def incident(self) -> bool:
        """Whether there is, or may be, something to :meth:`rescue`."""

    def rescue(self) -> int:
        """Take over what stands in files that were damaged, deleted or replaced, and
        give how many entries those are. Costs nothing where nothing happened.
        """

    def next_due(self, now: int, patience: float = 30.0) -> int | None:
        """When something is next to be done, in milliseconds."""

    def adopt(self, fingerprint: str, server_id: str, now: int) -> int:
        """Meet settings. If they are not those of before, what waits is addressed anew,
        what was refused under the old ones is sent again, and the host gets a fresh
        start. Gives how many were refused.

        :param fingerprint: :attr:`flask_mmolove.settings.Settings.fingerprint`.
        """

    def retry(self, now: int, ids: t.Collection[int] | None = None) -> list[Entry]:
        """Send rejected entries again: all, or those named."""

    def find(self, states: t.Collection[State], limit: int) -> list[Entry]:
        """Entries in any of the states, newest first."""

    def decide(self, id: int, state: State, now: int) -> Entry | None:
        """A person's word on a reward that is ``unknown`` or ``unpaid``: it is
        ``rewarded``, or ``accepted`` to be given again. None if it is neither.
        """

    def host(self) -> Host:
        """What is known of MMOLove."""

    def summary(self) -> Summary:
        """What stands in the outbox."""

    @property
    def journal(self) -> Journal:
        """What a person asks of the outbox."""

    def close(self) -> None:
        """Let go of the store."""
