"""A handful of threads that make attempts side by side."""

from __future__ import annotations

import contextlib
import queue
import threading
import typing as t
from functools import partial

from ..outbox.entry import Entry
from ..protocol.response import Outcome

Result = tuple[Entry, Outcome | None]
Results = t.Iterable[Result]
Attempt = t.Callable[[Entry], Result]


class Senders:
    """Daemon threads, started when they are needed first.

    Not an executor: at exit that would wait for attempts in flight, however long.

    :param count: Attempts in flight at once.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._tasks: queue.SimpleQueue[t.Callable[[], None]] = queue.SimpleQueue()

    def run(self, attempt: Attempt, entries: t.Sequence[Entry]) -> Results:
        """Make the attempts, and give the results as they come."""
        if len(entries) == 1 or self._count == 1:
            return map(attempt, entries)
        return self._side_by_side(attempt, entries)

    def _side_by_side(self, attempt: Attempt, entries: t.Sequence[Entry]) -> Results:
        results: queue.SimpleQueue[Result] = queue.SimpleQueue()

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
