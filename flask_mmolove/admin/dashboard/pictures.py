"""The coordinates of the chart; a template draws it."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ...clock import as_datetime
from ...outbox.inspector import Day

# The size of the plot, in SVG units.
WIDTH = 600
HEIGHT = 180

#: The lines, with their names.
LINES = {"signed_up": "signed up", "qualified": "qualified"}


class Dot(t.NamedTuple):
    """One day of a line."""

    x: float
    y: float
    players: int


class Picture(t.NamedTuple):
    """Lines over days.

    :param top: The value at the upper edge.
    :param lines: The dots of each line.
    """

    top: int
    lines: dict[str, list[Dot]]
    days: list[datetime]

    def points(self, name: str) -> str:
        """The points of a polyline in SVG."""
        return " ".join(f"{dot.x:g},{dot.y:g}" for dot in self.lines[name])


def draw(days: t.Sequence[Day]) -> Picture:
    """The lines of some days."""
    most = max((getattr(day, name) for day in days for name in LINES), default=0)
    top = _round_up(most)
    step = WIDTH / max(1, len(days) - 1)
    lines = {
        name: [
            Dot(
                round(number * step, 1),
                round(HEIGHT * (1 - getattr(day, name) / top), 1),
                getattr(day, name),
            )
            for number, day in enumerate(days)
        ]
        for name in LINES
    }
    return Picture(top, lines, [as_datetime(day.start) for day in days])


def _round_up(count: int) -> int:
    """The next even number that is easy to read."""
    size = 1
    while True:
        for digit in (2, 4, 10):
            if count <= digit * size:
                return digit * size
        size *= 10
