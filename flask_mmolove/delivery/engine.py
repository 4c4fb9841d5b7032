"""What turns the delivery's step, and when."""

from __future__ import annotations

import os
import typing as t

from .step import Delivery


class Engine(t.Protocol):
    """Turns a delivery."""

    def start(self) -> None:
        """Called at each request: start in this process, unless started already."""

    def wake(self, ids: t.Collection[int] = ()) -> None:
        """Called when there is something new to do.

        :param ids: The entries that are new, or due again.
        """

    def stop(self) -> None:
        """Stop in this process, in good order and within a second."""


class ManualEngine:
    """Turns nothing: ``flask mmolove deliver`` does, by cron or as a service."""

    def start(self) -> None:
        pass

    def wake(self, ids: t.Collection[int] = ()) -> None:
        pass

    def stop(self) -> None:
        pass


T = t.TypeVar("T")


class PerProcess(t.Generic[T]):
    """One of a thing for each process: threads and connections do not live through a
    fork.

    :param make: Makes the one of the calling process.
    """

    def __init__(self, make: t.Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """This process's."""
        pid = os.getpid()
        if pid not in self._made:
            # One step, so that two threads at once get the same.
            self._made.setdefault(pid, self._make())
        return self._made[pid]


class InlineEngine(ManualEngine):
    """Sends in the calling thread, at once: for scripts and tests. A request would
    wait for MMOLove.
    """

    def __init__(self, delivery: t.Callable[[], Delivery]) -> None:
        self._delivery = PerProcess(delivery)

    def wake(self, ids: t.Collection[int] = ()) -> None:
        self._delivery.get().drain()
