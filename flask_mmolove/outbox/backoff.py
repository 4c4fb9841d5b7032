"""When what failed is tried again, and when it no longer is."""

from __future__ import annotations

import typing as t

#: Milliseconds: the first pause, and the longest.
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

#: A random number between two, such as :func:`random.uniform`.
Uniform = t.Callable[[float, float], float]


def pause(failing_for: int, uniform: Uniform, most: int = MOST) -> int:
    """Milliseconds to wait after a failure: at most half as long as it has failed, so
    that the wait after the cause is gone is in proportion to what came before.

    :param failing_for: Milliseconds since the first failure.
    :param uniform: Spreads what failed together, so that it does not come back so.
    :param most: The longest pause.
    """
    longest = min(most, max(FIRST, failing_for // 2))
    return int(uniform(longest / 2, longest))
