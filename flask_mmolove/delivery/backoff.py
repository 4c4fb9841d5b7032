"""When a failed attempt is retried, and when it no longer is."""

from __future__ import annotations

import random
import typing as t

#: Milliseconds: the least pause, the first pause at most, and the longest.
LEAST = 1_000
FIRST = 2_000
MOST = 4 * 3_600_000

#: The longest pause between two calls of a reward callback: a game comes back sooner
#: than a service, and players wait for what they were promised.
MOST_REWARD = 15 * 60_000

#: Attempts that are made before an event is rejected, however old it is.
ATTEMPTS_AT_LEAST = 12

#: Times an entry may take its worker down with it. A healthy one can be unlucky when
#: workers are killed for other reasons, so this is far more than chance explains.
CRASHES = 20


def pause(
    attempts: int,
    uniform: t.Callable[[float, float], float] = random.uniform,
    most: int = MOST,
) -> int:
    """Milliseconds to wait after so many attempts, with full jitter.

    Anything between the least pause and a ceiling that doubles with each attempt, so
    that what failed together does not come back together.
    """
    ceiling = min(most, FIRST * 2 ** min(max(attempts, 1) - 1, 20))
    return int(uniform(LEAST, ceiling))
