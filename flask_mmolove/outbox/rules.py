"""What every store decides alike, whatever it keeps its rows in."""

from __future__ import annotations

import itertools
import json
import secrets
import typing as t

from ..protocol.response import meaning_of
from ..protocol.response import Verdict
from ..protocol.wire import Event
from ..protocol.wire import TOKEN_LIFETIME
from .breaker import Breaker
from .entry import ANSWER_LENGTH
from .entry import ANSWERS_AT_MOST
from .entry import Entry
from .entry import Settlement
from .reward_breaker import RewardBreaker
from .states import EntryState
from .tokens import digest_of
from .tokens import TOKEN_USED

#: No ``due`` lies further ahead: one that does was set by a clock since put right.
HORIZON = 6 * 3_600_000

#: Milliseconds for which an invitation is held.
HELD_FOR = TOKEN_LIFETIME * 1000

#: The state that a sure settlement may find besides the claim's own: someone's later
#: claim failed, and was wrong.
REFUTED: dict[EntryState, EntryState] = {
    "pending": "rejected",
    "accepted": "reward_failed",
    "reward_unconfirmed": "reward_unconfirmed",
}

#: A state and ``due``.
Start = tuple[EntryState, int | None]

#: What becomes of a player's ``qualified``: its state, ``due``, and if it is a dry run.
Milestone = tuple[EntryState, int | None, bool]


def begin(name: str, registered: EntryState | None, now: int) -> Start:
    """What an event begins with.

    :param registered: For a ``qualified``, the state of its player's ``registered``.
    """
    if name == "registered":
        return "pending", now
    if registered == "ignored":
        return "ignored", None
    return "pending", now if registered == "accepted" else None


def new_entry(
    identity: str, event: Event, start: Start, now: int, referrer: str | None = None
) -> Entry:
    """An entry that has no id yet.

    :param start: See :func:`begin`.
    :param referrer: Who invited the player; nobody invites themselves.
    """
    state, due = start
    return Entry(
        id=0,
        identity=identity,
        event=event.event,
        test=event.test,
        token=event.token,
        server_id=event.server_id,
        body=event.encode(),
        state=state,
        due=due,
        claim=None,
        attempts=0,
        crashes=0,
        recorded=now,
        begun=0,
        settled=None,
        status=None,
        answer=None,
        referral_id=None,
        referrer=None if referrer == identity else referrer,
        history=None,
        digest=digest_of(event),
    )


def as_second(entry: Entry) -> Entry:
    """A ``registered`` whose token belongs to another account: it is never sent."""
    return entry._replace(
        state="ignored",
        due=None,
        claim=None,
        settled=entry.recorded,
        status=None,
        answer=TOKEN_USED,
        digest=None,
    )


def isolate_crashed(entries: list[Entry]) -> list[Entry]:
    """The first entry alone if it crashed before, else all up to one that did."""
    if entries and entries[0].claim is not None:
        return entries[:1]
    return list(itertools.takewhile(lambda entry: entry.claim is None, entries))


def as_claimed(entries: list[Entry], now: int, lease: int, uptime: int) -> list[Entry]:
    """Entries as one new claim leaves them.

    :param uptime: The breaker's.
    """
    claim = secrets.token_hex(8)
    return [
        entry._replace(
            due=now + lease,
            claim=claim,
            attempts=entry.attempts + 1,
            crashes=entry.crashes + bool(entry.claim),
            begun=entry.begun or uptime,
        )
        for entry in entries
    ]


def may_settle(settlement: Settlement, row: Entry) -> bool:
    """Whether a settlement may be written, as its row is now."""
    entry = settlement.entry
    if settlement.is_fact:
        return row.state in (entry.state, REFUTED[entry.state])
    return (row.state, row.claim) == (entry.state, entry.claim)


def settlement_columns(settlement: Settlement, now: int) -> dict[str, t.Any]:
    """The columns that a settlement writes; a ``referral_id`` of None changes none."""
    entry = settlement.entry
    return {
        "state": settlement.state,
        "due": settlement.due,
        "claim": None,
        "settled": now,
        "status": settlement.status,
        "answer": _storable(settlement.answer),
        "referral_id": _storable(settlement.referral_id),
        "history": _history(entry),
        "took": settlement.took,
        "attempts": 0 if settlement.resets_attempts else entry.attempts,
        "crashes": 0 if settlement.resets_attempts else entry.crashes,
        "begun": 0 if settlement.resets_attempts else entry.begun,
    }


def decision(entry: Entry, state: EntryState, now: int) -> Settlement:
    """How a reward is settled that a person has decided on.

    :param state: ``rewarded``, or ``accepted`` to have it granted now.
    """
    granted = state == "rewarded"
    return Settlement(
        entry,
        state,
        due=None if granted else now,
        resets_attempts=True,
        answer="a person: it was given" if granted else "a person: give it now",
    )


def milestones(changed: t.Iterable[Entry], now: int) -> dict[Milestone, list[str]]:
    """What becomes of the ``qualified`` that waits for one of these as its
    ``registered``, with the players for whom that holds.
    """
    players: dict[Milestone, list[str]] = {}
    for entry in changed:
        if entry.event == "registered" and entry.state in ("accepted", "ignored"):
            milestone = *begin("qualified", entry.state, now), entry.test
            players.setdefault(milestone, []).append(entry.identity)
    return players


def refused(rejected: t.Iterable[Entry]) -> list[Entry]:
    """Those of the rejected entries that were so as wrong settings have it."""
    return [
        entry
        for entry in rejected
        if entry.status and meaning_of(entry.status)[0] is Verdict.REFUSED
    ]


def wrongly_rejected(rejected: t.Iterable[Entry], breaker: Breaker) -> list[Entry]:
    """The rejected entries for which the settings turn out to be at fault."""
    if breaker.refused_since is None:
        return []
    since = breaker.refused_since
    return [entry for entry in refused(rejected) if since <= (entry.settled or 0)]


def next_attempt(
    entry: Entry, breaker: Breaker, rewards: RewardBreaker, now: int
) -> int | None:
    """When an entry is next sent, or its reward granted; None if nothing is planned."""
    if entry.due is None or entry.state not in ("pending", "accepted"):
        return None
    pause = breaker if entry.state == "pending" else rewards
    return max(entry.due, now + pause.wait(now))


def soonest(
    pending: int | None, accepted: int | None, breaker: Breaker, now: int
) -> int | None:
    """When something is next to be done.

    :param pending: The first ``due`` of what is to be sent.
    :param accepted: The first ``due`` of what is to be rewarded.
    """
    if pending is not None and not breaker.room(now, lambda: 0, 1):
        # A breaker without room says when there will be some.
        pending = max(pending, breaker.not_before)
    first = min((due for due in (pending, accepted) if due is not None), default=None)
    return now if first and first > now + HORIZON else first


def _history(entry: Entry) -> str | None:
    """The last answers, among them MMOLove's last one: a reward that keeps failing
    must not push out what MMOLove said.
    """
    answers = entry.answers
    kept = answers[-ANSWERS_AT_MOST:]
    sent = [answer for answer in answers if answer.status is not None]
    if sent and sent[-1] not in kept:
        kept[0] = sent[-1]
    return json.dumps(kept) if kept else None


def _storable(text: str | None) -> str | None:
    """A text of someone else's, without what a database refuses: an answer that could
    not be written down would be asked for again for ever.
    """
    if text is None:
        return None
    whole = text.encode("utf-8", "replace").decode()
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")[:ANSWER_LENGTH]
