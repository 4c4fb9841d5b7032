"""One line of the table: a ratio to something that was run beside it."""

from __future__ import annotations

import statistics
import typing as t


class Row(t.NamedTuple):
    """What was measured, and what was wanted.

    :param work: What was done.
    :param beside: What it is compared with.
    :param ratios: One for each repeat, each of two runs in turn.
    :param wanted: The limit.
    :param is_least: Whether the limit is the least that will do, and not the most.
    :param note: The figures themselves, for orientation.
    """

    work: str
    beside: str
    ratios: t.Sequence[float]
    wanted: float
    is_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float:
        """The middle one."""
        return statistics.median(self.ratios)

    @property
    def holds(self) -> bool:
        if self.is_least:
            return self.ratio >= self.wanted
        return self.ratio <= self.wanted

    def data(self) -> dict[str, t.Any]:
        """The same for programs."""
        return {
            **self._asdict(),
            "ratios": [*self.ratios],
            "ratio": self.ratio,
            "holds": self.holds,
        }


HEAD = ("what", "beside", "ratio", "spread", "wanted", "", "figures")


def cells(row: Row) -> tuple[str, ...]:
    """A row as it is shown."""
    spread = f"{_short(min(row.ratios))} to {_short(max(row.ratios))}"
    return (
        row.work,
        row.beside,
        f"{_short(row.ratio)} ×",
        spread if len(row.ratios) > 1 else "",
        f"{'≥' if row.is_least else '≤'} {_short(row.wanted)}",
        "" if row.holds else "missed",
        row.note,
    )


def table(rows: t.Sequence[Row]) -> str:
    """All of them, as Markdown."""
    shown = [HEAD, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "| " + " | ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)) + " |"
        for line in shown
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
