"""Says what became of an entry: a line in the log, and to whoever else listens."""

from __future__ import annotations

import typing as t

from ..log import Brake
from ..log import logger
from ..outbox import Entry

#: Why a reward is set aside at once.
NO_CALLBACK = "the site has no @mmolove.reward"


class Reporter:
    """Tells of entries that are new or whose state has changed.

    :param report: Who else is told.
    """

    def __init__(self, report: t.Callable[[Entry], None]) -> None:
        self._report = report
        self._no_callback = Brake(3600)

    def __call__(self, entry: Entry) -> None:
        mark = {"event_id": entry.id}
        if entry.state == "rejected":
            logger.warning(
                "Event %s (%s of player %s) was rejected: HTTP %s, %s. It is kept; "
                "after the mend, send it again with 'flask mmolove retry'.",
                entry.id,
                entry.event,
                entry.identity,
                entry.status,
                entry.answer,
                extra=mark,
            )
        elif entry.state == "unpaid" and entry.answer == NO_CALLBACK:
            if self._no_callback.passes():
                logger.warning(
                    "Rewards are set aside: %s. See 'flask mmolove rewards'.",
                    NO_CALLBACK,
                    extra=mark,
                )
        elif entry.state == "unpaid":
            logger.error(
                "The reward of event %s (player %s) is set aside: %s. See 'flask "
                "mmolove rewards'.",
                entry.id,
                entry.identity,
                entry.answer,
                extra=mark,
            )
        elif entry.state != "pending":
            logger.info(
                "Event %s (%s of player %s) is %s.",
                entry.id,
                entry.event,
                entry.identity,
                entry.state,
                extra=mark,
            )
        self._report(entry)
