"""Renews what this process has claimed, for as long as it works on it.

A lease is short, so that another process soon takes over from one that has died; the
work may be long.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..log import logger
from ..log import Throttle
from ..outbox.entry import Entry
from ..outbox.entry import TIMEOUT
from ..outbox.store import Outbox

#: Milliseconds for which a claim holds unless it is renewed. With the ten seconds in
#: which the workers of Celery look again, what a dead process has claimed is taken over
#: within half a minute.
LEASE = 20_000

# Seconds before a renewal that failed is tried again, at the most.
_RETRY = 1.0


class Heartbeat:
    """A daemon thread that renews leases at each third of their length. It ends when
    nothing is held any more, so an idle process has no thread more.

    :param renew: Renews them, and returns whether that worked.
    :param is_needed: Whether there is anything to renew.
    :param length: How long a lease lasts, in milliseconds.
    """

    def __init__(
        self,
        renew: t.Callable[[], bool],
        is_needed: t.Callable[[], bool],
        length: int = LEASE,
    ) -> None:
        self._renew = renew
        self._is_needed = is_needed
        self._third = length / 3000
        self._lock = threading.Lock()
        self._is_running = False

    def start(self) -> None:
        """Begin, unless it beats already. To be called once something is held."""
        with self._lock:
            if self._is_running:
                return
            name = "flask-mmolove-leases"
            # At the interpreter's end no thread can be started; then it is short.
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._run, name=name, daemon=True).start()
                self._is_running = True

    def _run(self) -> None:
        time.sleep(self._third)
        while self._goes_on():
            time.sleep(self._third if self._renew() else min(self._third, _RETRY))

    def _goes_on(self) -> bool:
        with self._lock:
            self._is_running = self._is_needed()
            return self._is_running


class Leases:
    """What one process has claimed, and keeps until it is done with it.

    :param now: Gives the time in milliseconds.
    :param length: How long a lease lasts, in milliseconds.
    """

    def __init__(
        self, outbox: Outbox, now: t.Callable[[], int], length: int = LEASE
    ) -> None:
        self.length = length
        self._outbox = outbox
        self._now = now
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str, bool], Entry] = {}
        self._heartbeat = Heartbeat(self.renew, lambda: bool(self._held), length)
        self._complaint = Throttle(600)

    def hold(self, entries: t.Iterable[Entry]) -> None:
        """Renew the leases of claimed entries until they are dropped."""
        with self._lock:
            self._held.update((entry.key, entry) for entry in entries)
        if self._held:
            self._heartbeat.start()

    def drop(self, entries: t.Iterable[Entry]) -> None:
        """Renew these no more. It comes before what ends their claim, which a renewal
        at that very moment would take for somebody else's.
        """
        with self._lock:
            for entry in entries:
                self._held.pop(entry.key, None)

    @contextlib.contextmanager
    def keep(self, entry: Entry) -> t.Iterator[None]:
        """Hold one entry until this ends."""
        self.hold([entry])
        try:
            yield
        finally:
            self.drop([entry])

    def held(self, entries: t.Iterable[Entry] | None = None) -> list[Entry]:
        """What is held, of these entries or of all."""
        with self._lock:
            if entries is None:
                return list(self._held.values())
            keys = [entry.key for entry in entries]
            return [self._held[key] for key in keys if key in self._held]

    def lasts(self, entry: Entry) -> bool:
        """Whether the lease of a held entry was renewed lately, or is new."""
        return any(
            held.claim == entry.claim and self._left(held) > self.length // 3
            for held in self.held([entry])
        )

    def is_ours(self, entry: Entry) -> bool:
        """Whether nobody else has claimed an entry since this process did, which may
        have been paused meanwhile.

        :raises OutboxError: If the store has to be asked, and fails.
        """
        # The clocks of two machines differ, so the store is asked long before the end.
        if self.length * 2 // 3 <= self._left(entry) <= self.length:
            return True
        return not self._outbox.renew([entry], self._now() + self.length)

    def renew(self) -> bool:
        """Renew all leases that are held. False if the store failed: what is not
        renewed in time may be claimed by others.
        """
        held = self.held()
        due, timeout = self._now() + self.length, min(self.length / 3000, TIMEOUT)
        try:
            lost = self._outbox.renew(held, due, timeout)
        except Exception as e:  # whatever it is, the thread has to go on
            if self._complaint.passes():
                logger.warning("Leases cannot be renewed for now: %s", e)
            return False
        given_up = self._settle(held, lost, due)
        for entry in given_up:
            logger.warning(
                "The lease of event %s ended while this process worked on it, and "
                "another one has taken it over.",
                entry.id,
                extra={"event_id": entry.id},
            )
        return True

    def _settle(self, held: list[Entry], lost: list[Entry], due: int) -> list[Entry]:
        """Note what was renewed, and drop what was lost, unless that was done with
        meanwhile. Returns what was dropped.
        """
        keys = {entry.key for entry in lost}
        dropped = []
        with self._lock:
            for entry in held:
                if self._held.get(entry.key) is not entry:
                    continue
                if entry.key in keys:
                    dropped.append(self._held.pop(entry.key))
                else:
                    self._held[entry.key] = entry._replace(due=due)
        return dropped

    def _left(self, entry: Entry) -> int:
        return (entry.due or 0) - self._now()
