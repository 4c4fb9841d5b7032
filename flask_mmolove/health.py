"""Whether all is well, in one line; and if not, what to do."""

from __future__ import annotations

import typing as t

from .errors import OutboxError
from .outbox import Host
from .outbox import Worker
from .state import State
from .words import ago

#: Milliseconds for which something may be due before nobody seems to deliver.
OVERDUE = 2 * 60_000

#: Milliseconds for which an event may wait before it is worth a word.
LONG = 15 * 60_000

Level = t.Literal["good", "look", "bad"]


class Health(t.NamedTuple):
    """How a site's referrals are.

    :param level: ``good``; ``look`` where something is odd and goes on by itself;
        ``bad`` where a person has to do something, or MMOLove does not answer.
    :param line: What is, in a sentence.
    :param cure: What to do, if anything.
    """

    level: Level
    line: str
    cure: str = ""


class Signs(t.NamedTuple):
    """What health is judged by. Times are integer milliseconds.

    :param due: When something is next to be done.
    :param oldest: When the oldest pending event was recorded.
    :param accepted: When MMOLove last took an event.
    """

    host: Host
    worker: Worker | None
    due: int | None
    oldest: int | None
    accepted: int | None


def examine(state: State, now: int) -> Health:
    """How an app's referrals are now.

    :param now: The time, in milliseconds.
    """
    if not state.settings.enabled:
        return Health("look", "Switched off: nothing is captured, stored or sent.", _ON)
    journal = state.outbox.journal
    try:
        signs = Signs(
            state.outbox.host(),
            journal.worker(),
            state.outbox.next_due(now),
            journal.oldest_pending(),
            journal.last_accepted(),
        )
    except OutboxError as e:
        return Health("bad", "The outbox cannot be read.", str(e))
    return judge(signs, now, state.settings.delivery)


def judge(signs: Signs, now: int, delivery: str) -> Health:
    """What the signs mean.

    :param delivery: The setting ``MMOLOVE_DELIVERY``.
    """
    return (
        _of_host(signs.host, now)
        or _of_worker(signs, now, delivery)
        or _of_clock(signs.worker)
        or _of_waiting(signs.oldest, now)
        or _well(signs.accepted, now)
    )


def _of_host(host: Host, now: int) -> Health | None:
    if host.open_since is None:
        return None
    since = ago(host.open_since, now)
    next_try = max(0, host.not_before - now) // 1000
    again = f"It is tried again by itself, next in {next_try} s; nothing is lost."
    if host.refusals:
        line = f"MMOLove has refused this site's events for {since}."
    else:
        line = f"MMOLove has been out of reach for {since}."
    return Health("bad", line, f"{host.reason} {again}")


def _of_worker(signs: Signs, now: int, delivery: str) -> Health | None:
    if signs.due is None or now - signs.due <= OVERDUE:
        return None
    if signs.worker is not None and now - signs.worker.seen <= OVERDUE:
        return None  # it is at work, and not through yet
    seen = signs.worker and ago(signs.worker.seen, now)
    last = f"a worker was last seen {seen} ago" if seen else "no worker was ever seen"
    line = f"Nothing delivers: an event is {ago(signs.due, now)} overdue, and {last}."
    return Health("bad", line, _WORKERS.get(delivery, _WORKERS["manual"]))


def _of_clock(worker: Worker | None) -> Health | None:
    if worker is None or not worker.ahead:
        return None
    side = "behind" if worker.ahead > 0 else "ahead of"
    line = f"This machine's clock is {abs(worker.ahead):.0f} s {side} MMOLove's."
    return Health("look", line, _CLOCK)


def _of_waiting(oldest: int | None, now: int) -> Health | None:
    if oldest is None or now - oldest < LONG:
        return None
    return Health("look", f"The oldest event has waited {ago(oldest, now)}.", _WAITING)


def _well(accepted: int | None, now: int) -> Health:
    if accepted is None:
        line = "All is well. No event was accepted yet: nobody came by invitation."
        return Health("good", line)
    return Health(
        "good", f"All is well. MMOLove took an event {ago(accepted, now)} ago."
    )


_ON = "Set MMOLOVE_ENABLED to true and restart the site."
_CLOCK = (
    "Set the clock of this machine (NTP). Until then events are signed by MMOLove's."
)
_WAITING = (
    "It is sent again by itself. One that waits for its player's 'registered' goes on "
    "when that is accepted: look for a rejected one of the same player."
)
_WORKERS = {
    "thread": (
        "Restart the site. If it comes back, the server allows no threads (uWSGI "
        "without enable-threads): allow them, or set MMOLOVE_DELIVERY to 'manual' and "
        "let cron call 'flask mmolove deliver' each minute."
    ),
    "manual": (
        "Let cron call 'flask mmolove deliver' each minute, or run 'flask mmolove "
        "deliver --forever' as a service; look at its log."
    ),
    "celery": "Start a Celery worker of this site, and look at its log.",
}
