"""Whether a site loses referrals or lets them wait, and what to do about it."""

from __future__ import annotations

import typing as t

from ..delivery.watchdog import CURES
from ..errors import OutboxError
from ..outbox import Breaker
from ..outbox import Entry
from ..outbox import Inspector
from ..outbox import RewardBreaker
from ..outbox import Worker
from ..outbox.entry import EntryState
from ..outbox.rules import next_attempt
from ..registration.views import IN_A_ROW
from ..registration.views import Record
from ..state import State
from ..text import printable
from .wording import ago
from .wording import FOR_A_PERSON
from .wording import many

#: Milliseconds for which something may be due before the delivery counts as stalled.
STALLED_AFTER = 2 * 60_000

#: And where a message wakes a worker at once, and a sweep twice a minute.
STALLED_AFTER_BY_CELERY = 45_000

#: Milliseconds for which an event may wait before it is worth a word.
LONG = 15 * 60_000

# And one in the emergency exit, which a delivery takes in first of all.
_TAKEN_IN = 60_000

Level = t.Literal["good", "look", "bad"]


class Health(t.NamedTuple):
    """How a site's referrals are.

    :param level: ``good``; ``look`` where something is odd or waits for a person, and
        the rest goes on; ``bad`` where nothing does.
    :param line: What is, in a sentence.
    :param cure: What to do, if anything.
    """

    level: Level
    line: str
    cure: str = ""

    def __str__(self) -> str:
        return printable(f"{self.line} {self.cure}".rstrip())


class Signs(t.NamedTuple):
    """What health is judged by. Times are integer milliseconds.

    :param due: When something is next to be done.
    :param oldest: When the oldest pending event was recorded.
    :param spooled: Since when something lies in the emergency exit of this machine.
    :param accepted: When MMOLove last took a signup.
    :param stuck: How many events wait for a person, by state.
    :param unsent: The events that were sent in vain and are sent again.
    :param failing: The rewards whose callback failed and is called again.
    :param nameless: The signup views that named nobody, although visitors with a token
        posted to them, and why.
    :param unreadable: Spooled files that could not be imported.
    """

    breaker: Breaker
    worker: Worker | None
    due: int | None
    oldest: int | None
    spooled: int | None
    accepted: int | None
    stuck: dict[EntryState, int]
    rewards: RewardBreaker = RewardBreaker()
    unsent: t.Sequence[Entry] = ()
    failing: t.Sequence[Entry] = ()
    unreadable: int = 0
    nameless: t.Mapping[str, Record] = {}


def examine(state: State, now: int) -> Health:
    """The worst of :func:`survey`.

    :param now: The time, in milliseconds.
    """
    return survey(state, now)[0]


def survey(state: State, now: int) -> list[Health]:
    """All that is wrong with an app's referrals now, the worst first; or that all is
    well.

    :param now: The time, in milliseconds.
    """
    if not state.settings.enabled:
        line = "Switched off: nothing is captured, stored or sent."
        return [Health("look", line, _ON)]
    found = [*of_settings(state), *of_store(state, now)]
    order: list[Level] = ["bad", "look", "good"]
    found.sort(key=lambda health: order.index(health.level))
    # Only what is alone may say that all is well.
    return [health for health in found if health.level != "good"] or found


def of_settings(state: State) -> t.Iterator[Health]:
    """What is wrong with the settings, whatever happened until now."""
    if not state.app.secret_key:
        line = "No visitor's token can be kept: the site has no SECRET_KEY."
        yield Health("bad", line, "Set app.config['SECRET_KEY'].")
    if state.callbacks.replaced:
        line = (
            "The site has more than one reward callback, and only the last is called."
        )
        yield Health("look", line, "Call all of them from one function.")
    if state.settings.test:
        line = "Every event is a dry run: nobody is counted or rewarded."
        yield Health("look", line, "For the real thing, set MMOLOVE_TEST to false.")


def of_store(state: State, now: int) -> list[Health]:
    """What is wrong with what happened until now; or that all is well."""
    inspector = state.inspector
    try:
        signs = Signs(
            state.outbox.breaker(state.timeout),
            inspector.worker(),
            state.outbox.next_due(now, state.timeout),
            inspector.oldest_pending(),
            state.spool.oldest(),
            inspector.last_signup(),
            count_stuck(inspector),
            state.outbox.reward_breaker(state.timeout),
            inspector.failing_events(),
            inspector.failing_rewards(),
            state.spool.unreadable(),
            find_nameless(state.views.read()),
        )
    except OutboxError as e:
        return [Health("bad", "The outbox cannot be read.", str(e))]
    return of_signs(signs, now, state.settings.delivery)


def find_nameless(records: t.Mapping[str, Record]) -> dict[str, Record]:
    """The views that name nobody although they seem to sign players up."""
    return {
        endpoint: record
        for endpoint, record in records.items()
        if record.in_a_row >= (IN_A_ROW if record.named else 1)
    }


def count_stuck(inspector: Inspector) -> dict[EntryState, int]:
    """How many events wait for a person, by state."""
    counts = {state: inspector.count(state) for state in FOR_A_PERSON}
    return {state: count for state, count in counts.items() if count}


def planned(state: State, entry: Entry, now: int) -> int | None:
    """When an entry is next sent, or its reward granted; None if nothing is planned.

    :param now: The time, in milliseconds.
    """
    if entry.due is None:
        return None
    breaker = state.outbox.breaker(state.timeout)
    return next_attempt(entry, breaker, state.outbox.reward_breaker(state.timeout), now)


def of_signs(signs: Signs, now: int, delivery: str) -> list[Health]:
    """What the signs mean.

    :param delivery: The setting ``MMOLOVE_DELIVERY``.
    """
    trouble = [
        _of_breaker(signs.breaker, now),
        _of_worker(signs, now, delivery),
        _of_rewards(signs.rewards, now),
        _of_spool(signs.spooled, now),
        _of_unreadable(signs.unreadable),
        _of_clock(signs.worker),
        _of_stuck(signs.stuck),
        # Why is said already, once there are several.
        None if signs.breaker.open_since else _of_unsent(signs.unsent),
        _of_failing(signs.failing),
        *map(_of_nameless, signs.nameless.items()),
    ]
    found = [health for health in trouble if health is not None]
    # Why it has waited is said already, if anything is.
    waiting = None if found else _of_waiting(signs.oldest, now)
    return found or [waiting or _well(signs.accepted, now)]


def _of_breaker(breaker: Breaker, now: int) -> Health | None:
    if breaker.open_since is None:
        return None
    since = ago(breaker.open_since, now)
    wait = breaker.wait(now) // 1000
    when = f"in {wait} s" if wait else "with the next delivery"
    again = (
        f"Nothing is lost. The next attempt is made {when}; 'flask mmolove deliver "
        "--now' sends at once."
    )
    if breaker.refusals:
        line = f"MMOLove has refused this site's events for {since}."
    elif breaker.status:
        line = f"MMOLove has answered with failures for {since}."
    else:
        line = f"MMOLove has been out of reach for {since}."
    return Health("bad", line, f"{breaker.reason} {again}")


def _of_worker(signs: Signs, now: int, delivery: str) -> Health | None:
    by_celery = delivery == "celery"
    if signs.due is None:
        return None
    if now - signs.due <= (STALLED_AFTER_BY_CELERY if by_celery else STALLED_AFTER):
        return None
    # One that was seen before may have been started anew, with other queues.
    since = max(signs.due, now - STALLED_AFTER) if by_celery else now - STALLED_AFTER
    if signs.worker is not None and signs.worker.seen >= since:
        return None  # it is at work, and not through yet
    seen = signs.worker and ago(signs.worker.seen, now)
    last = f"a worker was last seen {seen} ago" if seen else "no worker was ever seen"
    line = f"Nothing delivers: an event is {ago(signs.due, now)} overdue, and {last}."
    return Health("bad", line, CURES[delivery])


def _of_rewards(rewards: RewardBreaker, now: int) -> Health | None:
    if rewards.open_since is None:
        return None
    line = (
        f"Rewards have been paused for {ago(rewards.open_since, now)}, because the "
        f"reward callback fails each time: {rewards.reason}."
    )
    return Health("bad", line, _REWARDS)


def _of_nameless(view: tuple[str, Record]) -> Health:
    endpoint, record = view
    line = (
        f"The view {endpoint} named no new player, although "
        f"{many(record.in_a_row, 'visitor')} with a token posted to it: "
        f"{record.reason}."
    )
    return Health("look", line, _NAMELESS)


def _of_unsent(unsent: t.Sequence[Entry]) -> Health | None:
    if not unsent:
        return None
    why = (unsent[0].answer or "").rstrip(".")
    line = f"{many(len(unsent), 'event')} could not be sent: {why}."
    return Health("look", line, _UNSENT)


def _of_failing(failing: t.Sequence[Entry]) -> Health | None:
    if not failing:
        return None
    line = f"{many(len(failing), 'reward')} failed: {failing[0].answer}."
    return Health("look", line, _FAILING)


def _of_spool(spooled: int | None, now: int) -> Health | None:
    if spooled is None or now - spooled < _TAKEN_IN:
        return None
    line = f"Events have been in files beside the outbox for {ago(spooled, now)}."
    return Health("look", line, _SPOOLED)


def _of_unreadable(count: int) -> Health | None:
    if not count:
        return None
    line = f"{many(count, 'spooled file')} could not be imported."
    return Health("look", line, _UNREADABLE)


def _of_clock(worker: Worker | None) -> Health | None:
    if worker is None or not worker.ahead:
        return None
    side = "behind" if worker.ahead > 0 else "ahead of"
    line = f"This machine's clock is {abs(worker.ahead):.0f} s {side} MMOLove's."
    return Health("look", line, _CLOCK)


def _of_stuck(stuck: dict[EntryState, int]) -> Health | None:
    if not stuck:
        return None
    what = ", ".join(f"{count:,} {state}" for state, count in stuck.items())
    where = " and ".join(dict.fromkeys(FOR_A_PERSON[state] for state in stuck))
    return Health("look", f"Waiting for you: {what}.", f"See {where}.")


def _of_waiting(oldest: int | None, now: int) -> Health | None:
    if oldest is None or now - oldest < LONG:
        return None
    return Health("look", f"The oldest event has waited {ago(oldest, now)}.", _WAITING)


def _well(accepted: int | None, now: int) -> Health:
    if accepted is None:
        return Health("good", "All is well. MMOLove has not accepted a signup yet.")
    return Health(
        "good", f"All is well. MMOLove took a signup {ago(accepted, now)} ago."
    )


_REWARDS = (
    "Fix the callback or start the game. A reward is tried at least once a minute, and "
    "all follow by themselves as soon as one succeeds."
)
_NAMELESS = (
    "If players signed up, name them: call registered(player) in the view, or correct "
    "its @referral_register(player=...)."
)
_UNSENT = "Nothing is lost: each is sent again by itself."
_FAILING = "It is tried again by itself, at least every 15 minutes."
_ON = "Set MMOLOVE_ENABLED to true and restart the site."
_SPOOLED = (
    "'flask mmolove check' says whether the outbox can be written; then the next "
    "delivery on this machine takes them in."
)
_UNREADABLE = (
    "Their names end in .unreadable, and the log said why. Each may hold a referral: "
    "mend or remove them."
)
_CLOCK = (
    "Set the clock of this machine (NTP). Until then events are signed by MMOLove's."
)
_WAITING = (
    "Nothing is lost; 'flask mmolove events --state pending' shows its last answer, or "
    "that of the signup it waits for."
)
