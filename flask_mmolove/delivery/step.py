"""One step of the delivery: claim, sign and send, settle; then grant the rewards.

It knows no thread and no Flask. A thread, a command and a queue's worker all take this
same step, and the rows alone say what there is to do.
"""

from __future__ import annotations

import math
import random
import time
import typing as t

from ..errors import EventError
from ..errors import OutboxError
from ..log import logger
from ..outbox import backoff
from ..outbox.breaker import Breaker
from ..outbox.entry import Entry
from ..outbox.entry import Settlement
from ..outbox.spool import Spool
from ..outbox.store import Outbox
from ..protocol.client import ReferralClient
from ..protocol.response import Outcome
from ..protocol.response import Verdict
from ..protocol.wire import shorten
from ..settings import Settings
from .events import EventLog
from .events import NO_CALLBACK
from .events import warn_of_other_token
from .grant import Granter
from .grant import Rewarder
from .lease import LEASE
from .lease import Leases
from .senders import Attempt
from .senders import Results

# Answers are settled together: one commit for many is what makes delivery quick. What
# a crash leaves unsettled is sent again, and MMOLove answers ``duplicate``.
_GROUP = 16
_GROUP_SECONDS = 0.2

# Milliseconds between two heartbeats.
_HEARTBEAT = 60_000

# Seconds that a clean stop may wait for the store.
_STOP_TIMEOUT = 0.2

# Entries claimed at a time, for each attempt that can be in flight.
_ENTRIES_EACH = 8

Key = tuple[str, str, bool]
Answered = list[tuple[Entry, Outcome]]
Attempts = t.Callable[[Attempt, t.Sequence[Entry]], Results]


class Delivery:
    """Delivers what is in an outbox.

    :param reward: Gives the site's callback, or None while the site has none.
    :param report: Told each entry whose state changed.
    :param watch: Told the breaker before and after, when sending stops or resumes.
    :param clock: Unix seconds; for tests.
    :param uniform: Random numbers between two; for tests.
    :param lease: How long a claim holds unless it is renewed, in milliseconds; for
        tests.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: ReferralClient,
        settings: Settings,
        spool: Spool,
        *,
        reward: t.Callable[[], Rewarder | None],
        report: t.Callable[[Entry], None],
        watch: t.Callable[[Breaker, Breaker], None] = lambda before, after: None,
        clock: t.Callable[[], float] = time.time,
        uniform: t.Callable[[float, float], float] = random.uniform,
        lease: int = LEASE,
    ) -> None:
        self.outbox = outbox
        self._client = client
        self._reward = reward
        self._tell = EventLog(report)
        #: How many entries it brought to each state.
        self.counts = self._tell.counts
        self._leases = Leases(outbox, self.now, lease)
        self._granter = Granter(
            outbox,
            reward,
            self._tell,
            self.now,
            uniform,
            self._leases,
            settings.give_up_after,
        )
        self._watch = watch
        self._settings = settings
        self._spool = spool
        self._is_set_up = False
        self._clock = clock
        self._uniform = uniform
        # Answered, and not yet written down: the store may fail in between.
        self._unsettled: dict[Key, tuple[Entry, Outcome]] = {}
        # Claimed, and not tried any more when the store failed.
        self._left: list[Entry] = []
        self._stopped = False
        self._failing = False
        self._until = math.inf
        self._last_heartbeat: int | None = None

    def now(self) -> int:
        """The time in milliseconds."""
        return int(self._clock() * 1000)

    def step(
        self,
        run: Attempts = map,
        ids: t.Collection[int] | None = None,
        until: float = math.inf,
    ) -> int:
        """Do once what is due now, and return how many entries were handled.

        :param run: Makes the attempts: one after another, unless given.
        :param ids: Send none but these entries, a few hundred at the most.
        :param until: When no attempt and no reward is begun any more, in seconds of
            :func:`time.monotonic`.
        :raises OutboxError: If the store fails. What was answered meanwhile is kept,
            settled by a later step, and not sent again by this process.
        """
        if not self._is_set_up:
            self._set_up()
        self._until = until
        handled = self.import_spool() + self._send(run, ids)
        handled += self._granter.grant(until)
        self._heartbeat()
        return handled

    def next_due(self) -> int | None:
        """When there is next something to do, in milliseconds."""
        now = self.now()
        if not self._is_set_up or self._spool.read():
            return now
        due = self.outbox.next_due(now)
        # Asked for afterwards: that look may have found that the file is gone.
        return now if self.outbox.incident else due

    def drain(self) -> int:
        """Take steps until nothing is due, and return how many entries were handled."""
        total = 0
        while handled := self.step():
            total += handled
        return total

    def stop(self) -> None:
        """Start nothing new, and give back what was claimed and not yet settled."""
        self._stopped = True
        self._granter.stop()
        # A reward's callback may be running: its claim has to end by itself.
        held = [entry for entry in self._leases.held() if entry.state == "pending"]
        if held:
            self._leases.drop(held)
            self.outbox.release(held, _STOP_TIMEOUT)

    def _heartbeat(self) -> None:
        """Show now and then that something delivers."""
        now, last = self.now(), self._last_heartbeat
        if last is None or not 0 <= now - last < _HEARTBEAT:
            self._last_heartbeat = now
            self.outbox.heartbeat(now, self._client.ahead)

    def _send(self, run: Attempts, ids: t.Collection[int] | None) -> int:
        self._finish_last_step()
        limit, lease = self._settings.concurrency * _ENTRIES_EACH, self._leases.length
        entries = self.outbox.claim("pending", self.now(), lease, limit, ids)
        self._leases.hold(entries)
        results = iter(run(self._attempt, entries))
        try:
            return self._settle_all(entries, results)
        except Exception:
            # Attempts that have not begun are skipped, and those in flight are waited
            # for: then it is known which is which.
            self._failing = True
            for entry, outcome in results:
                if outcome is not None:
                    self._note_answers([(entry, outcome)])
            self._failing = False
            self._left += self._leases.held(entries)
            raise

    def _settle_all(self, entries: list[Entry], results: Results) -> int:
        answered: Answered = []
        skipped: list[Entry] = []
        since = time.monotonic()
        for entry, outcome in results:
            if outcome is None:
                skipped.append(entry)
                continue
            answered.append((entry, outcome))
            if len(answered) >= _GROUP or time.monotonic() - since > _GROUP_SECONDS:
                self._settle(answered)
                answered = []
                since = time.monotonic()
        self._settle(answered)
        self._release(skipped)
        return len(entries) - len(skipped)

    def _finish_last_step(self) -> None:
        """Do what was left undone when the store failed in the middle of a step."""
        self._settle(list(self._unsettled.values()))
        left, self._left = self._left, []
        self._release(left)

    def _set_up(self) -> None:
        settings = self._settings
        self.outbox.upgrade()
        count = self.outbox.apply_settings(
            settings.fingerprint, settings.server_id, self.now()
        )
        self._is_set_up = True
        if count is not None:
            logger.warning(
                "The settings for MMOLove have changed: pending events go to server %s "
                "with the new ones, and %d that were rejected are sent again. If "
                "another site uses this outbox, give each site its own.",
                settings.server_id,
                count,
            )

    def import_spool(self) -> int:
        """Import what lies beside the outbox on this machine, in damaged files and the
        spool, and return how many entries those are. A part of :meth:`step`.

        :raises OutboxError: If the store fails.
        """
        recovered = self.outbox.recover()
        reports = self._spool.read()
        for file, report in reports:
            try:
                new = self.outbox.record(report, self._settings.server_id)
            except EventError as e:
                self._spool.reject(file, str(e))
                continue
            self._spool.remove(file)
            for entry in new:
                self._tell(entry)
            if report.token and report.names and not new:
                warn_of_other_token(
                    report, self.outbox.of(report.identity, report.test)
                )
        return recovered + len(reports)

    def _attempt(self, entry: Entry) -> tuple[Entry, Outcome | None]:
        if entry.key in self._unsettled:
            return self._unsettled[entry.key]
        is_late = time.monotonic() > self._until
        # Once its lease is over, another worker may have it.
        if self._stopped or self._failing or is_late or not self._leases.lasts(entry):
            return entry, None
        if entry.crashes >= backoff.CRASHES:
            words = f"its worker died {entry.crashes} times"
            return entry, Outcome(0, words, Verdict.REJECTED)
        try:
            outcome = self._client.send(entry.body)
            # What MMOLove says is stored, logged and shown: it may quote the token.
            said = " ".join(outcome.body.split())
            body = said.replace(entry.token, shorten(entry.token))
            return entry, outcome._replace(body=body)
        except KeyboardInterrupt:
            raise
        except BaseException as e:
            logger.exception(
                "Event %s could not be sent at all.",
                entry.id,
                extra={"event_id": entry.id},
            )
            return entry, Outcome(0, repr(e), Verdict.RETRY, "A fault of ours.")

    def _settle(self, answered: Answered) -> None:
        if not answered:
            return
        now = self.now()
        self._note_answers(answered)
        breaker = self.outbox.breaker()
        lesson = _Lesson([o for _, o in answered], now, self._uniform)
        changed = self.outbox.settle(
            [self._judge(breaker, entry, o, now) for entry, o in answered],
            now,
            lesson,
        )
        self._tell_of_breaker(lesson.before, lesson.after, now)
        for entry, _ in answered:
            self._unsettled.pop(entry.key, None)
        for entry in changed:
            self._tell(entry)

    def _note_answers(self, answered: Answered) -> None:
        """Keep them until they are written down; their leases may end meanwhile."""
        self._unsettled.update((entry.key, (entry, o)) for entry, o in answered)
        self._leases.drop(entry for entry, _ in answered)

    def _release(self, skipped: list[Entry]) -> None:
        """Give back what was not tried, now or in a later step."""
        if not skipped:
            return
        self._leases.drop(skipped)
        try:
            self.outbox.release(skipped)
        except OutboxError:
            self._left += skipped
            raise

    def _judge(
        self, breaker: Breaker, entry: Entry, outcome: Outcome, now: int
    ) -> Settlement:
        settled = Settlement(
            entry,
            "accepted",
            is_fact=True,
            status=outcome.status,
            answer=outcome.body[:500],
            referral_id=outcome.referral_id,
            took=int(outcome.took * 1000),
        )
        if outcome.verdict is Verdict.IGNORED:
            return settled._replace(state="ignored")
        if outcome.verdict is Verdict.ACCEPTED:
            if entry.event != "qualified" or entry.test or not outcome.credited:
                return settled
            credited = settled._replace(resets_attempts=True)
            if self._reward() is None:
                return credited._replace(state="reward_failed", answer=NO_CALLBACK)
            return credited._replace(due=now)
        failed = settled._replace(is_fact=False)
        if not self._is_worth_a_retry(breaker, entry, outcome, now):
            return failed._replace(state="rejected")
        pause = 0  # while the breaker is open, it alone says when the next one is sent
        if not breaker.is_open:
            pause = backoff.pause(breaker.uptime(now) - entry.begun, self._uniform)
        due = now + max(pause, outcome.retry_after * 1000)
        return failed._replace(state="pending", due=due)

    def _is_worth_a_retry(
        self, breaker: Breaker, entry: Entry, outcome: Outcome, now: int
    ) -> bool:
        if outcome.verdict is Verdict.REJECTED:
            return False
        if outcome.verdict is Verdict.REFUSED:
            # A probe with settings known to be wrong says nothing of its event.
            return breaker.is_open and breaker.blames_settings(outcome, now)
        if entry.attempts < backoff.ATTEMPTS_AT_LEAST:
            return True
        return breaker.uptime(now) - entry.begun <= self._settings.give_up_after * 1000

    def _tell_of_breaker(self, before: Breaker, after: Breaker, now: int) -> None:
        if before.is_open == after.is_open:
            return
        if before.open_since is None:
            what = "fails" if after.status else "cannot be reached"
            if after.refusals:
                what = "refuses this site's events"
            logger.error(
                "MMOLove %s: sending is paused, and nothing is lost. %s",
                what,
                after.reason,
            )
        else:
            seconds = (now - before.open_since) // 1000
            logger.warning(
                "MMOLove answers again after %d s: sending resumed.", seconds
            )
        self._watch(before, after)


class _Lesson:
    """What some attempts teach the breaker. The store calls it within a transaction,
    again if that has to be repeated, and what counts is the last call.

    :ivar before: The breaker that the store had.
    :ivar after: The same with the attempts.
    """

    def __init__(
        self,
        outcomes: t.Sequence[Outcome],
        now: int,
        uniform: t.Callable[[float, float], float],
    ) -> None:
        self.before = self.after = Breaker()
        self._outcomes = outcomes
        self._now = now
        self._uniform = uniform

    def __call__(self, breaker: Breaker) -> Breaker:
        self.before = breaker
        for outcome in self._outcomes:
            breaker = breaker.learn(outcome, self._now, self._uniform)
        self.after = breaker
        return breaker
