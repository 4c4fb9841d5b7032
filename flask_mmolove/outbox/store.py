"""The outbox as the rest of the package uses it, whatever it keeps its rows in."""

from __future__ import annotations

import abc
import itertools
import json
import typing as t

from .breaker import Breaker
from .counters import Mark
from .dialect import Dialect
from .entry import Entry
from .entry import is_id
from .entry import Settlement
from .entry import TIMEOUT
from .friends import Round
from .invitation import Invitation
from .report import Report
from .reward_breaker import RewardBreaker
from .statements import Transaction
from .states import EntryState

if t.TYPE_CHECKING:
    from .inspector import Inspector

R = t.TypeVar("R")

# Rows that one transaction of a person's action takes.
_BATCH = 500

# The fact that every token that was reported is owned by an account.
_OWNED = "tokens owned"


class Outbox(abc.ABC):
    """Where entries are kept.

    Each method is one transaction, or several short ones where noted, and what it
    does is described in :class:`~flask_mmolove.outbox.statements.Transaction`: when it
    returns, it is on disk, and when it raises
    :exc:`~flask_mmolove.errors.OutboxError`, nothing happened.

    Where a method takes a ``timeout``, the caller waits no more seconds than that.

    :ivar dialect: How the store's SQL differs.
    :ivar timeout: Seconds for callers that do not name any.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.timeout = TIMEOUT

    # The store itself.

    @abc.abstractmethod
    def run(
        self,
        work: t.Callable[[Transaction], R],
        timeout: float | None = None,
        *,
        writes: bool = True,
    ) -> R:
        """Run a piece of work in a transaction, and again as long as another one is in
        the way.

        :param work: May be called several times; what counts is the last.
        :param writes: False for one that only reads.
        """

    @abc.abstractmethod
    def create(self) -> bool:
        """Create what is missing of the store, and return whether anything was."""

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
        """Import what can be read of files that were damaged, deleted or replaced, and
        return how many entries those are. Costs nothing where nothing happened.
        """
        return 0

    def upgrade(self) -> None:
        """Bring rows of an earlier version up to date, in several transactions. Costs a
        look where there are none.
        """
        if self.run(lambda db: db.fact(_OWNED), writes=False) is None:
            after: int | None = 0
            while after is not None:
                after = self._own_tokens(after)
            self.run(lambda db: db.set_fact(_OWNED, "yes"))

    def _own_tokens(self, after: int) -> int | None:
        return self.run(lambda db: db.own_tokens(after))

    # Recording.

    def record(
        self, report: Report, server_id: str, timeout: float | None = None
    ) -> list[Entry]:
        return self.run(lambda db: db.record(report, server_id), timeout)

    def record_all(
        self, reports: t.Sequence[Report], server_id: str, timeout: float | None = None
    ) -> list[Entry]:
        """Record some hundred reports at once."""

        def work(db: Transaction) -> list[Entry]:
            new = (db.record(report, server_id) for report in reports)
            return list(itertools.chain.from_iterable(new))

        return self.run(work, timeout) if reports else []

    def hold(
        self, key: str, invitation: Invitation, now: int, timeout: float | None = None
    ) -> None:
        self.run(lambda db: db.hold(key, invitation, now), timeout)

    def held(
        self, key: str, now: int, timeout: float | None = None
    ) -> Invitation | None:
        return self.run(lambda db: db.held(key, now), timeout, writes=False)

    def let_go(self, key: str, timeout: float | None = None) -> None:
        self.run(lambda db: db.let_go(key), timeout)

    # Reading.

    @property
    def inspector(self) -> Inspector:
        """What is asked for pages and counts."""
        return self.inspect()

    def inspect(self, timeout: float | None = None) -> Inspector:
        """The same for callers that can wait no longer than that."""
        from .inspector import Inspector  # no request of a visitor needs it

        return Inspector(self, timeout)

    def of(
        self, identity: str, test: bool, timeout: float | None = None
    ) -> dict[str, Entry]:
        return self.run(lambda db: db.of(identity, test), timeout, writes=False)

    def is_used(self, token: str, timeout: float | None = None) -> bool:
        return self.run(lambda db: db.is_used(token), timeout, writes=False)

    def next_due(self, now: int, timeout: float | None = None) -> int | None:
        return self.run(lambda db: db.next_due(now), timeout, writes=False)

    def breaker(self, timeout: float | None = None) -> Breaker:
        return self.run(lambda db: db.breaker(), timeout, writes=False)

    def reward_breaker(self, timeout: float | None = None) -> RewardBreaker:
        return self.run(lambda db: db.reward_breaker(), timeout, writes=False)

    def of_all(
        self,
        identities: t.Collection[str],
        test: bool,
        timeout: float | None = None,
    ) -> dict[str, dict[str, Entry]]:
        return self.run(lambda db: db.of_all(identities, test), timeout, writes=False)

    def count(self, marks: t.Sequence[Mark], timeout: float | None = None) -> None:
        self.run(lambda db: db.count(marks), timeout)

    # Asking for milestones.

    def round(self, timeout: float | None = None) -> Round:
        return self.run(lambda db: db.round(), timeout, writes=False)

    def claim_round(self, now: int, lease: int, claim: str) -> Round | None:
        return self.run(lambda db: db.claim_round(now, lease, claim))

    def save_round(self, known: Round, claim: str) -> bool:
        return self.run(lambda db: db.save_round(known, claim))

    def renew_round(self, due: int, claim: str) -> bool:
        return self.run(lambda db: db.renew_round(due, claim))

    def last_row(self) -> int:
        return self.run(lambda db: db.last_row(), writes=False)

    def friends(
        self, after: int, last: int, test: bool, since: int
    ) -> tuple[list[Entry], int]:
        return self.run(lambda db: db.friends(after, last, test, since), writes=False)

    # Delivering.

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

    def reward_failed(self, id: int, reason: str, now: int) -> RewardBreaker:
        return self.run(lambda db: db.reward_failed(id, reason, now))

    def reward_granted(self, now: int) -> RewardBreaker:
        """The callback works. Gives what was known of it before."""
        before = self.reward_breaker()
        if before != RewardBreaker():
            self.run(lambda db: db.reward_granted(now))
        return before

    def heartbeat(self, now: int, ahead: float) -> None:
        """Write down that something delivers; see :meth:`Inspector.worker`."""
        shown = json.dumps([now, ahead])
        self.run(lambda db: db.set_fact("worker", shown))

    def apply_settings(self, fingerprint: str, server_id: str, now: int) -> int | None:
        if self.run(lambda db: db.fact("settings"), writes=False) == fingerprint:
            return None
        return self.run(lambda db: db.apply_settings(fingerprint, server_id, now))

    # What a person does.

    def retry(
        self,
        now: int,
        ids: t.Collection[int] | None = None,
        timeout: float | None = None,
    ) -> list[Entry]:
        """Send rejected entries again, in several transactions: all, or those named."""
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
        """See :meth:`Actions.decide`; None if there is no such reward."""
        if not is_id(id):
            return None
        decided = self.run(lambda db: db.decide([id], state, now), timeout)
        return decided[0] if decided else None

    def retry_rewards(self, now: int, timeout: float | None = None) -> int:
        """Have the rewards granted that failed, in several transactions, and return how
        many those are.
        """
        total, inspector = 0, self.inspect(timeout)
        while batch := inspector.page(state="reward_failed", limit=_BATCH):
            total += self._retry_rewards([entry.id for entry in batch], now, timeout)
        return total

    def _retry_rewards(self, ids: list[int], now: int, timeout: float | None) -> int:
        return len(self.run(lambda db: db.decide(ids, "accepted", now), timeout))

    def resume(self, now: int) -> None:
        self.run(lambda db: db.resume(now))

    def use_tokens(
        self, player: str, tokens: t.Collection[str], timeout: float | None = None
    ) -> None:
        """See :meth:`Actions.use_tokens`. It is a transaction of its own, before
        :meth:`erase`: a signup that is recorded at the very moment at which the row
        goes must find its token here already.
        """
        self.run(lambda db: db.use_tokens(player, tokens), timeout)

    def erase(self, player: str, timeout: float | None = None) -> list[Entry]:
        return self.run(lambda db: db.erase(player), timeout)

    def dismiss(self, entry: Entry, timeout: float | None = None) -> list[Entry]:
        """See :meth:`Actions.dismiss`. Its token is kept first, as in :meth:`erase`."""
        self.use_tokens(entry.identity, [], timeout)
        return self.run(lambda db: db.dismiss(entry.id), timeout)

    def purge(
        self, before: int, progress: t.Callable[[int], object] = lambda rows: None
    ) -> int:
        """Remove the players of whom everything is finished since before a moment, in
        several transactions, and return how many entries that were.

        :param progress: Called after each of them, with how many rows it looked at.
        """
        total = 0
        after: int | None = 0
        while after is not None:
            count, after = self._purge(after, before)
            total += count
            progress(_BATCH)
        return total

    def _purge(self, after: int, before: int) -> tuple[int, int | None]:
        # In a transaction of its own and first, as :meth:`use_tokens`.
        self.run(lambda db: db.use_finished(after, before, _BATCH))
        return self.run(lambda db: db.purge(after, before, _BATCH))
