"""The logger ``flask_mmolove``, and what keeps it readable."""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t

from .errors import MMOLoveError
from .text import printable

logger = logging.getLogger("flask_mmolove")

# How many keys a throttle remembers: they may come from visitors.
_KEYS = 10_000


def _escape_arguments(record: logging.LogRecord) -> bool:
    """Keep a message on one line: a player's id must not forge lines of the log."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            printable(str(each)) if isinstance(each, (str, BaseException)) else each
            for each in record.args
        )
    return True


logger.addFilter(_escape_arguments)


class Throttle:
    """Limits how often something happens, such as a warning.

    :param pause: Seconds between two times.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._next: dict[str, float] = {}

    def passes(self, key: str = "") -> bool:
        """Whether it may happen now. If so, the pause for this key starts."""
        now = time.monotonic()
        if now < self._next.get(key, now):
            return False
        if len(self._next) >= _KEYS:
            self._next.clear()
        self._next[key] = now + self._pause
        return True

    def forget(self, key: str) -> None:
        """End the pause for a key."""
        self._next.pop(key, None)


@contextlib.contextmanager
def shielded(what: str) -> t.Iterator[None]:
    """Shield the site from our failures: what the block raises is logged.

    :param what: What failed then, in a sentence.
    """
    try:
        yield
    except Exception as e:
        log_failure(what, e)


def log_failure(what: str, error: Exception) -> None:
    """Log a failure of ours that the site must not notice.

    :param what: What failed, in a sentence.
    """
    if isinstance(error, MMOLoveError):
        logger.error("%s Nothing else is affected. %s", what, error)
    else:
        logger.error("%s Nothing else is affected.", what, exc_info=error)
