"""Whether the site's reward callback works, as all processes of the site know it.

While a game restarts, the callback fails for every reward. Then one reward tries again
now and then, and the others wait without losing attempts.
"""

from __future__ import annotations

import json
import typing as t

#: Different rewards that fail in a row before all are paused.
REWARDS = 3

#: Milliseconds between attempts while rewards are paused: at first, and at most.
PROBE_FIRST = 2_000
PROBE_MOST = 60_000


class RewardBreaker(t.NamedTuple):
    """What is known of the callback. Times are integer milliseconds.

    :param failed: The events whose rewards failed since one was granted.
    :param open_since: Since when rewards are paused, if they are.
    :param reason: What the callback said last.
    :param probes: Attempts that failed since.
    :param not_before: When the next reward may be tried.
    """

    failed: tuple[int, ...] = ()
    open_since: int | None = None
    reason: str = ""
    probes: int = 0
    not_before: int = 0

    @property
    def is_open(self) -> bool:
        """Whether rewards are paused but for one attempt now and then."""
        return self.open_since is not None

    @classmethod
    def from_json(cls, text: str | None) -> RewardBreaker:
        """Read what :meth:`to_json` wrote."""
        if text is None:
            return cls()
        failed, *others = json.loads(text)
        return cls(tuple(failed), *others)

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(self, separators=(",", ":"))

    def wait(self, now: int) -> int:
        """Milliseconds until a reward may be tried; 0 if one may be now."""
        wait = self.not_before - now if self.is_open else 0
        # A longer one was set by a clock that has been corrected since.
        return wait if 0 < wait <= 2 * PROBE_MOST else 0

    def probing(self, now: int) -> RewardBreaker:
        """A reward is being tried, so no other process tries one for a while."""
        if not self.is_open:
            return self
        return self._replace(not_before=now + PROBE_MOST)

    def failure(self, id: int, reason: str, now: int) -> RewardBreaker:
        """What is known after the callback failed for one more reward.

        :param id: The event's.
        :param reason: The callback's own words.
        """
        failed = self.failed if id in self.failed else (*self.failed, id)
        breaker = self._replace(failed=failed[-REWARDS:], reason=reason)
        if len(failed) < REWARDS and not self.is_open:
            return breaker
        pause = min(PROBE_MOST, PROBE_FIRST * 2 ** min(self.probes, 20))
        return breaker._replace(
            open_since=now if self.open_since is None else self.open_since,
            probes=self.probes + 1,
            not_before=now + pause,
        )
