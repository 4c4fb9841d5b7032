"""When a process takes the delivery's steps."""

from __future__ import annotations

import abc
import os
import typing as t

if t.TYPE_CHECKING:
    from .step import Delivery


class Asker(t.Protocol):
    """Asks the site which friends have reached the milestone."""

    @property
    def has_callback(self) -> bool:
        """Whether there is anybody to ask."""

    def is_due(self) -> bool:
        """Whether it is time for a round."""

    def ask(self) -> int:
        """Ask a round, if one is due, and return about how many friends."""

    def turn(self) -> float:
        """Ask a round, if one is due, and return the seconds until the next look."""

    def stop(self) -> None:
        """Ask no more."""


class Engine(abc.ABC):
    """Runs a delivery. One without threads has nothing to start or stop."""

    def start(self) -> None:  # noqa: B027
        """Called at each request: start in this process, unless started already."""

    @abc.abstractmethod
    def wake(self, ids: t.Collection[int] = ()) -> None:
        """Called when there is something new to do.

        :param ids: The entries that are new, or due again.
        """

    def rest(self) -> None:  # noqa: B027
        """Called by a command, which ends soon: leave sending and rewards to others."""

    def ask_by(self, asker: Asker) -> None:  # noqa: B027
        """Have milestones asked for, if this engine can."""

    def attend(self, chore: t.Callable[[], None]) -> bool:
        """Have something small done several times a minute in each process, by a
        thread. False if this engine has none.
        """
        return False

    def stop(self) -> None:  # noqa: B027
        """Stop cleanly in this process, within a second."""


class ManualEngine(Engine):
    """Does nothing: ``flask mmolove deliver`` does it, by cron or as a service."""

    def wake(self, ids: t.Collection[int] = ()) -> None:
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


class InlineEngine(Engine):
    """Sends in the calling thread, at once: for scripts and tests. A request would
    wait for MMOLove.
    """

    def __init__(self, delivery: t.Callable[[], Delivery]) -> None:
        self._delivery = PerProcess(delivery)

    def wake(self, ids: t.Collection[int] = ()) -> None:
        self._delivery.get().drain()
