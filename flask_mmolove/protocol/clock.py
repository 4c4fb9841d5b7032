"""This machine's clock, corrected by MMOLove's, and the dates of HTTP headers."""

from __future__ import annotations

import time
import typing as t
from datetime import timezone
from email.utils import parsedate_to_datetime

from ..log import logger

#: Seconds by which the two clocks must differ before ours is corrected.
TOLERANCE = 60

#: Between which Unix seconds a ``Date`` is believed: the years 2020 to 2099. Our own
#: clock may show any time: some machines start in 1970.
PLAUSIBLE = (1_577_836_800, 4_102_444_800)


class Clock:
    """The clock that requests are signed by.

    :param time: This machine's clock, in Unix seconds.
    """

    def __init__(self, time: t.Callable[[], float] = time.time) -> None:
        self.time = time
        #: Seconds by which MMOLove's clock is ahead; 0 if the two agree well enough.
        self.ahead = 0.0

    def signing_time(self) -> int:
        """MMOLove's time in Unix seconds, as far as it is known."""
        return int(self.time() + self.ahead)

    def correct(self, ahead: float | None) -> None:
        """Follow MMOLove's clock from now on, if the two differ by much.

        :param ahead: Seconds by which it is ahead of this machine's, if known.
        """
        if ahead is None or abs(ahead - self.ahead) <= TOLERANCE:
            return
        self.ahead = ahead
        logger.warning(
            "This machine's clock is %.0f s %s MMOLove's; events are signed with the "
            "corrected time. Set the clock (NTP).",
            abs(ahead),
            "behind" if ahead > 0 else "ahead of",
        )


def read_ahead(headers: t.Mapping[str, str], middle: float) -> float | None:
    """Read from a response by how many seconds the sender's clock is ahead of ours.

    :param middle: Our time halfway between the request and the response.
    """
    # The response came over TLS or from this machine, so nobody can have forged the
    # date; but a response with an ``Age`` comes from a cache.
    date = None if "Age" in headers else read_date(headers.get("Date", ""))
    if date is None or not PLAUSIBLE[0] <= date < PLAUSIBLE[1]:
        return None
    # A ``Date`` has whole seconds, so the middle of that second is the best guess.
    return date + 0.5 - middle


def read_date(value: str) -> float | None:
    """Read a date of an HTTP header, in any of its forms, as Unix seconds."""
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # "-0000" and the older forms mean UTC
            date = date.replace(tzinfo=timezone.utc)
        return date.timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
