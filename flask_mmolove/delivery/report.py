"""Says what became of an entry: a line in the log, and to whoever else listens."""

from __future__ import annotations

import typing as t
from collections import Counter

from ..client import said
from ..log import Brake
from ..log import logger
from ..outbox import Entry
from ..outbox.entry import EntryState

#: Why a reward is set aside at once.
NO_CALLBACK = "the site has no @mmolove.reward"


class Reporter:
    """Tells of entries that are new or whose state has changed.

    :param report: Who else is told.
    :ivar counts: How many entries came to each state.
    """

    def __init__(self, report: t.Callable[[Entry], None]) -> None:
        self._report = report
        self.counts: t.Counter[EntryState] = Counter()
        self._no_callback = Brake(3600)

    def __call__(self, entry: Entry) -> None:
        if entry.state == "accepted" and entry.due and entry.attempts:
            return  # its reward failed and is tried again: told by the callback's error
        self.counts[entry.state] += 1
        mark = {"event_id": entry.id}
        subject = f"{entry.id} ({entry.event} of player {entry.identity})"
        if entry.state == "rejected":
            logger.warning(
                "Event %s is rejected: %s. It is kept; once the cause is fixed, send "
                "it again with 'flask mmolove retry'.",
                subject,
                said(entry.status, entry.answer),
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
                "The reward of event %s is set aside: %s. See 'flask mmolove rewards'.",
                subject,
                entry.answer,
                extra=mark,
            )
        elif entry.state != "pending":
            logger.info("Event %s is %s.", subject, entry.state, extra=mark)
        self._report(entry)
