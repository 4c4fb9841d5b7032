"""What is counted for each day and each referrer, so that nobody has to count a million
rows.

Only what is finished is counted, when it is finished, by whatever delivers: a signup
writes nothing besides its row. What is not finished is few, and counted where it
stands. So the counts outlive the rows, which may be purged or erased. Arrivals have no
rows: they are counted in memory, and added now and then.
"""

from __future__ import annotations

import typing as t

from .entry import Entry
from .states import EntryState

#: Milliseconds of a day. Days begin at midnight UTC.
DAY = 86_400_000

#: ``arrived``
#:     A visitor came with a token, by a referrer's link where that is known.
#: ``accepted`` and ``ignored``
#:     MMOLove took a player's ``registered``, or another referrer was first.
#: ``qualified``
#:     It took a player's ``qualified``.
#: ``rewarded``
#:     The reward was given.
#: ``unreferred``
#:     And no referrer was known, so it may have been given to nobody.
Step = t.Literal[
    "arrived", "accepted", "ignored", "qualified", "rewarded", "unreferred"
]


class Mark(t.NamedTuple):
    """What an entry counts for.

    :param day: The day on which it was recorded, as its beginning in milliseconds.
    :param step: The step that it took.
    :param referrer: Who invited its player, if that is known.
    """

    day: int
    step: Step
    referrer: str | None


def arrived(now: int, referrer: str | None) -> Mark:
    """A visitor who came with a token."""
    return Mark(now - now % DAY, "arrived", referrer)


_QUALIFIED = {"accepted", "rewarded", "reward_unconfirmed", "reward_failed"}


def reached(entry: Entry, was: EntryState) -> list[Mark]:
    """The step, if any, that an entry has taken with its state. Each is taken once: no
    entry comes back to ``pending`` from there.

    :param was: Its state before.
    """
    if entry.state == "rewarded":
        return _marks(entry, *_rewarded(entry))
    if was == "pending" and entry.state in ("accepted", "reward_failed"):
        is_first = entry.event == "registered"
        return _marks(entry, "accepted" if is_first else "qualified")
    if entry.state == "ignored" and entry.event == "registered":
        return _marks(entry, "ignored")
    return []


def taken(entry: Entry) -> list[Mark]:
    """All the steps that an entry has taken."""
    if entry.event == "registered":
        finished = entry.state in ("accepted", "ignored")
        return _marks(entry, *([t.cast(Step, entry.state)] if finished else []))
    if entry.state not in _QUALIFIED:
        return []
    paid = _rewarded(entry) if entry.state == "rewarded" else []
    return _marks(entry, "qualified", *paid)


def _rewarded(entry: Entry) -> list[Step]:
    return ["rewarded"] if entry.referrer is not None else ["rewarded", "unreferred"]


def _marks(entry: Entry, *steps: Step) -> list[Mark]:
    if entry.test or entry.is_second:  # no signup that MMOLove ever hears of
        return []
    day = entry.recorded - entry.recorded % DAY
    return [Mark(day, step, entry.referrer) for step in steps]
