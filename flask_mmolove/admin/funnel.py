"""How far referred players got: the numbers for dashboard and command line."""

from __future__ import annotations

import typing as t

from ..outbox.counters import DAY
from ..outbox.inspector import Day
from ..outbox.inspector import Inspector
from .wording import MANY

#: The steps in order, with their names.
STEPS = {
    "arrived": "Arrived",
    "signed_up": "Signed up",
    "accepted": "Accepted",
    "qualified": "Qualified",
    "rewarded": "Rewarded",
}

#: Days of each period, and its name.
PERIODS = {1: "Today", 7: "7 days", 30: "30 days"}


class Step(t.NamedTuple):
    """One step of a funnel.

    :param players: How many took it.
    :param share: Players as a share of the step before, 0 to 1; None if there is none.
    :param part: Players as a share of the largest step, 0 to 1: the width of its bar.
    """

    name: str
    players: int
    share: float | None
    part: float


class Period(t.NamedTuple):
    """A funnel over some days.

    :param unreferred: The rewards for which no referrer is known.
    """

    name: str
    steps: list[Step]
    unreferred: int


def read_days(inspector: Inspector, now: int) -> list[Day]:
    """The longest period day by day, oldest first, today included. What it leaves out
    is said by :func:`.wording.uncounted`.

    :param now: The time, in milliseconds.
    """
    return inspector.days(now - (max(PERIODS) - 1) * DAY, now, MANY)


def periods(days: t.Sequence[Day]) -> list[Period]:
    """The funnels of all periods.

    :param days: As :func:`read_days` gives them.
    """
    return [_period(name, days[-count:]) for count, name in PERIODS.items()]


def _period(name: str, days: t.Sequence[Day]) -> Period:
    return Period(name, _steps(days), sum(day.unreferred for day in days))


def _steps(days: t.Sequence[Day]) -> list[Step]:
    counts = {step: sum(getattr(day, step) for day in days) for step in STEPS}
    # Who got nothing because no referrer is known is counted apart.
    counts["rewarded"] -= sum(day.unreferred for day in days)
    before, most = [0, *counts.values()], max(*counts.values(), 1)
    return [
        Step(STEPS[step], counts[step], _share(counts[step], last), counts[step] / most)
        for step, last in zip(STEPS, before, strict=False)
    ]


def _share(count: int, last: int) -> float | None:
    # Today's milestone may belong to a signup of last month, and arrivals are counted
    # about: then there is no share.
    return count / last if last >= count and last else None
