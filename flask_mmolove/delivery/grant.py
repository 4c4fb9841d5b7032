"""Grants the rewards that are due, and writes down that they were granted."""

from __future__ import annotations

import contextlib
import math
import time
import typing as t

from ..errors import RewardLater
from ..log import logger
from ..log import Throttle
from ..outbox import backoff
from ..outbox.entry import Entry
from ..outbox.entry import Settlement
from ..outbox.reward_breaker import RewardBreaker
from ..outbox.store import Outbox
from .events import NO_CALLBACK
from .lease import Leases

#: Rewards that are granted before events are looked at again.
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
        """A function that grants the reward of an entry, or raises. If it is granted
        exactly once, the function also writes that down, and returns the entry as it is
        now; None if the entry is somebody else's.
        """


class Granter:
    """Grants what is accepted and due.

    :param rewarder: Gives the site's callback, or None while the site has none.
    :param tell: Told each entry whose state changed.
    :param now: Gives the time in milliseconds.
    :param uniform: Random numbers between two.
    :param leases: Those of this process.
    :param give_up_after: Seconds after which a reward that fails while others are
        granted is left to a person.
    """

    def __init__(
        self,
        outbox: Outbox,
        rewarder: t.Callable[[], Rewarder | None],
        tell: t.Callable[[Entry], None],
        now: t.Callable[[], int],
        uniform: t.Callable[[float, float], float],
        leases: Leases,
        give_up_after: float,
    ) -> None:
        self._give_up_after = give_up_after * 1000
        self._outbox = outbox
        self._rewarder = rewarder
        self._tell = tell
        self._now = now
        self._uniform = uniform
        self._leases = leases
        # Granted, and not yet written down: the store may fail in between.
        self._granted: set[tuple[str, str, bool]] = set()
        self._stopped = False
        self._traced = Throttle(600)

    def stop(self) -> None:
        """Begin no more rewards."""
        self._stopped = True

    def grant(self, until: float = math.inf) -> int:
        """Grant what is due, a few at the most, and return how many that were.

        :param until: When none is begun any more, as :func:`time.monotonic` has it.
        """
        rewarder = self._rewarder()
        for count in range(REWARDS_IN_A_ROW):
            # One at a time: what is claimed when the process dies waits for its lease.
            if self._stopped or time.monotonic() > until:
                return count
            lease = self._leases.length
            entries = self._outbox.claim("accepted", self._now(), lease, 1)
            if not entries:
                return count
            self._grant(rewarder, entries[0])
        return REWARDS_IN_A_ROW

    def _grant(self, rewarder: Rewarder | None, entry: Entry) -> None:
        if rewarder is None:
            self._settle(Settlement(entry, "reward_failed", answer=NO_CALLBACK))
            return
        if entry.crashes >= backoff.CRASHES:
            words = f"its callback took the process down {entry.crashes} times"
            self._settle(Settlement(entry, "reward_failed", answer=words))
            return
        grant = rewarder.prepare(entry)
        begun = self._begin(rewarder.promise, entry)
        if begun is not None:
            self._call(rewarder, begun, grant)

    def _begin(self, promise: Promise, entry: Entry) -> Entry | None:
        """The entry as its callback is called with it; None if others claimed it."""
        if promise == "at-most-once":
            # Recorded first: a crash from here on leaves it for a person to decide.
            due = self._now() + self._leases.length
            return self._settle(Settlement(entry, "reward_unconfirmed", due))
        if promise == "exactly-once":
            return entry  # the transaction in which it is granted finds out
        return entry if self._leases.is_ours(entry) else None

    def _call(
        self, rewarder: Rewarder, entry: Entry, grant: t.Callable[[], Entry | None]
    ) -> None:
        started = time.monotonic()
        try:
            with self._keep(rewarder.promise, entry):
                written = None if entry.key in self._granted else grant()
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # a callback that calls sys.exit() ends nothing here
            self._failed(rewarder, entry, e, _since(started))
        else:
            self._finish(rewarder.promise, entry, written, _since(started))

    def _keep(self, promise: Promise, entry: Entry) -> t.ContextManager[None]:
        """Keep others from an entry while its callback runs."""
        if promise == "exactly-once":
            # The callback's transaction has its row locked: nobody else can claim it,
            # and nobody could renew its lease.
            return contextlib.nullcontext()
        return self._leases.keep(entry)

    def _finish(
        self, promise: Promise, entry: Entry, written: Entry | None, took: int
    ) -> None:
        if written is not None:
            self._tell(written)
        if promise != "exactly-once":
            self._granted.add(entry.key)
            self._settle(Settlement(entry, "rewarded", is_fact=True, took=took))
        now = self._now()
        since = self._outbox.reward_granted(now).open_since
        if since is not None:
            seconds = (now - since) // 1000
            logger.warning("Rewards are granted again after %d s.", seconds)

    def _failed(
        self, rewarder: Rewarder, entry: Entry, error: BaseException, took: int
    ) -> None:
        now, words = self._now(), _in_words(error)
        was_open = self._outbox.reward_breaker().is_open
        breaker = self._outbox.reward_failed(entry.id, words, now)
        _log_failure(entry, error, words, self._traced.passes(words))
        if breaker.is_open and not was_open:
            logger.error(
                "Rewards are paused because the callback fails for each of them: %s. "
                "One is tried again at least once a minute, and all follow as soon as "
                "it succeeds.",
                words,
            )
        if rewarder.promise == "at-most-once" and not isinstance(error, RewardLater):
            settled = Settlement(entry, "reward_unconfirmed")
        elif self._is_hopeless(entry, breaker):
            settled = Settlement(entry, "reward_failed")
        else:
            # While rewards are paused, the breaker says when the next one is tried.
            pause = breaker.wait(now) or backoff.pause(
                now - entry.begun, self._uniform, backoff.MOST_REWARD
            )
            settled = Settlement(entry, "accepted", due=now + pause)
        self._settle(settled._replace(answer=words, took=took))

    def _is_hopeless(self, entry: Entry, breaker: RewardBreaker) -> bool:
        """Whether a reward has failed for long although others succeed."""
        failures = entry.attempts - entry.crashes
        if breaker.is_open or failures < backoff.ATTEMPTS_AT_LEAST:
            return False
        return self._now() - entry.begun > self._give_up_after

    def _settle(self, settlement: Settlement) -> Entry | None:
        # With an answer of the callback's own, MMOLove's status would be misleading.
        status = settlement.entry.status if settlement.answer is None else None
        settled = settlement._replace(status=status)
        changed = self._outbox.settle([settled], self._now())
        self._granted.discard(settlement.entry.key)
        for entry in changed:
            self._tell(entry)
        return changed[0] if changed else None


def _since(started: float) -> int:
    """Milliseconds since then."""
    return int((time.monotonic() - started) * 1000)


def _in_words(error: BaseException) -> str:
    """What a callback's error says, in a line."""
    words = " ".join(str(error).split())[:300]
    if isinstance(error, RewardLater):
        return words
    name = type(error).__name__
    return f"{name}: {words}" if words else name


def _log_failure(entry: Entry, error: BaseException, words: str, traced: bool) -> None:
    mark = {"event_id": entry.id}
    if isinstance(error, RewardLater):
        logger.warning(
            "The reward for player %s is tried again later: %s",
            entry.identity,
            words,
            extra=mark,
        )
    else:
        logger.error(
            "The reward callback raised for player %s: %s.",
            entry.identity,
            words,
            exc_info=error if traced else None,
            extra=mark,
        )
