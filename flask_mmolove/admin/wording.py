"""The wording that the dashboard and the command line share."""

from __future__ import annotations

import typing as t

from ..delivery.events import NO_CALLBACK
from ..outbox.entry import Entry
from ..outbox.states import EntryState
from ..protocol.response import meaning_of

EVENTS = ("registered", "qualified")

#: What each state means to the owner of a site.
STATES: dict[EntryState, str] = {
    "pending": "not delivered yet",
    "accepted": "accepted by MMOLove",
    "rewarded": "the reward was granted",
    "ignored": "another referrer or another account came first",
    "rejected": "refused by MMOLove, or retried for too long",
    "reward_unconfirmed": "nobody knows whether the reward was granted",
    "reward_failed": "the reward callback failed, or there is none",
}

#: The states that wait for the owner, and the command that shows them.
NEEDS_ACTION: dict[EntryState, str] = {
    "rejected": "'flask mmolove retry --list'",
    "reward_unconfirmed": "'flask mmolove rewards'",
    "reward_failed": "'flask mmolove rewards'",
}

#: Where counts of events stop on pages that are to be there at once.
MANY = 5_000

_UNCOUNTED = (
    f"Of the pending and of the rejected events only the newest {MANY:,} are counted "
    "as signed up."
)

_UNKNOWN_TOKEN = (
    "MMOLove does not know this player's token. If other events are accepted, the "
    "settings are right and the token was junk or too old: dismiss the event on the "
    "dashboard, or with 'flask mmolove forget PLAYER'. If none is, compare "
    "MMOLOVE_SERVER_ID with the Referrals tab."
)

_SECOND = (
    "A token counts once, and another account was reported with this one before. This "
    "player was not reported to MMOLove, and there is no reward for the milestone."
)

_REGISTER_REWARD = (
    "Register an @mmolove.reward, then have the reward granted on the dashboard, or "
    "with 'flask mmolove rewards --retry ID'."
)

_UNREFERRED = (
    "{} of the last 30 days had no known referrer: such a friend did not come by a "
    "link of mmolove.invite(), so the callback got referrer=None."
)

_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


def ago(moment: int, now: int) -> str:
    """How long something has lasted, in the largest unit of which there are two.

    :param moment: When it began, in milliseconds.
    :param now: The time, in milliseconds.
    """
    return _span(now - moment)


def _span(milliseconds: int) -> str:
    seconds = max(0, milliseconds) // 1000
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return plural(seconds, "second")


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def counted(count: int) -> str:
    """A count that stops at :data:`MANY`."""
    return f"{count:,}" if count < MANY else f"{MANY:,} or more"


def approximate(arrivals: int) -> str:
    """What to say of arrivals."""
    return "Arrivals by link are approximate." if arrivals else ""


def uncounted(*counts: int) -> str:
    """What to say below the funnel of signups that it leaves out.

    :param counts: How many events are pending, and how many rejected.
    """
    return _UNCOUNTED if max(counts) >= MANY else ""


def attempts(entry: Entry) -> str:
    """How often an event was sent or its reward tried, and how many of those attempts
    were interrupted. Once MMOLove has credited a milestone, only attempts to grant its
    reward count.
    """
    others = ("pending", "ignored", "rejected")
    is_of_reward = entry.event == "qualified" and entry.state not in others
    text = f"{entry.attempts}{' to grant the reward' if is_of_reward else ''}"
    return f"{text}, {entry.crashes} interrupted" if entry.crashes else text


def next_step(entry: Entry, planned: int | None, now: int) -> str:
    """What happens next with an event, and when.

    :param planned: When something does, in milliseconds; None if nothing is planned.
    :param now: The time, in milliseconds.
    """
    deed = "it is sent" if entry.state == "pending" else "its reward is tried"
    is_held = entry.claim is not None or entry.state == "reward_unconfirmed"
    if is_held and (entry.due or 0) > now:
        return f"At this moment {deed}."
    if planned is not None:
        again = " again" if entry.attempts else ""
        moment = f"in {_span(planned - now)}" if planned >= now + 1000 else "now"
        return f"{deed.capitalize()}{again} {moment}."
    if entry.state in NEEDS_ACTION:
        return "Nothing, until you act."
    return hint(entry) if entry.state == "pending" else "Nothing: this event is done."


def state_of(entry: Entry) -> str:
    """The state of an entry, and whether it is a dry run."""
    return f"{entry.state} (dry run)" if entry.test else entry.state


def hint(entry: Entry) -> str:
    """What to do about an entry, if anything."""
    if entry.state == "rejected" and entry.status == 404:
        return _UNKNOWN_TOKEN
    if entry.state == "rejected" and entry.status:
        return meaning_of(entry.status)[1]
    if entry.is_second:
        return _SECOND
    if entry.state == "pending" and entry.due is None:
        return "It waits until its player's 'registered' is accepted."
    if entry.state == "reward_failed" and entry.answer == NO_CALLBACK:
        return _REGISTER_REWARD
    if entry.state in ("reward_unconfirmed", "reward_failed"):
        return "Check in the game whether the reward was granted, then settle it."
    return ""


def unreferred(rewards: int) -> str:
    """What to say of rewards without a referrer."""
    return _UNREFERRED.format(plural(rewards, "reward")) if rewards else ""


def retried(count: int) -> str:
    """What was done to rejected events."""
    if not count:
        return "No rejected event was found."
    return f"{plural(count, 'rejected event')} will be sent again."


def rewards_retried(count: int) -> str:
    """What was done to rewards that failed."""
    if not count:
        return "No failed reward was found."
    return f"{plural(count, 'failed reward')} will be granted with the next delivery."


def settled(id: int, *, granted: bool) -> str:
    """What was done to the reward of an event."""
    if granted:
        return f"The reward of event {id} is recorded as granted."
    return f"The reward of event {id} will be granted with the next delivery."


def data(entry: Entry) -> dict[str, t.Any]:
    """An entry for programs: without its token, times in milliseconds."""
    names = ("id", "event", "identity", "test", "state", "attempts", "due")
    more = ("recorded", "settled", "status", "answer", "referral_id", "referrer")
    return {name: getattr(entry, name) for name in (*names, *more)}
