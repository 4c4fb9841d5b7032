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
        super().__init__(lambda: _Worker(delivery(), concurrency, self._ask))
        self._asker: Asker | None = None
        self._asking = DaemonEngine(self._get_asker)

    def ask_by(self, asker: Asker) -> None:
        # In a thread of its own: a game's database that is slow must not hold up the
        # delivery.
        self._asker = asker

    def stop(self) -> None:
        self._asking.stop()
        super().stop()

    def _ask(self) -> None:
        if self._asker is not None and self._asker.has_callback:
            self._asking.start()

    def _get_asker(self) -> Asker:
        assert self._asker is not None
        return self._asker


class _Worker:
    """Delivers in one process."""

    def __init__(
        self, delivery: Delivery, concurrency: int, begin: t.Callable[[], None]
    ) -> None:
        self._delivery = delivery
        self._begin = begin
        self._senders = Senders(concurrency)

    def turn(self) -> float:
        self._begin()
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
