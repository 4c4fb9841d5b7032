"""Warns when the delivery has stalled: a thread that never ran cannot warn itself."""

from __future__ import annotations

import time
import typing as t

from ..errors import OutboxError
from ..log import logger
from ..log import shielded
from ..outbox.spool import Spool
from ..outbox.store import Outbox

#: Seconds from the first request until the first look, and between looks. The first
#: lets what waited while the site was down go out.
FIRST = 60.0
BETWEEN = 600.0

#: Milliseconds for which something may be overdue before it is logged.
WARN_AFTER = 15 * 60_000

#: What to do about it, by ``MMOLOVE_DELIVERY``.
ACTIONS = {
    "thread": "Restart the site. If that does not help, the server allows no threads "
    "(uWSGI without enable-threads): allow them, or set MMOLOVE_DELIVERY to 'manual' "
    "and let cron call 'flask mmolove deliver' each minute.",
    "celery": "See that a Celery worker of the site runs, that it takes from the task's"
    " queue, and that the broker can be reached: 'flask mmolove check' says which of "
    "them is missing.",
    "inline": "MMOLOVE_DELIVERY is 'inline', which sends nothing by itself later: let "
    "cron call 'flask mmolove deliver' each minute.",
    "manual": "MMOLOVE_DELIVERY is 'manual': let cron call 'flask mmolove deliver' "
    "each minute, or run 'flask mmolove deliver --forever' as a service, on each "
    "machine of the site.",
}

#: Seconds a look may wait for the outbox: it is taken in a request.
_TIMEOUT = 0.2


class Watchdog:
    """Looks from the requests' side whether the delivery is alive.

    :param delivery: ``MMOLOVE_DELIVERY``.
    :param monotonic: Seconds that never go back; for tests.
    :param clock: Unix seconds; for tests.
    """

    def __init__(
        self,
        outbox: Outbox,
        spool: Spool,
        delivery: str,
        monotonic: t.Callable[[], float] = time.monotonic,
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._spool = spool
        self._action = ACTIONS[delivery]
        self._monotonic = monotonic
        self._clock = clock
        self._next = 0.0  # when to look, by the clock that never goes back

    def look_out(self) -> None:
        """Called when something happens: a process has its first request, a token
        arrives, an event is recorded. Looks now and then, and never raises.
        """
        now = self._monotonic()
        if now < self._next:
            return
        is_first = not self._next
        self._next = now + (FIRST if is_first else BETWEEN)
        if not is_first:
            with shielded("Whether the delivery has stalled is not known."):
                self._look()

    def _look(self) -> None:
        now = int(self._clock() * 1000)
        # While MMOLove is in trouble nothing is due before the next probe.
        try:
            due = self._outbox.next_due(now, _TIMEOUT)
        except OutboxError:
            return  # whoever needs the outbox will log it
        # Nobody else can import what is spooled on this machine.
        overdue = [now - each for each in (due, self._spool.oldest()) if each]
        if overdue and max(overdue) > WARN_AFTER:
            logger.error(
                "Events are overdue by %d minutes: nothing delivers them. %s",
                max(overdue) // 60_000,
                self._action,
            )
