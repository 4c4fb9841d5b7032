"""Asks the site which of its friends have reached the milestone."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
import typing as t
from functools import partial
from types import MappingProxyType

from flask import current_app

from ..delivery.lease import Heartbeat
from ..delivery.lease import LEASE
from ..errors import IdentityError
from ..errors import OutboxError
from ..identity import identify
from ..log import logger
from ..log import Throttle
from ..outbox.entry import Entry
from ..outbox.friends import Round
from ..protocol.wire import TOKEN_LIFETIME
from ..state import State
from .many import BATCH
from .many import qualify_all
from .referral import Referral

#: Seconds after which a round leaves the others to the next one.
LONGEST = 30.0

#: Milliseconds between rounds whose callback raises, at most.
PAUSE_MOST = 3_600_000

# Seconds before it is looked again whether a round is due, at the most.
_IDLE = 30.0

#: What the site is asked about: players' ids, and what is known of each.
Friends = t.Mapping[str, Referral]
Callback = t.Callable[[Friends], t.Iterable[t.Any]]


class MilestoneAsker:
    """Asks in rounds, in one of the site's processes at a time.

    :param clock: Unix seconds; for tests.
    """

    def __init__(self, state: State, clock: t.Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._stopped = False
        self._unasked = Throttle(float("inf"))

    def turn(self) -> float:
        """Ask a round, if one is due, and return the seconds until the next look.

        :raises OutboxError: If the outbox cannot be read or written.
        """
        if self.has_callback and not self._stopped:
            self.ask()
        return min(_IDLE, self._state.settings.milestone_interval)

    @property
    def has_callback(self) -> bool:
        """Whether the site has a milestone callback."""
        return self._state.callbacks.milestone is not None

    def is_due(self) -> bool:
        """Whether it is time for a round."""
        return self.has_callback and self._now() >= self._state.outbox.round().due

    def stop(self) -> None:
        """Ask no more."""
        self._stopped = True

    def ask(self) -> int:
        """Ask a round, if one is due, and return about how many friends.

        :raises OutboxError: If the outbox cannot be read or written. What was recorded
            until then stays.
        """
        outbox, claim = self._state.outbox, secrets.token_hex(8)
        callback = self._state.callbacks.milestone
        if callback is None:
            return 0
        begun = outbox.claim_round(self._now(), LEASE, claim)
        if begun is None:
            return 0
        with self._keep(claim):
            return self._ask(callback, begun, claim)

    def _ask(self, callback: Callback, begun: Round, claim: str) -> int:
        outbox = self._state.outbox
        asked, known, end = 0, begun, time.monotonic() + LONGEST
        for friends, known in self._batches(begun):
            try:
                reached = self._call(callback, friends)
            except Exception as e:  # the site's: whatever it is, it is called again
                # From the next friends on, or one friend for whom it always raises
                # would keep all others from being asked about.
                self._failed(known, claim, e)
                return asked
            qualify_all(self._state, reached)
            asked += len(friends)
            renewed = known._replace(due=self._now() + LEASE)
            if not outbox.save_round(renewed, claim):
                return asked  # another process has taken over
            if self._stopped or time.monotonic() > end:
                break
        now = self._now()
        due = now + int(self._state.settings.milestone_interval * 1000)
        ended = known._replace(
            due=due, claim=None, ended=now, asked=asked, failures=0, error=None
        )
        outbox.save_round(ended, claim)
        return asked

    @contextlib.contextmanager
    def _keep(self, claim: str) -> t.Iterator[None]:
        """Keep other processes from the round, however slow the game's database is."""
        at_work = threading.Event()
        at_work.set()
        Heartbeat(partial(self._renew, claim), at_work.is_set).start()
        try:
            yield
        finally:
            at_work.clear()

    def _renew(self, claim: str) -> bool:
        with contextlib.suppress(OutboxError):
            return self._state.outbox.renew_round(self._now() + LEASE, claim)
        return False

    def _batches(self, begun: Round) -> t.Iterator[tuple[list[Entry], Round]]:
        """The friends to ask about, and how far that brings the round."""
        outbox, known = self._state.outbox, begun
        newest = max(outbox.last_row(), begun.newest)
        stretches = (
            (begun.newest, newest),
            (begun.after, begun.newest),
            (0, begun.after),
        )
        waiting: list[Entry] = []
        since = self._now() - TOKEN_LIFETIME * 1000
        for after, last in stretches:
            while after < last:
                found, after = outbox.friends(
                    after, last, self._state.settings.test, since
                )
                waiting += found
                while len(waiting) >= BATCH:
                    batch, waiting = waiting[:BATCH], waiting[BATCH:]
                    end = batch[-1].id
                    if end > begun.newest:
                        known = known._replace(newest=end)
                    else:
                        known = known._replace(newest=newest, after=end)
                    yield batch, known
        # All have been asked about, so it does not matter where the next one begins.
        yield waiting, known._replace(newest=newest)

    def _call(self, callback: Callback, entries: list[Entry]) -> list[str]:
        """Those who have reached the milestone, of a few hundred friends."""
        if not entries:
            return []
        friends = {
            entry.identity: Referral.from_entries({"registered": entry})
            for entry in entries
        }
        with self._state.app.app_context():
            answer = current_app.ensure_sync(callback)(MappingProxyType(friends))
            if answer is None or isinstance(answer, (str, bytes)):
                raise TypeError(
                    f"it returned {answer!r}: return the ids of the friends who have "
                    "reached the milestone, as a list or other iterable"
                )
            reached = [self._identify(each) for each in answer]
        unasked = [each for each in reached if each not in friends]
        if unasked and self._unasked.passes():
            logger.warning(
                "The milestone callback returned ids that it was not asked about, such "
                "as %r: they are ignored. Are they ids of characters, and not of "
                "accounts?",
                unasked[0],
            )
        return [each for each in reached if each in friends]

    def _identify(self, player: t.Any) -> str:
        try:
            return identify(player)  # the site's rule is for accounts, not for ids
        except IdentityError:
            return repr(player)  # which is no id that it was asked about

    def _failed(self, known: Round, claim: str, error: Exception) -> None:
        failures = known.failures + 1
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        interval = int(self._state.settings.milestone_interval * 1000)
        pause = max(interval, min(interval << min(failures, 16), PAUSE_MOST))
        failed = known._replace(
            due=self._now() + pause, claim=None, failures=failures, error=words
        )
        self._state.outbox.save_round(failed, claim)
        logger.error(
            "The milestone callback raised, and is called again in %d s: %s.",
            pause // 1000,
            words,
            exc_info=error,
        )

    def _now(self) -> int:
        return int(self._clock() * 1000)
