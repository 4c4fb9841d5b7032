"""What turns the delivery's step, and when."""

from __future__ import annotations

import os
import typing as t

from .step import Delivery


class Engine(t.Protocol):
    """Turns a delivery."""

    def start(self) -> None:
        """Called at each request: start in this process, unless started already."""

    def wake(self) -> None:
        """Called when there is something new to send."""

    def stop(self) -> None:
        """Stop in this process, in good order and within a second."""


class ManualEngine:
    """Turns nothing: ``flask mmolove deliver`` does, by cron or as a service."""

    def start(self) -> None:
        pass

    def wake(self) -> None:
        pass

    def stop(self) -> None:
        pass


class InlineEngine(ManualEngine):
    """Sends in the calling thread, at once: for scripts and tests. A request would
    wait for MMOLove.
    """

    def __init__(self, delivery: t.Callable[[], Delivery]) -> None:
        self._make = delivery
        self._deliveries: dict[int, Delivery] = {}

    def wake(self) -> None:
        # One for each process: connections do not live through a fork.
        if os.getpid() not in self._deliveries:
            self._deliveries[os.getpid()] = self._make()
        self._deliveries[os.getpid()].drain()
