"""Announces what became of an entry, in the log and to whoever else listens."""

from __future__ import annotations

import typing as t
from collections import Counter

from ..log import logger
from ..log import Throttle
from ..outbox.entry import Entry
from ..outbox.report import Report
from ..outbox.states import EntryState
from ..protocol.response import response_line
from ..protocol.wire import shorten

#: Why a reward fails at once.
NO_CALLBACK = "the site has no @mmolove.reward"


class EventLog:
    """Tells of entries that are new or whose state has changed.

    :param listener: Who else is told.
    :ivar counts: How many entries came to each state.
    """

    def __init__(self, listener: t.Callable[[Entry], None]) -> None:
        self._listener = listener
        self.counts: t.Counter[EntryState] = Counter()
        self._no_callback = Throttle(3600)

    def __call__(self, entry: Entry) -> None:
        if entry.state == "accepted" and entry.due and entry.attempts:
            return  # its reward is retried: the callback's error was logged
        if entry.state == "reward_unconfirmed" and entry.due:
            return  # its callback is called now, and most likely returns
        self.counts[entry.state] += 1
        mark = {"event_id": entry.id}
        subject = f"{entry.id} ({entry.event} of player {entry.identity})"
        if entry.state == "rejected":
            logger.warning(
                "Event %s is rejected: %s. It is kept, and 'flask mmolove retry "
                "--list' tells what to do.",
                subject,
                response_line(entry.status, entry.answer),
                extra=mark,
            )
        elif entry.state == "reward_failed" and entry.answer == NO_CALLBACK:
            if self._no_callback.passes():
                logger.warning(
                    "Rewards fail: %s. See 'flask mmolove rewards'.",
                    NO_CALLBACK,
                    extra=mark,
                )
        elif entry.state == "reward_failed":
            logger.error(
                "The reward of event %s failed for good: %s. See 'flask mmolove "
                "rewards'.",
                subject,
                entry.answer,
                extra=mark,
            )
        elif entry.is_second:
            warn_of_second(entry)
        elif entry.state != "pending":
            logger.info("Event %s is %s.", subject, entry.state, extra=mark)
        self._listener(entry)


def warn_of_second(entry: Entry) -> None:
    """Warn that an account was reported with the token of another one."""
    logger.warning(
        "Player %s was reported with the token %s, and another account was before: "
        "a token counts once, so this one is ignored and nothing is given for it. "
        "Somebody may have made several accounts.",
        entry.identity,
        shorten(entry.token),
        extra={"event_id": entry.id},
    )


def warn_of_other_token(report: Report, known: t.Mapping[str, Entry]) -> None:
    """Say if a known player was reported with another token than before.

    :param known: The player's entries by event name.
    """
    registered = known.get("registered")
    if registered is None or report.token in (None, registered.token):
        return
    logger.warning(
        "Player %s was reported with the token %s, and had been before with another "
        "one: MMOLove counts the first, so this one is ignored. If it is a new "
        "account, its id was given out twice: call mmolove.forget(player) where an "
        "account is deleted, and let the database use no id again.",
        report.identity,
        shorten(report.token or ""),
        extra={"event_id": registered.id},
    )
