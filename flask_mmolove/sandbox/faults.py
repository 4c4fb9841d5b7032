"""Faults that a test or a command switches on."""

from __future__ import annotations

import random
import socket
import typing as t
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True)
class Faults:
    """What goes wrong at the events endpoint; elsewhere only the clock can.

    :param fail: Respond with this status and process nothing, for example 503.
    :param retry_after: Seconds for a ``Retry-After`` header beside ``fail``.
    :param drop: ``"request"`` closes the connection and processes nothing;
        ``"response"`` processes the event and then closes: only the response is lost.
    :param latency: Seconds to wait first; :meth:`Sandbox.stop` cuts them short.
    :param clock: Seconds by which the clock and its ``Date`` are off in every request.
    :param rate: The share of requests that meet the faults, from 0 to 1.
    :param random: Returns numbers from 0 to 1 that decide which; pass
        ``random.Random(7).random`` for a run that can be repeated.
    """

    fail: int | None = None
    retry_after: int | None = None
    drop: t.Literal["request", "response"] | None = None
    latency: float = 0
    clock: float = 0
    rate: float = 1
    random: t.Callable[[], float] = field(
        default=random.random, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.fail is not None and not 300 <= self.fail <= 599:
            raise ValueError(
                f"'fail' must be a status from 300 to 599, not {self.fail!r}."
            )
        if self.drop not in {None, "request", "response"}:
            raise ValueError(
                f"'drop' must be 'request' or 'response', not {self.drop!r}."
            )
        if self.fail is not None and self.drop is not None:
            raise ValueError("A request can meet 'fail' or 'drop', not both.")
        if self.latency < 0 or not 0 <= self.rate <= 1:
            raise ValueError(
                "'latency' must not be negative, and 'rate' must be from 0 to 1."
            )

    def strike(self) -> Faults:
        """The faults that the next request meets: these, or none."""
        struck = self.rate == 1 or self.random() < self.rate
        return self if struck else NO_FAULTS

    @property
    def summary(self) -> str:
        """The faults in one phrase; empty if there are none."""
        parts = [
            f"responds with {self.fail}" if self.fail else "",
            f"loses the {self.drop}" if self.drop else "",
            f"waits {self.latency:g} s" if self.latency else "",
        ]
        struck = " and ".join(filter(None, parts))
        if struck and self.rate < 1:
            struck += f" for {self.rate:.0%} of the requests"
        endpoint = f"the endpoint {struck}" if struck else ""
        clock = f"the clock is {self.clock:+g} s off" if self.clock else ""
        return "; ".join(filter(None, [endpoint, clock]))


#: Nothing goes wrong.
NO_FAULTS = Faults()


def hang_up(environ: dict[str, t.Any]) -> bool:
    """Close the connection of a request, so that no response can follow.

    Werkzeug's development server puts the socket into the environ. When it then tries
    to respond, it finds a broken pipe, which looks like a client that has left.

    :return: False if there is no socket: under another server, or in a test client.
    """
    connection = environ.get("werkzeug.socket")
    if connection is None:
        return False
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the client was faster
        pass
    return True
