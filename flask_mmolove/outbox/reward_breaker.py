"""Whether the site's reward callback works, as all processes of the site know it.

While a game restarts, the callback fails for every reward. Then one reward tries again
now and then, and the others wait without losing attempts.
"""

import json
import typing as t

from .backoff import pause

#: Different rewards that fail in a row before all are paused.
REWARDS = 3

#: Milliseconds between attempts while rewards are paused, at most.
PROBE_MOST = 60_000


class RewardBreaker(t.NamedTuple):
    """What is known of the callback. Times are integer milliseconds.

    :param failed: The events whose rewards failed since one was granted.
    :param open_since: Since when rewards are paused, if they are.
    :param reason: What the callback said last.
    :param not_before: When the next reward may be tried.
    """

    failed: tuple[int, ...] = ()
    open_since: int | None = None
    reason: str = ""
    not_before: int = 0

    @property
    def is_open(self) -> bool:
        """Whether rewards are paused but for one attempt now and then."""
        return self.open_since is not None

    @classmethod
    def from_json(cls, text: str | None) -> "RewardBreaker":
        """Read what :meth:`to_json` wrote."""
        if text is None:
            return cls()
        fields = json.loads(text)
        if isinstance(fields, list):  # an earlier version, which counted the attempts
            failed, open_since, reason, _, not_before = fields
            return cls(tuple(failed), open_since, reason, not_before)
        return cls(**{**fields, "failed": tuple(fields["failed"])})

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    def wait(self, now: int) -> int:
        """Milliseconds until a reward may be tried; 0 if one may be now."""
        wait = self.not_before - now if self.is_open else 0
        # A longer one was set by a clock that has been corrected since.
        return wait if 0 < wait <= 2 * PROBE_MOST else 0

    def probing(self, now: int, lease: int) -> "RewardBreaker":
        """A reward is being tried, so no other process tries one for a while."""
        if not self.is_open:
            return self
        return self._replace(not_before=now + lease)

    def failure(self, id: int, reason: str, now: int) -> "RewardBreaker":
        """What is known after the callback failed for one more reward.

        :param id: The event's.
        :param reason: The callback's own words.
        """
        failed = self.failed if id in self.failed else (*self.failed, id)
        breaker = self._replace(failed=failed[-REWARDS:], reason=reason)
        if len(failed) < REWARDS and not self.is_open:
            return breaker
        since = now if self.open_since is None else self.open_since
        # Only one is tried at a time, so nothing has to be spread.
        wait = pause(now - since, max, PROBE_MOST)
        return breaker._replace(open_since=since, not_before=now + wait)
