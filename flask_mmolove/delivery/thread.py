"""A thread in each process of the site that runs the delivery."""

from __future__ import annotations

import typing as t

from ..errors import OutboxError
from ..log import logger
from .daemon import DaemonEngine
from .daemon import IDLE
from .daemon import PAUSE
from .engine import Asker
from .senders import Senders
from .step import Delivery


class ThreadEngine(DaemonEngine["_Worker"]):
    """Runs a delivery in a daemon thread of each process.

    :param delivery: Makes the delivery of a process.
    :param concurrency: Attempts in flight at once.
    """

    def __init__(self, delivery: t.Callable[[], Delivery], concurrency: int) -> None:
        super().__init__(lambda: _Worker(delivery(), concurrency, self._start_asking))
        self._asker: Asker | None = None
        self._asking: DaemonEngine[Asker] | None = None
        self._rests = False

    def rest(self) -> None:
        # The command's end would cut off a reward's callback.
        self._rests = True

    def wake(self, ids: t.Collection[int] = ()) -> None:
        if self.is_started or not self._rests:
            super().wake(ids)

    def ask_by(self, asker: Asker) -> None:
        # In a thread of its own: a game's database that is slow must not hold up the
        # delivery. Nothing is lost if it is not waited for: it is asked again.
        self._asking = DaemonEngine(lambda: asker, stop_timeout=0)
        self._asker = asker

    def stop(self) -> None:
        if self._asking is not None:
            self._asking.stop()
        super().stop()

    def _start_asking(self) -> None:
        if self._asking and self._asker and self._asker.has_callback:
            self._asking.start()


class _Worker:
    """Delivers in one process."""

    def __init__(
        self, delivery: Delivery, concurrency: int, start_asking: t.Callable[[], None]
    ) -> None:
        self._delivery = delivery
        self._start_asking = start_asking
        self._senders = Senders(concurrency)

    def turn(self) -> float:
        self._start_asking()
        due = self._delivery.next_due()
        if due is None:
            return IDLE
        pause = (due - self._delivery.now()) / 1000
        if pause > 0:
            return min(pause, IDLE)
        return 0.0 if self._delivery.step(self._senders.run) else PAUSE

    def stop(self) -> None:
        try:
            self._delivery.stop()
        except OutboxError as e:
            logger.warning("Claims were not given back and will run out: %s", e)
