"""How the page and the command line say things, so that they say the same."""

from __future__ import annotations

import typing as t

from ..delivery.events import NO_CALLBACK
from ..outbox import Entry
from ..outbox.entry import EntryState
from ..protocol.client import meaning_of

#: What each state means to the owner of a site.
STATES: dict[EntryState, str] = {
    "pending": "to be sent",
    "accepted": "taken by MMOLove",
    "rewarded": "the reward is settled",
    "ignored": "another referrer, or another account, was first",
    "rejected": "refused by MMOLove, or given up",
    "reward_unconfirmed": "a reward in doubt: was it given?",
    "reward_failed": "a reward that was set aside",
}

#: The states that wait for a person, and the command that shows them.
FOR_A_PERSON: dict[EntryState, str] = {
    "rejected": "'flask mmolove retry --list'",
    "reward_unconfirmed": "'flask mmolove rewards'",
    "reward_failed": "'flask mmolove rewards'",
}

_UNKNOWN = (
    "MMOLove does not know this player's token. Where other events are accepted, the "
    "settings are right and the token was junk or too old: 'flask mmolove forget "
    "PLAYER' puts it away. Where none is, compare MMOLOVE_SERVER_ID with the Referrals "
    "tab."
)

_SECOND = (
    "A token counts once, and another account was reported with this one before. This "
    "player was not reported to MMOLove, and nothing is given for the milestone."
)

#: What to say of rewards without a referrer.
UNREFERRED = (
    "{} of the last 30 days had no known referrer: those friends came by another link "
    "than that of mmolove.invite(), and the callback got referrer=None."
)

_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


def ago(moment: int, now: int) -> str:
    """How long something has lasted, in the largest unit of which there are two.

    :param moment: When it began, in milliseconds.
    :param now: The time, in milliseconds.
    """
    seconds = max(0, now - moment) // 1000
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} second{'s' * (seconds != 1)}"


def many(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def attempts(entry: Entry) -> str:
    """How often an event was sent or its reward tried, and how often that was cut
    off. Once MMOLove has credited a milestone, the attempts to grant its reward count.
    """
    is_of_reward = entry.event == "qualified" and entry.state not in (
        "pending",
        "ignored",
        "rejected",
    )
    words = f"{entry.attempts}{' of the reward' if is_of_reward else ''}"
    return f"{words}, {entry.crashes} of them cut off" if entry.crashes else words


def hint(entry: Entry) -> str:
    """What is to be done about an entry, if anything is."""
    if entry.state == "rejected" and entry.status == 404:
        return _UNKNOWN
    if entry.state == "rejected" and entry.status:
        return meaning_of(entry.status)[1]
    if entry.is_second:
        return _SECOND
    if entry.state == "pending" and entry.due is None:
        return "It waits until its player's 'registered' is accepted."
    if entry.state == "reward_failed" and entry.answer == NO_CALLBACK:
        return "Register an @mmolove.reward, then 'flask mmolove rewards --again ID'."
    if entry.state in ("reward_unconfirmed", "reward_failed"):
        return "Check in the game whether the reward was given, then say which it is."
    return ""


def data(entry: Entry) -> dict[str, t.Any]:
    """An entry for programs: without its token, times in milliseconds."""
    names = ("id", "event", "identity", "test", "state", "attempts", "due")
    more = ("recorded", "settled", "status", "answer", "referral_id", "referrer")
    return {name: getattr(entry, name) for name in (*names, *more)}
