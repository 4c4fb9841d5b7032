"""The seam: what an outbox does, whatever it keeps its rows in."""

from __future__ import annotations

import abc
import itertools
import typing as t

from ..protocol.wire import Event
from .breaker import Breaker
from .entry import Entry
from .entry import EntryState
from .entry import Invitation
from .entry import is_id
from .entry import Settlement
from .entry import TIMEOUT
from .inspector import Inspector
from .report import record
from .report import Report
from .reward_breaker import RewardBreaker
from .statements import Dialect
from .statements import Transaction

R = t.TypeVar("R")

# Rejected entries that are sent again in one transaction.
_BATCH = 500

# The fact that every token that was reported is owned by an account.
_OWNED = "tokens owned"


class Outbox(abc.ABC):
    """Where entries are kept.

    Each method is one transaction, described where it is made, in
    :class:`~flask_mmolove.outbox.statements.Transaction`: when it returns, it is on
    disk, and when it raises :exc:`~flask_mmolove.errors.OutboxError`, nothing happened.
    ``timeout`` is for how many seconds the caller may wait.

    :ivar inspector: What a person asks of the outbox.
    :ivar timeout: How many seconds that is for who does not say.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.timeout = TIMEOUT
        self._dialect = dialect
        self.inspector = self.inspect()

    def inspect(self, timeout: float | None = None) -> Inspector:
        """The same as :attr:`inspector`, for who can wait no longer than that."""
        return Inspector(self.run, self._dialect, timeout)

    @abc.abstractmethod
    def run(
        self,
        work: t.Callable[[Transaction], R],
        timeout: float | None = None,
        *,
        writes: bool = True,
    ) -> R:
        """Do a piece of work in a transaction, and all of it anew as long as another
        one is in the way.

        :param work: May be called several times; what counts is the last.
        :param writes: False for one that only reads.
        """

    @abc.abstractmethod
    def create(self) -> bool:
        """Make the store, and say whether something of it was not there."""

    def probe(self) -> None:
        """Find out whether it can be written.

        :raises OutboxError: If it cannot.
        """
        self.let_go("")  # nothing, but it has to be written

    @abc.abstractmethod
    def close(self) -> None:
        """Close what is open of it in this process."""

    @property
    def incident(self) -> bool:
        """Whether there is, or may be, something to :meth:`recover`."""
        return False

    def recover(self) -> int:
        """Take over what stands in files that were damaged, deleted or replaced, and
        give how many entries those are. Costs nothing where nothing happened.
        """
        return 0

    def record(
        self, note: Report, server_id: str, timeout: float | None = None
    ) -> list[Entry]:
        """See :func:`~flask_mmolove.outbox.report.record`."""
        return self.run(lambda db: record(note, server_id, db), timeout)

    def add(
        self,
        identity: str,
        events: t.Sequence[Event],
        now: int,
        timeout: float | None = None,
        *,
        referrer: str | None = None,
    ) -> list[Entry]:
        return self.run(
            lambda db: db.add(identity, events, now, referrer=referrer), timeout
        )

    def hold(
        self, key: str, invitation: Invitation, now: int, timeout: float | None = None
    ) -> None:
        self.run(lambda db: db.hold(key, invitation, now), timeout)

    def held(
        self, key: str, now: int, timeout: float | None = None
    ) -> Invitation | None:
        return self.run(lambda db: db.held(key, now), timeout, writes=False)

    def is_used(self, token: str, timeout: float | None = None) -> bool:
        return self.run(lambda db: db.is_used(token), timeout, writes=False)

    def let_go(self, key: str, timeout: float | None = None) -> None:
        self.run(lambda db: db.let_go(key), timeout)

    def of(
        self, identity: str, test: bool, timeout: float | None = None
    ) -> dict[str, Entry]:
        return self.run(lambda db: db.of(identity, test), timeout, writes=False)

    def claim(
        self,
        state: EntryState,
        now: int,
        lease: int,
        limit: int,
        ids: t.Collection[int] | None = None,
    ) -> list[Entry]:
        return self.run(lambda db: db.claim(state, now, lease, limit, ids))

    def settle(
        self,
        settlements: t.Sequence[Settlement],
        now: int,
        learn: t.Callable[[Breaker], Breaker] = lambda breaker: breaker,
    ) -> list[Entry]:
        return self.run(lambda db: db.settle(settlements, now, learn))

    def release(self, entries: t.Sequence[Entry], timeout: float | None = None) -> None:
        self.run(lambda db: db.release(entries), timeout)

    def renew(
        self, entries: t.Sequence[Entry], due: int, timeout: float | None = None
    ) -> list[Entry]:
        return self.run(lambda db: db.renew(entries, due), timeout)

    def next_due(self, now: int, timeout: float | None = None) -> int | None:
        return self.run(lambda db: db.next_due(now), timeout, writes=False)

    def upgrade(self) -> None:
        """Bring rows of an earlier version up to date. Costs a look where there are
        none.
        """
        if self.run(lambda db: db.fact(_OWNED), writes=False) is None:
            after: int | None = 0
            while after is not None:
                after = self._own_tokens(after)
            self.run(lambda db: db.set_fact(_OWNED, "yes"))

    def _own_tokens(self, after: int) -> int | None:
        return self.run(lambda db: db.own_tokens(after))

    def apply_settings(self, fingerprint: str, server_id: str, now: int) -> int | None:
        if self.run(lambda db: db.fact("settings"), writes=False) == fingerprint:
            return None
        return self.run(lambda db: db.apply_settings(fingerprint, server_id, now))

    def retry(
        self,
        now: int,
        ids: t.Collection[int] | None = None,
        timeout: float | None = None,
    ) -> list[Entry]:
        """Send rejected entries again: all, or those named."""
        if ids is None:
            ids = self.run(lambda db: db.rejected(), timeout, writes=False)
        waiting, again = filter(is_id, ids), []
        while batch := list(itertools.islice(waiting, _BATCH)):
            again += self._retry(now, batch, timeout)
        return again

    def _retry(self, now: int, ids: list[int], timeout: float | None) -> list[Entry]:
        return self.run(lambda db: db.retry(now, ids), timeout)

    def decide(
        self, id: int, state: EntryState, now: int, timeout: float | None = None
    ) -> Entry | None:
        if not is_id(id):
            return None
        return self.run(lambda db: db.decide(id, state, now), timeout)

    def retry_rewards(self, now: int, timeout: float | None = None) -> int:
        """Have the rewards granted that failed, and give how many those are."""
        total, inspector = 0, self.inspect(timeout)
        while batch := inspector.page(state="unpaid", limit=_BATCH):
            total += self._retry_rewards(batch, now, timeout)
        return total

    def _retry_rewards(
        self, entries: list[Entry], now: int, timeout: float | None
    ) -> int:
        def work(db: Transaction) -> int:
            decided = [db.decide(entry.id, "accepted", now) for entry in entries]
            return sum(entry is not None for entry in decided)

        return self.run(work, timeout)

    def resume(self, now: int) -> None:
        self.run(lambda db: db.resume(now))

    def breaker(self, timeout: float | None = None) -> Breaker:
        return self.run(lambda db: db.breaker(), timeout, writes=False)

    def reward_breaker(self, timeout: float | None = None) -> RewardBreaker:
        return self.run(lambda db: db.reward_breaker(), timeout, writes=False)

    def reward_failed(self, id: int, reason: str, now: int) -> RewardBreaker:
        return self.run(lambda db: db.reward_failed(id, reason, now))

    def reward_granted(self, now: int) -> None:
        if self.reward_breaker() != RewardBreaker():
            self.run(lambda db: db.reward_granted(now))
