"""A thread in each process of the site that turns the delivery."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import typing as t
from functools import partial

from ..client import Outcome
from ..errors import OutboxError
from ..log import Brake
from ..log import logger
from ..outbox import Entry
from .step import Delivery

#: Seconds after which the outbox is looked at although nothing called: another
#: process may have died and left something.
IDLE = 30.0

#: Seconds before the store is asked again after it failed, or had nothing after all.
PAUSE = 1.0

#: Seconds an orderly stop waits for attempts under way.
STOP = 0.8


class ThreadEngine:
    """Turns a delivery in a daemon thread of each process.

    A server may import the site in one process and serve it in others, and threads do
    not live through a fork. So the thread is started by the first request of each
    process, never at import.

    :param delivery: Makes the delivery of a process.
    :param concurrency: Attempts in flight at once.
    """

    def __init__(self, delivery: t.Callable[[], Delivery], concurrency: int) -> None:
        self._delivery = delivery
        self._concurrency = concurrency
        self._workers: dict[int, _Worker] = {}

    def start(self) -> None:
        if os.getpid() not in self._workers:
            worker = _Worker(self._delivery(), self._concurrency)
            # One step, so that of two first requests at once only one starts.
            if self._workers.setdefault(os.getpid(), worker) is worker:
                worker.start()

    def wake(self) -> None:
        self.start()
        self._workers[os.getpid()].wake.set()

    def stop(self) -> None:
        worker = self._workers.get(os.getpid())
        if worker is not None:
            worker.stop()


class _Worker:
    """One process's thread."""

    def __init__(self, delivery: Delivery, concurrency: int) -> None:
        self.wake = threading.Event()
        self._delivery = delivery
        self._stopping = False
        self._senders = _Senders(concurrency)
        self._complaint = Brake(600)
        self._thread = threading.Thread(
            target=self.run, name="flask-mmolove", daemon=True
        )

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter is shutting down, or the server allows no threads. The
            # events are on disk; another process or the next start sends them.
            logger.warning("No delivery thread can be started in this process.")
        else:
            atexit.register(self.stop)

    def stop(self) -> None:
        self._stopping = True
        self.wake.set()
        atexit.unregister(self.stop)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(STOP)
        try:
            self._delivery.stop()
        except OutboxError as e:
            logger.warning("Claims were not given back and will run out: %s", e)

    def run(self) -> None:
        """Turn until :meth:`stop`."""
        while not self._stopping:
            self.wake.wait(self._turn())
            self.wake.clear()

    def _turn(self) -> float:
        """Do what is due, and give the seconds until there is more."""
        try:
            due = self._delivery.next_due()
            if due is None:
                return IDLE
            pause = (due - self._delivery.now()) / 1000
            if pause > 0:
                return min(pause, IDLE)
            return 0.0 if self._delivery.step(self._senders.run) else PAUSE
        except OutboxError as e:
            if self._complaint.passes():
                logger.error("Nothing can be delivered for now: %s", e)
        except BaseException:  # not even SystemExit may end it in silence
            logger.exception("The delivery failed in an unforeseen way; it goes on.")
        return PAUSE


class _Senders:
    """A handful of daemon threads that make attempts side by side.

    Not an executor: at exit that would wait for attempts under way, however long.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._tasks: queue.SimpleQueue[t.Callable[[], None]] = queue.SimpleQueue()

    def run(
        self,
        attempt: t.Callable[[Entry], tuple[Entry, Outcome | None]],
        entries: t.Sequence[Entry],
    ) -> t.Iterable[tuple[Entry, Outcome | None]]:
        """Make the attempts, and give the results as they come."""
        if len(entries) == 1 or self._count == 1:
            return map(attempt, entries)
        return self._side_by_side(attempt, entries)

    def _side_by_side(
        self,
        attempt: t.Callable[[Entry], tuple[Entry, Outcome | None]],
        entries: t.Sequence[Entry],
    ) -> t.Iterator[tuple[Entry, Outcome | None]]:
        results: queue.SimpleQueue[tuple[Entry, Outcome | None]] = queue.SimpleQueue()

        def task(entry: Entry) -> None:
            results.put(attempt(entry))

        self._start(min(self._count, len(entries)))
        if not self._started:
            yield from map(attempt, entries)
            return
        for entry in entries:
            self._tasks.put(partial(task, entry))
        for _ in entries:
            yield results.get()

    def _start(self, wanted: int) -> None:
        with contextlib.suppress(RuntimeError):  # not at the interpreter's end
            while self._started < wanted:
                threading.Thread(
                    target=self._work, name="flask-mmolove-sender", daemon=True
                ).start()
                self._started += 1

    def _work(self) -> None:
        while True:
            self._tasks.get()()
