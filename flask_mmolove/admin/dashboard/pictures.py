"""The numbers that a picture is drawn by; the drawing itself is a template."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ...outbox import Day
from ...outbox.entry import as_datetime

# The size of the line's field, in the picture's own units.
WIDTH = 600
HEIGHT = 180

#: The lines that are drawn, and what they are called.
LINES = {"signed_up": "signed up", "qualified": "qualified"}


class Dot(t.NamedTuple):
    """One day of a line."""

    x: float
    y: float
    day: datetime
    players: int


class Picture(t.NamedTuple):
    """Lines over days.

    :param top: What the upper edge stands for.
    :param lines: The dots of each line.
    """

    top: int
    lines: dict[str, list[Dot]]
    days: list[datetime]

    def points(self, name: str) -> str:
        """A line, as SVG wants it."""
        return " ".join(f"{dot.x:g},{dot.y:g}" for dot in self.lines[name])


def draw(days: t.Sequence[Day]) -> Picture:
    """The lines of some days."""
    top = _round_up(max((day.signed_up for day in days), default=0))
    top = max(top, _round_up(max((day.qualified for day in days), default=0)))
    moments = [as_datetime(day.start) for day in days]
    step = WIDTH / max(1, len(days) - 1)
    lines = {
        name: [
            Dot(
                round(number * step, 1),
                round(HEIGHT * (1 - getattr(day, name) / top), 1),
                moment,
                getattr(day, name),
            )
            for number, (day, moment) in enumerate(zip(days, moments, strict=True))
        ]
        for name in LINES
    }
    return Picture(top, lines, moments)


def _round_up(count: int) -> int:
    """The next number that is easy to read, and even."""
    size = 1
    while True:
        for digit in (2, 4, 10):
            if count <= digit * size:
                return digit * size
        size *= 10
