"""Threads of a process that write at once share a commit, which is what takes the time.

Whoever comes first leads, and commits what has gathered by then together with its own
work; what gathers meanwhile is led by one of those who wait.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import typing as t

from ...errors import OutboxBusy

R = t.TypeVar("R")

_BUSY = "The outbox was kept busy by this process's other threads."

#: A piece of a transaction. It may be called several times; what counts is the last.
Work = t.Callable[[sqlite3.Connection], R]

#: Makes a transaction that waits for others for so many seconds.
Begin = t.Callable[[float], t.ContextManager[sqlite3.Connection]]


class Group:
    """The writers of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Job[t.Any]] = []
        self._is_led = False

    def run(self, begin: Begin, work: Work[R], timeout: float) -> R:
        """Do a piece of work in a transaction, and give its result once committed.

        :param begin: Makes a transaction.
        :param timeout: Seconds to wait for others.
        :raises OutboxBusy: If they took longer. It may have been done nevertheless.
        """
        deadline = time.monotonic() + timeout
        job = _Job(work)
        with self._lock:
            self._waiting.append(job)
            job.leads, self._is_led = not self._is_led, True
            if not job.leads:
                job.heard = threading.Event()
        try:
            if job.heard is not None and not job.heard.wait(timeout):
                raise OutboxBusy(_BUSY)
            if job.leads:
                self._lead(begin, deadline)
        finally:
            self._leave(job)
        return job.result()

    def _leave(self, job: _Job[t.Any]) -> None:
        """Go, and leave the lead to the next where nothing came of it: who waits may
        be interrupted, and at that very moment be the one who is to lead.
        """
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
                if job.leads:
                    self._hand_over()

    def _lead(self, begin: Begin, deadline: float) -> None:
        with self._lock:
            jobs, self._waiting = self._waiting, []
        try:
            self._commit(begin, jobs, deadline)
        finally:
            with self._lock:
                self._hand_over()
            for job in jobs:
                job.tell()

    def _hand_over(self) -> None:
        self._is_led = bool(self._waiting)
        for job in self._waiting[:1]:
            job.leads = True
            job.tell()

    def _commit(self, begin: Begin, jobs: list[_Job[t.Any]], deadline: float) -> None:
        try:
            with begin(max(0.0, deadline - time.monotonic())) as db:
                results = [job.work(db) for job in jobs]
        except Exception as e:
            if len(jobs) == 1:
                jobs[0].error = e
                return
            # It may be the fault of one: the others must not fail with it.
            for job in jobs:
                self._commit(begin, [job], deadline)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.results = [result]


class _Job(t.Generic[R]):
    """One thread's piece of work.

    :ivar heard: For one that waits: set when it is done, or when its thread is to lead.
    """

    def __init__(self, work: Work[R]) -> None:
        self.work = work
        self.leads = False
        self.heard: threading.Event | None = None
        self.results: list[R] = []
        self.error: Exception | None = None

    def tell(self) -> None:
        if self.heard is not None:
            self.heard.set()

    def result(self) -> R:
        if self.error is not None:
            raise self.error
        if not self.results:
            raise OutboxBusy("The thread that wrote to the outbox was interrupted.")
        return self.results[0]
