"""What a site's processes together know of MMOLove's health: one breaker for all.

A breaker for each event would let a thousand events find out one by one that the host
is down, and a breaker for each process would multiply that. So it is kept in the store.
"""

import json
import typing as t

from ..protocol.response import Outcome
from ..protocol.response import response_line
from ..protocol.response import Verdict
from .backoff import pause
from .backoff import Uniform

#: Failures in a row after which nothing more is sent but a probe now and then.
FAILURES = 5

#: Refusals in a row that can only mean wrong settings.
REFUSALS = 3

#: Milliseconds between probes, at most. With an attempt that hangs until its timeout it
#: stays within a minute.
PROBE_MOST = 45_000

#: Attempts in flight at which the limit after an outage is lifted.
RECOVERED_AT = 16

# No pause is longer than an hour; one that seems so was set by a clock since put right.
_LONGEST_PAUSE = 3_600_000

# A 404 can mean the token too. While events were accepted not long ago, it does.
_WORKED_FOR = 3_600_000

# How often the time of the last accepted event is written down.
_WRITTEN_EVERY = 600_000

# What the fields were called until the third schema of the SQLite file.
_RENAMED = {"width": "max_in_flight", "proven": "last_accepted", "down": "downtime"}

# A host that asks to wait has answered, so it is not down.
_ASKS_TO_WAIT = {408, 425, 429}


class Breaker(t.NamedTuple):
    """MMOLove's health as seen from here. Times are integer milliseconds.

    :param failures: Attempts in a row without an answer of MMOLove's own.
    :param refusals: Attempts in a row that were refused as by wrong settings.
    :param refused_since: When the first of these was.
    :param open_since: Since when the breaker is open, if it is.
    :param reason: Why, for the person who reads it.
    :param not_before: When something may be sent again.
    :param max_in_flight: Attempts that may be in flight while it recovers; None is any.
    :param last_accepted: When an event was last accepted, to within ten minutes.
    :param downtime: How long the breaker was open in all, before this time.
    :param status: The HTTP status of the last failure; 0 where no answer came.
    """

    failures: int = 0
    refusals: int = 0
    refused_since: int | None = None
    open_since: int | None = None
    reason: str = ""
    not_before: int = 0
    max_in_flight: int | None = None
    last_accepted: int = 0
    downtime: int = 0
    status: int = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing is sent but a probe now and then."""
        return self.open_since is not None

    @classmethod
    def from_json(cls, text: str | None) -> "Breaker":
        """Read what :meth:`to_json` wrote."""
        stored = json.loads(text) if text else {}
        fields = {_RENAMED.get(name, name): stored[name] for name in stored}
        return cls(**{name: fields[name] for name in fields if name in cls._fields})

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    def uptime(self, now: int) -> int:
        """A clock that stands still while the breaker is open. The age of an event is
        measured by it, so that an outage makes none too old.
        """
        open_for = 0 if self.open_since is None else max(0, now - self.open_since)
        return now - self.downtime - open_for

    def room(self, now: int, in_flight: t.Callable[[], int], limit: int) -> int:
        """How many entries may be claimed for sending now.

        :param in_flight: Counts the attempts in flight; called only if it matters.
        :param limit: How many are wanted.
        """
        if self.wait(now):
            return 0
        if self.is_open:
            return 1
        if self.max_in_flight is not None:
            return max(0, min(limit, self.max_in_flight - in_flight()))
        return limit

    def wait(self, now: int) -> int:
        """Milliseconds until something may be sent; 0 if it may be now."""
        # A longer pause was set by a clock that has been corrected since.
        wait = self.not_before - now
        return wait if 0 < wait <= _LONGEST_PAUSE else 0

    def probing(self, now: int, lease: int) -> "Breaker":
        """A probe is in flight: nobody else sends until it is back or lost."""
        if not self.is_open:
            return self
        return self._replace(not_before=now + lease)

    def learn(self, outcome: Outcome, now: int, uniform: Uniform) -> "Breaker":
        """What is known after one more attempt."""
        if outcome.verdict is Verdict.REJECTED and not outcome.status:
            return self  # MMOLove was not asked
        if outcome.verdict is Verdict.RETRY:
            breaker = self._failed(outcome, now, uniform)
        elif self.blames_settings(outcome, now):
            breaker = self._refused(outcome, now, uniform)
        else:
            return self._answered(now, outcome.ok)
        wait = now + outcome.retry_after * 1000
        return breaker._replace(not_before=max(breaker.not_before, wait))

    def blames_settings(self, outcome: Outcome, now: int) -> bool:
        """Whether a refusal means the settings, and so every event."""
        if outcome.verdict is not Verdict.REFUSED:
            return False
        return outcome.status != 404 or now - self.last_accepted > _WORKED_FOR

    def _answered(self, now: int, accepted: bool) -> "Breaker":
        breaker = self
        if self.open_since is not None:
            breaker = Breaker(
                max_in_flight=1,
                last_accepted=self.last_accepted,
                downtime=self.downtime + max(0, now - self.open_since),
            )
        if breaker.max_in_flight is not None:
            more = breaker.max_in_flight * 2
            more_or_any = more if more < RECOVERED_AT else None
            breaker = breaker._replace(max_in_flight=more_or_any)
        if breaker.failures or breaker.refusals:
            breaker = breaker._replace(failures=0, refusals=0, refused_since=None)
        if accepted and not now - _WRITTEN_EVERY < breaker.last_accepted <= now:
            breaker = breaker._replace(last_accepted=now)
        return breaker

    def _failed(self, outcome: Outcome, now: int, uniform: Uniform) -> "Breaker":
        if outcome.status in _ASKS_TO_WAIT and not self.is_open:
            return self
        breaker = self._replace(failures=self.failures + 1, status=outcome.status)
        is_recovering = self.max_in_flight is not None
        if breaker.failures < FAILURES and not self.is_open and not is_recovering:
            return breaker
        return breaker._opened(outcome, now, uniform)

    def _refused(self, outcome: Outcome, now: int, uniform: Uniform) -> "Breaker":
        breaker = self._replace(
            failures=0,
            refusals=self.refusals + 1,
            status=outcome.status,
            refused_since=self.refused_since or now,
        )
        if breaker.refusals < REFUSALS and not self.is_open:
            return breaker
        return breaker._opened(outcome, now, uniform)

    def _opened(self, outcome: Outcome, now: int, uniform: Uniform) -> "Breaker":
        response = response_line(outcome.status, outcome.body)
        since = now if self.open_since is None else self.open_since
        return self._replace(
            open_since=since,
            reason=f"{outcome.hint} ({response})",
            not_before=now + pause(now - since, uniform, PROBE_MOST),
            max_in_flight=None,
        )
