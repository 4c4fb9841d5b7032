"""Renews the leases of what this process works on, for as long as it works on it.

A lease is short, so that another process soon takes over from one that has died; the
work may be long.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ..log import logger
from ..log import Throttle
from ..outbox import Entry
from ..outbox import Outbox
from ..outbox.entry import TIMEOUT

#: Milliseconds after which a reward is granted by another process, if the one that
#: claimed it has died. It is renewed while the callback runs.
REWARD_LEASE = 300_000

#: How long an event is claimed for, in timeouts of an attempt: enough for a batch that
#: is sent one by one to a slow host.
EVENT_LEASE = 12

# Seconds before a renewal that failed is tried again, at the most.
_RETRY = 1.0


class Leases:
    """The leases of one process.

    A daemon thread renews them at each third of their length. It runs only while there
    is something to renew, so an idle process has no thread more.

    :param now: Gives the time in milliseconds.
    :param length: How long a lease lasts, in milliseconds.
    """

    def __init__(self, outbox: Outbox, now: t.Callable[[], int], length: int) -> None:
        self.length = length
        self._outbox = outbox
        self._now = now
        self._third = length / 3000
        self._kept: dict[tuple[str, str, bool], Entry] = {}
        self._changed = threading.Condition()
        self._is_running = False
        self._complaint = Throttle(600)

    @contextlib.contextmanager
    def keep(self, entry: Entry) -> t.Iterator[None]:
        """Renew the lease of a claimed entry until this ends."""
        with self._changed:
            self._kept[entry.key] = entry
            self._start()
        try:
            yield
        finally:
            with self._changed:
                self._kept.pop(entry.key, None)
                self._changed.notify()

    def holds(self, entry: Entry) -> bool:
        """Whether nobody else has claimed an entry since this process did, which may
        have been paused meanwhile.

        :raises OutboxError: If the store has to be asked, and fails.
        """
        left = (entry.due or 0) - self._now()
        # The clocks of two machines differ, so the store is asked long before the end.
        if self.length * 2 // 3 <= left <= self.length:
            return True
        return not self._outbox.renew([entry], self._now() + self.length)

    def renew(self) -> bool:
        """Renew all leases that are kept. False if the store failed: what is not
        renewed in time may be claimed by others.
        """
        with self._changed:
            kept = list(self._kept.values())
        due, timeout = self._now() + self.length, min(self._third, TIMEOUT)
        try:
            lost = self._outbox.renew(kept, due, timeout)
        except Exception as e:  # whatever it is, the thread has to go on
            if self._complaint.passes():
                logger.warning("Leases cannot be renewed for now: %s", e)
            return False
        for entry in lost:
            self._give_up(entry)
        return True

    def _give_up(self, entry: Entry) -> None:
        with self._changed:
            if self._kept.get(entry.key) is not entry:
                return  # the work has ended meanwhile, and was settled
            del self._kept[entry.key]
        logger.warning(
            "The lease of event %s ended while this process worked on it, and another "
            "one has taken it over.",
            entry.id,
            extra={"event_id": entry.id},
        )

    def _start(self) -> None:
        if self._is_running:
            return
        name = "flask-mmolove-leases"
        # At the interpreter's end no thread can be started; then it is short.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name=name, daemon=True).start()
            self._is_running = True

    def _run(self) -> None:
        pause = self._third
        while self._wait(pause):
            pause = self._third if self.renew() else min(self._third, _RETRY)

    def _wait(self, seconds: float) -> bool:
        """Whether there is something to renew after that time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._kept, seconds)
            self._is_running = bool(self._kept)
            return self._is_running
