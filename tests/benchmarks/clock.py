"""Times as ratios: what is compared is run in turns, in the same minute."""

from __future__ import annotations

import time
import typing as t

Work = t.Callable[[], object]


def seconds(work: Work, times: int = 1) -> float:
    """What a piece of work takes, on average over so many times."""
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times


def in_turns(repeats: int, times: int, *works: Work) -> list[list[float]]:
    """The seconds of each piece of work, in each of the repeats.

    :param times: How often each is done before it is another's turn.
    """
    for work in works:
        work()
    found: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, all in zip(works, found, strict=True):
            all.append(seconds(work, times))
    return found


def ratios(work: t.Sequence[float], beside: t.Sequence[float]) -> list[float]:
    """One of each repeat."""
    return [one / other for one, other in zip(work, beside, strict=True)]
