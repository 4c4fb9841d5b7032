"""A daemon thread in each process of the site, for an engine that needs one."""

from __future__ import annotations

import atexit
import os
import threading
import typing as t

from ..errors import OutboxError
from ..log import logger
from ..log import shielded
from ..log import Throttle
from .engine import Engine

#: Seconds after which the outbox is looked at although nothing called: another
#: process may have died and left something.
IDLE = 20.0

#: Seconds before the store is asked again after it failed, or had nothing after all.
PAUSE = 1.0

#: Seconds a clean stop waits for the turn that is running.
STOP = 0.8


class Job(t.Protocol):
    """What one process's thread does, again and again."""

    def turn(self) -> float:
        """Do what there is to do, and give the seconds until there is more."""

    def stop(self) -> None:
        """Called when no turn comes any more; has to return at once."""


J = t.TypeVar("J", bound=Job)


class DaemonEngine(Engine, t.Generic[J]):
    """Runs a job in a daemon thread of each process.

    A server may import the site in one process and serve it in others, and threads do
    not live through a fork. So the thread is started by the first request of each
    process, never at import.

    :param make: Makes the job of a process.
    :param stop_timeout: Seconds an orderly stop waits for what is running.
    """

    def __init__(self, make: t.Callable[[], J], stop_timeout: float = STOP) -> None:
        self._make = make
        self._stop_timeout = stop_timeout
        self._daemons: dict[int, _Daemon[J]] = {}
        self._chores: list[t.Callable[[], None]] = []

    def attend(self, chore: t.Callable[[], None]) -> bool:
        self._chores.append(chore)
        return True

    def start(self) -> None:
        self._daemon()

    @property
    def is_started(self) -> bool:
        """Whether this process has its thread."""
        return os.getpid() in self._daemons

    def wake(self, ids: t.Collection[int] = ()) -> None:
        self._daemon().wake.set()

    def stop(self) -> None:
        daemon = self._daemons.get(os.getpid())
        if daemon is not None:
            daemon.stop()

    def _daemon(self) -> _Daemon[J]:
        daemon = self._daemons.get(os.getpid())
        if daemon is None:
            new = _Daemon(self._make(), self._chores, self._stop_timeout)
            # One step, so that of two first requests at once only one starts.
            daemon = self._daemons.setdefault(os.getpid(), new)
            if daemon is new:
                daemon.start()
        return daemon


class _Daemon(t.Generic[J]):
    """One process's thread."""

    def __init__(
        self, job: J, chores: list[t.Callable[[], None]], stop_timeout: float
    ) -> None:
        self.job = job
        self._chores = chores
        self._stop_timeout = stop_timeout
        self.wake = threading.Event()
        self._pid = os.getpid()
        self._stopping = False
        self._complaint = Throttle(600)
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
        # A child that was forked ends with the atexit calls of its parent, whose thread
        # is still at work on what this would give back.
        if self._pid != os.getpid():
            return
        self._stopping = True
        self.wake.set()
        atexit.unregister(self.stop)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self._stop_timeout)
        self.job.stop()

    def run(self) -> None:
        """Turn until :meth:`stop`."""
        while not self._stopping:
            self.wake.wait(self._turn())
            self.wake.clear()
        self._do_chores()

    def _do_chores(self) -> None:
        for chore in self._chores:
            with shielded("A chore of the delivery's thread failed."):
                chore()

    def _turn(self) -> float:
        self._do_chores()
        try:
            return self.job.turn()
        except OutboxError as e:
            if self._complaint.passes():
                logger.error("Nothing can be delivered for now: %s", e)
        except BaseException:  # not even SystemExit may end it in silence
            logger.exception("The delivery failed in an unforeseen way; it goes on.")
        return PAUSE
