"""Whether a site loses referrals or lets them wait, and what to do about it."""

from __future__ import annotations

import typing as t

from ..delivery.watchdog import ACTIONS
from ..errors import OutboxError
from ..outbox.breaker import Breaker
from ..outbox.entry import Entry
from ..outbox.friends import Round
from ..outbox.inspector import Inspector
from ..outbox.inspector import Worker
from ..outbox.reward_breaker import RewardBreaker
from ..outbox.rules import next_attempt
from ..outbox.states import EntryState
from ..protocol.response import response_line
from ..recording.views import IN_A_ROW
from ..recording.views import Record
from ..registration.misplaced import undecorated
from ..state import State
from ..text import printable
from .wording import ago
from .wording import counted
from .wording import MANY
from .wording import NEEDS_ACTION
from .wording import plural

# Milliseconds for which something may be due before delivery counts as stalled.
_STALLED = 2 * 60_000

# The same where a message wakes a worker at once, and a sweep each ten seconds.
_STALLED_CELERY = 45_000

# Milliseconds for which an event may wait before that is worth a warning.
_LONG = 15 * 60_000

# The same for the spool, which a delivery imports before all else.
_SPOOLED_LONG = 60_000

Level = t.Literal["ok", "warning", "critical"]


class Health(t.NamedTuple):
    """One finding about a site's referrals.

    :param level: ``ok``; ``warning`` if something is odd or waits for the owner, and
        the rest goes on; ``critical`` if nothing gets through.
    :param summary: What was found, in a sentence.
    :param action: What to do about it, if anything.
    :param states: The states of the events that it is about. The dashboard links to
        them.
    :param on_page: What the dashboard says instead, which names no command: there are
        links for that.
    """

    level: Level
    summary: str
    action: str = ""
    states: tuple[EntryState, ...] = ()
    on_page: str | None = None

    @property
    def action_on_page(self) -> str:
        """What to do about it, as the dashboard says it."""
        return self.action if self.on_page is None else self.on_page

    def __str__(self) -> str:
        return printable(f"{self.summary} {self.action}".rstrip())


class Signs(t.NamedTuple):
    """What health is judged by. Times are integer milliseconds.

    :param due: When the next thing is due.
    :param oldest: When the oldest pending event was recorded.
    :param spooled: When the oldest file in this machine's spool was written.
    :param accepted: When MMOLove last accepted a signup.
    :param stuck: How many events wait for the owner, by state; see :data:`.MANY`.
    :param rejected: The newest event that was rejected.
    :param unsent: The events whose last attempt failed, and that are retried.
    :param failing: The rewards whose callback failed, and that are retried.
    :param nameless: The signup views that named nobody, although visitors with a token
        posted to them, and why.
    :param asked: The last round of the milestone callback; None if the site has none.
    :param unreadable: Spooled files that could not be imported.
    """

    breaker: Breaker
    worker: Worker | None
    due: int | None
    oldest: int | None
    spooled: int | None
    accepted: int | None
    stuck: dict[EntryState, int]
    rejected: t.Sequence[Entry] = ()
    rewards: RewardBreaker = RewardBreaker()
    unsent: t.Sequence[Entry] = ()
    failing: t.Sequence[Entry] = ()
    unreadable: int = 0
    nameless: t.Mapping[str, Record] = {}
    asked: Round | None = None


class Stuck(t.NamedTuple):
    """The events of a state that wait for the owner.

    :param total: How many there are; see :data:`.MANY`.
    :param newest: Some of them.
    """

    state: EntryState
    total: int
    newest: list[Entry]


def examine(state: State, now: int) -> Health:
    """The worst finding of :func:`survey`.

    :param now: The time, in milliseconds.
    """
    return survey(state, now)[0]


def survey(state: State, now: int) -> list[Health]:
    """Everything that is wrong with an app's referrals, the worst first; or one finding
    that is ``ok``.

    :param now: The time, in milliseconds.
    """
    if not state.settings.enabled:
        summary = "Switched off: nothing is captured, stored or sent."
        return [Health("warning", summary, _SWITCH_ON)]
    found = [*check_settings(state), *check_outbox(state, now)]
    order: list[Level] = ["critical", "warning", "ok"]
    found.sort(key=lambda health: order.index(health.level))
    return [health for health in found if health.level != "ok"] or found


def check_settings(state: State) -> t.Iterator[Health]:
    """What is wrong with the settings, whatever has happened so far."""
    if not state.app.secret_key:
        summary = "Tokens cannot be kept: the site has no SECRET_KEY."
        yield Health("critical", summary, "Set app.config['SECRET_KEY'].")
    if state.callbacks.replaced:
        summary = (
            "The site has more than one reward callback, and only the last is called."
        )
        yield Health("warning", summary, "Call all of them from one function.")
    if state.settings.test:
        summary = "Every event is a dry run: nobody is counted or rewarded."
        yield Health("warning", summary, "To go live, set MMOLOVE_TEST to false.")


def check_outbox(state: State, now: int) -> list[Health]:
    """What is wrong with what has happened so far; or one finding that is ``ok``."""
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
            inspector.page(state="rejected", limit=1),
            state.outbox.reward_breaker(state.timeout),
            inspector.failing_events(),
            inspector.failing_rewards(),
            state.spool.unreadable(),
            find_nameless(read_views(state)),
            state.outbox.round(state.timeout) if state.asker.has_callback else None,
        )
    except OutboxError as e:
        return [unreadable_outbox(e)]
    return judge(signs, now, state.settings.delivery)


def unreadable_outbox(error: OutboxError) -> Health:
    """The finding where there is no other, because the outbox cannot be read."""
    return Health("critical", "The outbox cannot be read.", str(error))


def read_views(state: State) -> dict[str, Record]:
    """What is known of each signup view, but not of one that is none any more.

    :raises OutboxError: If it cannot be read.
    """
    others = undecorated(state.app)
    records = state.views.read()
    return {name: records[name] for name in records if name not in others}


def find_nameless(records: t.Mapping[str, Record]) -> dict[str, Record]:
    """The views that name nobody although they seem to sign players up."""
    return {
        endpoint: record
        for endpoint, record in records.items()
        if record.in_a_row >= (IN_A_ROW if record.named else 1)
    }


def count_stuck(inspector: Inspector) -> dict[EntryState, int]:
    """How many events wait for the owner, by state; see :data:`.MANY`."""
    counts = {state: inspector.count(state, MANY) for state in NEEDS_ACTION}
    return {state: count for state, count in counts.items() if count}


def find_stuck(inspector: Inspector, limit: int) -> list[Stuck]:
    """What waits for the owner, by state.

    :param limit: How many entries of each.
    """
    return [
        Stuck(state, count, inspector.page(state=state, limit=limit))
        for state, count in count_stuck(inspector).items()
    ]


def planned(state: State, entry: Entry, now: int) -> int | None:
    """When an entry is next sent, or its reward granted; None if nothing is planned.

    :param now: The time, in milliseconds.
    """
    if entry.due is None:
        return None
    breaker = state.outbox.breaker(state.timeout)
    return next_attempt(entry, breaker, state.outbox.reward_breaker(state.timeout), now)


def judge(signs: Signs, now: int, delivery: str) -> list[Health]:
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
        _of_stuck(signs.stuck, signs.rejected),
        # The breaker's reason says the same.
        None if signs.breaker.open_since else _of_unsent(signs.unsent),
        None if signs.rewards.open_since else _of_failing(signs.failing),
        _of_round(signs, now, delivery),
        *map(_of_nameless, signs.nameless.items()),
    ]
    found = [health for health in trouble if health is not None]
    # Any other finding explains the wait.
    waiting = None if found else _of_waiting(signs.oldest, now)
    return found or [waiting or _ok(signs.accepted, now)]


def _of_breaker(breaker: Breaker, now: int) -> Health | None:
    if breaker.open_since is None:
        return None
    since = ago(breaker.open_since, now)
    wait = breaker.wait(now) // 1000
    when = f"in {wait} s" if wait else "with the next delivery"
    action = f"{breaker.reason} Nothing is lost. The next attempt is made {when}"
    if breaker.refusals:
        summary = f"MMOLove has refused this site's events for {since}."
    elif breaker.status:
        summary = f"MMOLove has been failing for {since}."
    else:
        summary = f"MMOLove has been unreachable for {since}."
    full = f"{action}; {_AT_ONCE}."
    return Health("critical", summary, full, ("pending",), f"{action}.")


def _of_worker(signs: Signs, now: int, delivery: str) -> Health | None:
    by_celery = delivery == "celery"
    if signs.due is None:
        return None
    if now - signs.due <= (_STALLED_CELERY if by_celery else _STALLED):
        return None
    # A worker seen earlier may have been restarted since, with other queues.
    since = max(signs.due, now - _STALLED) if by_celery else now - _STALLED
    if signs.worker is not None and signs.worker.seen >= since:
        return None  # it is working through a backlog
    seen = signs.worker and ago(signs.worker.seen, now)
    last = f"a worker was last seen {seen} ago" if seen else "no worker was ever seen"
    due = ago(signs.due, now)
    summary = f"Delivery has stalled: an event has been due for {due}, and {last}."
    return Health("critical", summary, ACTIONS[delivery])


def _of_rewards(rewards: RewardBreaker, now: int) -> Health | None:
    if rewards.open_since is None:
        return None
    summary = (
        f"Rewards have been paused for {ago(rewards.open_since, now)}, because the "
        f"reward callback fails each time: {rewards.reason}."
    )
    return Health("critical", summary, _REWARDS)


def _of_nameless(view: tuple[str, Record]) -> Health:
    endpoint, record = view
    summary = (
        f"The view {endpoint} named no new player, although "
        f"{plural(record.in_a_row, 'visitor')} with a token posted to it: "
        f"{record.reason}."
    )
    return Health("warning", summary, _NAMELESS)


def _of_unsent(unsent: t.Sequence[Entry]) -> Health | None:
    if not unsent:
        return None
    why = response_line(unsent[0].status, unsent[0].answer).rstrip(".")
    summary = f"{plural(len(unsent), 'event')} could not be sent: {why}."
    return Health("warning", summary, _UNSENT, ("pending",))


def _of_failing(failing: t.Sequence[Entry]) -> Health | None:
    if not failing:
        return None
    summary = f"{plural(len(failing), 'reward')} failed: {failing[0].answer}."
    action = f"{_FAILING} Once the cause is fixed, {_AT_ONCE}."
    return Health("warning", summary, action, ("accepted",), _FAILING)


def _of_round(signs: Signs, now: int, delivery: str) -> Health | None:
    asked = signs.asked
    if asked is None:
        return None
    if asked.error is not None:
        summary = f"The milestone callback fails: {asked.error}."
        return Health("warning", summary, _ASKING)
    # Nobody knows since when the site has a callback that was never called.
    due = asked.due or signs.accepted or signs.oldest or now
    if now - due <= _LONG:
        return None
    last = f"the last time was {ago(asked.ended, now)} ago" if asked.ended else "never"
    summary = f"The milestone callback is not called: {last}."
    return Health("warning", summary, ACTIONS[delivery])


def _of_spool(spooled: int | None, now: int) -> Health | None:
    if spooled is None or now - spooled < _SPOOLED_LONG:
        return None
    summary = f"Events have been in the spool for {ago(spooled, now)}."
    action = f"{_SPOOLED} {_WRITABLE}"
    return Health("warning", summary, action, on_page=_SPOOLED)


def _of_unreadable(count: int) -> Health | None:
    if not count:
        return None
    summary = f"{plural(count, 'spooled file')} could not be imported."
    return Health("warning", summary, _UNREADABLE)


def _of_clock(worker: Worker | None) -> Health | None:
    if worker is None or not worker.ahead:
        return None
    side = "behind" if worker.ahead > 0 else "ahead of"
    summary = f"This machine's clock is {abs(worker.ahead):.0f} s {side} MMOLove's."
    return Health("warning", summary, _CLOCK)


def _of_stuck(
    stuck: dict[EntryState, int], rejected: t.Sequence[Entry]
) -> Health | None:
    if not stuck:
        return None
    what = ", ".join(
        f"{counted(count)} {state.replace('_', ' ' if count == 1 else 's ')}"
        for state, count in stuck.items()
    )
    where = " and ".join(dict.fromkeys(NEEDS_ACTION[state] for state in stuck))
    why = "".join(f" ({response_line(e.status, e.answer)})" for e in rejected)
    summary = f"Waiting for you: {what}{why}."
    return Health("warning", summary, f"See {where}.", tuple(stuck), on_page="")


def _of_waiting(oldest: int | None, now: int) -> Health | None:
    if oldest is None or now - oldest < _LONG:
        return None
    summary = f"The oldest event has waited for {ago(oldest, now)}."
    return Health("warning", summary, _WAITING, ("pending",), "Nothing is lost.")


def _ok(accepted: int | None, now: int) -> Health:
    last = "has not accepted a signup yet"
    if accepted is not None:
        last = f"accepted a signup {ago(accepted, now)} ago"
    return Health("ok", f"Everything works. MMOLove {last}.")


_REWARDS = (
    "Fix the callback or start the game. A reward is retried at least once a minute, "
    "and the others follow as soon as one succeeds."
)
_NAMELESS = (
    "If players signed up, name them: call registered(player) in the view, or correct "
    "its @referral_register(player=...)."
)
_UNSENT = "Nothing is lost: each is retried automatically."
_FAILING = "Each is retried automatically, at least every 15 minutes."
_AT_ONCE = "'flask mmolove deliver --now' makes an attempt at once"
_ASKING = "No milestone is lost: it is called again, after at most an hour."
_SWITCH_ON = "Set MMOLOVE_ENABLED to true and restart the site."
_SPOOLED = "The next delivery on this machine imports them, if it can write the outbox."
_WRITABLE = "'flask mmolove check' tells whether it can be written."
_UNREADABLE = (
    "Their names end in .unreadable, and the log said why. Each may hold a referral: "
    "repair or remove them."
)
_CLOCK = (
    "Set this machine's clock (NTP). Until then events are signed with MMOLove's time."
)
_WAITING = (
    "Nothing is lost; 'flask mmolove events --state pending' shows the last response, "
    "or that of the signup it waits for."
)
