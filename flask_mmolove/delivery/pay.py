"""Gives the rewards that are due, and writes down that they were given."""

from __future__ import annotations

import typing as t

from ..log import logger
from ..outbox import Entry
from ..outbox import Outbox
from ..outbox import Settlement
from .backoff import backoff
from .backoff import CRASHES
from .report import NO_CALLBACK

#: Times a reward callback may raise before its reward is set aside for a person.
REWARD_FAILURES = 5

#: Milliseconds for which a reward callback has its entry alone.
REWARD_LEASE = 300_000

#: Rewards that are paid before events are looked at again.
REWARDS_IN_A_ROW = 20

#: What can be promised of a reward callback's calls.
Promise = t.Literal["at-least-once", "at-most-once", "exactly-once"]


class Rewarder(t.Protocol):
    """Calls the site's reward callback.

    ``promise`` is how the site registered it, and where it writes.
    """

    @property
    def promise(self) -> Promise: ...

    def prepare(self, entry: Entry) -> t.Callable[[], Entry | None]:
        """What gives the reward of an entry, or raises, when it is called. If it is
        given exactly once, that has also written it down, and gives the entry as it is
        now; None if the entry is somebody else's.
        """


class Payer:
    """Pays what is accepted and due.

    :param rewarder: Gives the site's callback, or None while the site has none.
    :param tell: Told each entry whose state changed.
    :param now: Gives the time in milliseconds.
    :param uniform: Random numbers between two.
    """

    def __init__(
        self,
        outbox: Outbox,
        rewarder: t.Callable[[], Rewarder | None],
        tell: t.Callable[[Entry], None],
        now: t.Callable[[], int],
        uniform: t.Callable[[float, float], float],
    ) -> None:
        self._outbox = outbox
        self._rewarder = rewarder
        self._tell = tell
        self._now = now
        self._uniform = uniform
        # Given, and not yet written down: the store may fail in between.
        self._paid: set[tuple[str, str, bool]] = set()
        self._stopped = False

    def stop(self) -> None:
        """Begin no other reward."""
        self._stopped = True

    def pay(self) -> int:
        """Give what is due, a few at the most, and say how many that were."""
        rewarder = self._rewarder()
        for count in range(REWARDS_IN_A_ROW):
            # One at a time: what is claimed and not yet paid when the process dies
            # has to wait for its lease.
            if self._stopped:
                return count
            entries = self._outbox.claim("accepted", self._now(), REWARD_LEASE, 1)
            if not entries:
                return count
            self._give(rewarder, entries[0])
        return REWARDS_IN_A_ROW

    def _give(self, rewarder: Rewarder | None, entry: Entry) -> None:
        if rewarder is None:
            self._settle(Settlement(entry, "unpaid", answer=NO_CALLBACK))
            return
        if entry.crashes >= CRASHES:
            words = f"its callback took the process down {entry.crashes} times"
            self._settle(Settlement(entry, "unpaid", answer=words))
            return
        give = rewarder.prepare(entry)
        if rewarder.promise == "at-most-once":
            # Recorded first: a crash from here on leaves it for a person to decide.
            begun = self._settle(Settlement(entry, "unknown"))
            if begun is None:
                return
            entry = begun
        try:
            written = None if entry.key in self._paid else give()
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # a callback that calls sys.exit() ends nothing here
            logger.exception(
                "The reward callback raised for player %s.",
                entry.identity,
                extra={"event_id": entry.id},
            )
            if rewarder.promise != "at-most-once":
                self._settle(self._failed(entry, e))
        else:
            self._write_down(rewarder, entry, written)

    def _write_down(
        self, rewarder: Rewarder, entry: Entry, written: Entry | None
    ) -> None:
        if written is not None:
            self._tell(written)
        if rewarder.promise != "exactly-once":
            self._paid.add(entry.key)
            self._settle(Settlement(entry, "rewarded", sure=True))

    def _failed(self, entry: Entry, error: BaseException) -> Settlement:
        words = f"its callback raised {type(error).__name__}"
        if entry.attempts - entry.crashes >= REWARD_FAILURES:
            return Settlement(entry, "unpaid", answer=words)
        due = self._now() + backoff(entry.attempts, self._uniform)
        return Settlement(entry, "accepted", due=due, answer=words)

    def _settle(self, settlement: Settlement) -> Entry | None:
        settled = settlement._replace(status=settlement.entry.status)
        changed = self._outbox.settle([settled], self._now())
        self._paid.discard(settlement.entry.key)
        for entry in changed:
            self._tell(entry)
        return changed[0] if changed else None
