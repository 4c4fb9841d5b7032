"""The logger ``flask_mmolove``, and a brake for warnings that could repeat."""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t

from .errors import MMOLoveError
from .text import printable

logger = logging.getLogger("flask_mmolove")


def _keep_to_one_line(record: logging.LogRecord) -> bool:
    """Escape what a message quotes: a player's id must not forge lines of the log."""
    if isinstance(record.args, tuple):
        record.args = tuple(map(_as_text, record.args))
    return True


def _as_text(argument: object) -> object:
    if isinstance(argument, (str, BaseException)):
        return printable(str(argument))
    return argument


logger.addFilter(_keep_to_one_line)


# Pauses that are remembered at once.
_KEYS = 10_000


class Throttle:
    """Lets a thing happen at most once in a while, per key.

    :param pause: Seconds between two times.
    :param clock: Seconds that never go back.
    """

    def __init__(
        self, pause: float, clock: t.Callable[[], float] = time.monotonic
    ) -> None:
        self._pause = pause
        self._clock = clock
        self._next: dict[str, float] = {}

    def passes(self, key: str = "") -> bool:
        """Whether the thing may happen now; if so, the pause begins."""
        now = self._clock()
        if now < self._next.get(key, now):
            return False
        self.spend(key)
        return True

    def forget(self, key: str) -> None:
        """End the pause of a key."""
        self._next.pop(key, None)

    def spend(self, key: str = "") -> None:
        """Begin the pause without the thing."""
        if len(self._next) >= _KEYS:
            self._next.clear()  # keys may come from visitors
        self._next[key] = self._clock() + self._pause


def complain(what: str, error: Exception) -> None:
    """Log a failure of ours that the site must not feel.

    :param what: What failed, in a sentence.
    """
    if isinstance(error, MMOLoveError):
        logger.error("%s Nothing else is affected. %s", what, error)
    else:
        logger.error("%s Nothing else is affected.", what, exc_info=error)


@contextlib.contextmanager
def shielded(what: str) -> t.Iterator[None]:
    """Keep failures of ours from the site; see :func:`complain`."""
    try:
        yield
    except Exception as e:
        complain(what, e)
