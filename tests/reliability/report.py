"""What a harness counted, and whether a promise was broken."""

from __future__ import annotations

import json
import sys
import time
import typing as t
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from functools import update_wrapper

import click


@dataclass
class Counters:
    """What became of the events. The second block is the promise: noughts, and a file
    that is intact.

    :param attempted: Events that a site began to record.
    :param acknowledged: Those of which it was told that they are recorded.
    :param delivered: Events that the server took, each counted once.
    :param duplicate_posts: Posts of an event that the server had taken before.
    :param recovered: Delivered although the site died before it was told: the kills
        hit the moment between the commit and the answer.
    :param repeated_calls: Calls of the reward callback after the first, per reward key.
        A game that honours the key gives nothing for them.
    :param lost: Acknowledged, and not at the server in the end.
    :param unexpected: At the server, and never attempted.
    :param double_rewards: Rewards that count more than once although the game honours
        the key: given to one player under two keys, or for a referral that was never
        credited; where the site registered the callback as at-most-once, each call
        after the first.
    :param missing_rewards: Referrals that were credited and not rewarded; for an
        at-most-once callback, those that nobody is told of either.
    :param order_inversions: A ``qualified`` that arrived before its ``registered`` was
        taken.
    :param wrong_numbers: Credited friends whose number is missing, given twice, or
        leaves one out before it.
    :param file_intact: Whether SQLite finds nothing wrong with the file.
    """

    attempted: int = 0
    acknowledged: int = 0
    delivered: int = 0
    duplicate_posts: int = 0
    recovered: int = 0
    repeated_calls: int = 0

    lost: int = 0
    unexpected: int = 0
    double_rewards: int = 0
    missing_rewards: int = 0
    order_inversions: int = 0
    wrong_numbers: int = 0
    file_intact: bool = True

    def __add__(self, other: Counters) -> Counters:
        mine, theirs = asdict(self), asdict(other)
        total = Counters(**{name: mine[name] + theirs[name] for name in mine})
        total.file_intact = self.file_intact and other.file_intact
        return total

    def broken(self) -> list[str]:
        """The promises that do not hold."""
        nothing = (
            "lost",
            "unexpected",
            "double_rewards",
            "missing_rewards",
            "order_inversions",
            "wrong_numbers",
        )
        broken = [
            f"{name.replace('_', ' ')}: {getattr(self, name)}"
            for name in nothing
            if getattr(self, name)
        ]
        return broken if self.file_intact else [*broken, "the file is damaged"]


@dataclass
class Findings:
    """What a harness prints.

    :param harness: Its name.
    :param counters: What became of the events, where it sends any.
    :param figures: What is its own.
    :param rows: A table of its own, as dictionaries with the same keys.
    :param faults: Promises broken besides those that the counters tell of.
    """

    harness: str
    counters: Counters | None = None
    figures: dict[str, int | float] = field(default_factory=dict)
    rows: list[dict[str, t.Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Every promise that does not hold."""
        return [*(self.counters.broken() if self.counters else []), *self.faults]

    def to_json(self) -> str:
        """The report for a program."""
        counters = asdict(self.counters) if self.counters else None
        content = {**asdict(self), "counters": counters, "broken": self.broken}
        return json.dumps(content, indent=2)

    def to_text(self) -> str:
        """The report for a person."""
        counters = asdict(self.counters) if self.counters else {}
        figures = {**counters, **self.figures}
        wide = max(map(len, figures), default=0)
        lines = [
            f"{name.replace('_', ' '):<{wide}}  {_as_text(value):>9}"
            for name, value in figures.items()
        ]
        if self.rows:
            lines += ["", *_table(self.rows)]
        lines += ["", *(f"FAILED  {each}" for each in self.broken)]
        return "\n".join(lines if self.broken else [*lines, "Passed."])


Make = t.Callable[..., Findings]


def harness(*options: t.Callable[[t.Any], t.Any]) -> t.Callable[[Make], click.Command]:
    """Make a command of a function that gives a report, named after its file.

    :param options: ``click.option`` and the like, in the order of the help.
    """

    def decorate(make: Make) -> click.Command:
        def call(as_json: bool, **arguments: t.Any) -> None:
            started = time.monotonic()
            report = make(**arguments)
            report.figures["seconds"] = round(time.monotonic() - started, 1)
            click.echo(report.to_json() if as_json else report.to_text())
            if report.broken:
                raise SystemExit(1)

        function: t.Any = update_wrapper(call, make)
        for option in reversed(options):
            function = option(function)
        switch = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        name = make.__module__.rsplit(".", 1)[-1]
        return click.command(name)(switch(function))

    return decorate


T = t.TypeVar("T")


def progress(things: t.Sequence[T], label: str) -> t.Iterator[T]:
    """Go through things, with a bar on the terminal if there is one."""
    if not sys.stderr.isatty():
        yield from things
        return
    with click.progressbar(things, label=label, file=sys.stderr) as bar:
        yield from bar


def _as_text(value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,}"


def _table(rows: t.Sequence[t.Mapping[str, t.Any]]) -> t.Iterator[str]:
    head = {name: name for name in rows[0]}
    widths = {name: max(len(str(row[name])) for row in (head, *rows)) for name in head}
    for row in (head, *rows):
        cells = (f"{row[name]!s:<{width}}" for name, width in widths.items())
        yield "  ".join(cells).rstrip()
