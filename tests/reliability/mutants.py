"""Deliberate faults in the package, each of which a harness has to find.

A check that has never failed proves little. So each mutant breaks one rule of the
design by replacing one function, and a trial is made with it, which has to break the
promise that is at stake. The trials find a fault every time and not by luck: they are
the crash points of the phase where it lies, or a scene in which two workers or two
attempts meet in a given order. Without a mutant the same trial has to pass; the scenes
are tried so here, while the crash points and the commits have commands of their own.

``crash points``
    See ``crashpoints.py``. Only the points of the phase that is named are tried.
``each commit``
    See ``commits.py``. Where PostgreSQL is not installed, its mutants are left out.
``two at work``
    While one worker is at its post, another takes its turn. It must find nothing: an
    event is posted once, and if it is posted twice nobody was killed to excuse it.
``a late failure``
    A worker's lease ends and another claims the event; then the first one reports its
    failure. The second one's claim must stand, so a third finds nothing.
``an hour later``
    The first post of each event meets a fault. When it is posted again, the server's
    clock has moved on by an hour.
``one token, many accounts``
    Two accounts are recorded with one token. One of them is sent, and no more.
"""

from __future__ import annotations

import contextlib
import json
import typing as t
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

from example_app import servers
from flask_mmolove import Outcome
from flask_mmolove import ReferralClient
from flask_mmolove.delivery.grant import Granter
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.outbox import claims
from flask_mmolove.outbox import rules
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.sql.session import SessionOutbox
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.sqlite.store import SQLiteTransaction
from flask_mmolove.outbox.statements import Transaction
from flask_mmolove.protocol.response import Verdict
from flask_mmolove.recording.session import SessionReport
from flask_mmolove.rewards.referral import Referral
from tests.outbox.recording import add

from . import commits
from . import crashpoints
from . import processes
from .evidence import Evidence
from .report import Findings
from .report import harness
from .report import progress
from .server import Mood
from .server import StandIn
from .site import Site

#: Milliseconds; any will do.
NOW, LEASE = 1_700_000_000_000, 60_000


class Mutant(t.NamedTuple):
    """A deliberate fault.

    :param name: What it is called.
    :param rule: The rule that it breaks.
    :param breaks: Puts it into the package, for the rest of the process's life.
    :param trial: What has to find it, by its name in :data:`TRIALS`.
    :param shows: The broken promise by which it has to be found.
    """

    name: str
    rule: str
    breaks: t.Callable[[], None]
    trial: str
    shows: str


def _put(owner: t.Any, **functions: t.Any) -> None:
    for name, function in functions.items():
        setattr(owner, name, function)


class _Unseen(list[Entry]):
    """New entries that nobody is told of."""

    def __bool__(self) -> bool:
        return True


def _answers_before_the_row() -> None:
    """Keep what is added in memory, and write it at the next claim."""
    record, of = SQLiteOutbox.record, SQLiteOutbox.of
    claim = SQLiteOutbox.claim
    kept: list[t.Callable[[], object]] = []

    def write(outbox: SQLiteOutbox) -> None:
        while kept:
            kept.pop(0)()

    def later(outbox: SQLiteOutbox, *report: t.Any) -> list[Entry]:
        kept.append(partial(record, outbox, *report))
        return _Unseen()

    def write_and_claim(outbox: SQLiteOutbox, *wanted: t.Any) -> list[Entry]:
        write(outbox)
        return claim(outbox, *wanted)

    def write_and_read(
        outbox: SQLiteOutbox, *wanted: t.Any, **more: t.Any
    ) -> dict[str, Entry]:
        write(outbox)
        return of(outbox, *wanted, **more)

    _put(SQLiteOutbox, record=later, claim=write_and_claim, of=write_and_read)


def _lets_a_token_be_shared() -> None:
    """Keep no digest, so that no row owns its token."""
    insert = SQLiteTransaction._insert

    def insert_without(transaction: SQLiteTransaction, entry: Entry) -> int | None:
        return insert(transaction, entry._replace(digest=None))

    _put(SQLiteTransaction, _insert=insert_without)


def _settles_before_the_answer() -> None:
    """Settle as accepted, and post then."""
    attempt = Delivery._attempt

    def settle_first(delivery: Delivery, entry: Entry) -> tuple[Entry, Outcome | None]:
        delivery.outbox.settle(
            [Settlement(entry, "accepted", is_fact=True)], entry.due or 0
        )
        return attempt(delivery, entry)

    _put(Delivery, _attempt=settle_first)


def _pays_before_the_answer() -> None:
    """Reward when the milestone is sent, whatever MMOLove will say."""
    attempt = Delivery._attempt

    def pay_first(delivery: Delivery, entry: Entry) -> tuple[Entry, Outcome | None]:
        rewarder = delivery._reward()
        if rewarder and entry.event == "qualified":
            rewarder.prepare(entry)()
        return attempt(delivery, entry)

    _put(Delivery, _attempt=pay_first)


def _pays_before_it_is_written_down() -> None:
    """Call an at-most-once callback first, and write down then that it began."""

    def grant(granter: Granter, rewarder: t.Any, entry: Entry) -> None:
        rewarder.prepare(entry)()
        granter._settle(Settlement(entry, "rewarded", is_fact=True))

    _put(Granter, _grant=grant)


def _writes_down_before_it_pays() -> None:
    """Say that it is rewarded, and call the callback then."""

    def grant(granter: Granter, rewarder: t.Any, entry: Entry) -> None:
        granter._settle(Settlement(entry, "rewarded", is_fact=True))
        rewarder.prepare(entry)()

    _put(Granter, _grant=grant)


def _keeps_no_order() -> None:
    """A milestone is due at once, whatever became of the signup; and so is first."""

    def start(
        db: object, identity: str, name: str, test: bool, now: int
    ) -> tuple[str, int]:
        return "pending", now - (name == "qualified")

    _put(Transaction, _start=start)


def _takes_no_lease() -> None:
    """A claim lasts for no time at all."""
    claim = SQLiteOutbox.claim

    def without(
        outbox: SQLiteOutbox, state: t.Any, now: int, lease: int, *rest: t.Any
    ) -> list[Entry]:
        entries = claim(outbox, state, now, 0, *rest)
        return [entry._replace(due=now + lease) for entry in entries]

    _put(SQLiteOutbox, claim=without)


def _has_no_fence() -> None:
    """A failure is settled by whoever comes."""

    def by_anyone(settlement: Settlement, row: Entry) -> bool:
        return rules.may_settle(settlement._replace(is_fact=True), row)

    _put(claims, may_settle=by_anyone)


def _signs_once() -> None:
    """Keep the signature of a body."""
    sign = ReferralClient._sign
    signed: dict[bytes, str] = {}

    def keep(client: ReferralClient, body: bytes) -> str:
        return signed.setdefault(body, sign(client, body))

    _put(ReferralClient, _sign=keep)


def _takes_any_200() -> None:
    """Take a page of a hotel's WiFi for MMOLove's word."""
    send = ReferralClient.send

    def take(client: ReferralClient, body: bytes) -> Outcome:
        outcome = send(client, body)
        if outcome.status != 200 or outcome.ok:
            return outcome
        return outcome._replace(verdict=Verdict.ACCEPTED)

    _put(ReferralClient, send=take)


def _pays_no_duplicate() -> None:
    """Take ``duplicate`` for a sign that the reward was given."""
    send = ReferralClient.send

    def ignore(client: ReferralClient, body: bytes) -> Outcome:
        outcome = send(client, body)
        return outcome._replace(credited='"state"' in outcome.body)

    _put(ReferralClient, send=ignore)


def _changes_the_key() -> None:
    """Make a new reward key for each call."""
    from_entries = Referral.from_entries

    def rebuild(entries: t.Mapping[str, Entry]) -> Referral:
        referral = from_entries(entries)
        key = f"{referral.reward_key}-{entries['qualified'].claim}"
        return replace(referral, reward_key=key)

    _put(Referral, from_entries=staticmethod(rebuild))


def _settles_a_reward_first() -> None:
    """Write down in a transaction of its own that a reward is given, and give it."""

    def grant(
        outbox: SessionOutbox, paid: Settlement, now: int, give: t.Callable[[], t.Any]
    ) -> Entry | None:
        (changed,) = outbox._outbox.settle([paid], now)
        give()
        outbox._session.commit()
        return changed

    _put(SessionOutbox, grant=grant)


def _settles_a_reward_afterwards() -> None:
    """Give a reward, and write it down in a transaction of its own."""

    def grant(
        outbox: SessionOutbox, paid: Settlement, now: int, give: t.Callable[[], t.Any]
    ) -> Entry | None:
        give()
        outbox._session.commit()
        (changed,) = outbox._outbox.settle([paid], now)
        return changed

    _put(SessionOutbox, grant=grant)


def _records_before_the_commit() -> None:
    """Record in a transaction of its own while the site's is open."""

    def write(
        outbox: SessionOutbox, session: object, report: Report, timeout: float
    ) -> list[Entry]:
        return outbox._outbox.record(report, outbox._server_id)

    _put(SessionOutbox, write=write)


def _records_after_the_commit() -> None:
    """Record in a transaction of its own when the site's has committed."""

    def write(report: SessionReport, session: object) -> None:
        report._identify()
        report._stands_alone, report._depends = True, False

    _put(SessionReport, write=write)


def _try_two_at_work() -> Findings:
    def scene(site: Site, server: StandIn) -> None:
        site.sign_up("scene")
        first, second = site.state.make_delivery(), site.state.make_delivery()
        send = ReferralClient.send

        def meet(client: ReferralClient, body: bytes) -> Outcome:
            with mock.patch.object(ReferralClient, "send", send):
                second.step()
            return send(client, body)

        with mock.patch.object(ReferralClient, "send", meet):
            first.step()

    report = _play(scene, Mood())
    if report.counters and report.counters.duplicate_posts:
        report.faults.append("posted twice, and nobody was killed")
    return report


def _try_two_accounts() -> Findings:
    report = Findings("scene")
    with processes.scratch() as folder:
        outbox = SQLiteOutbox(folder / "outbox.db")
        for player in ("first", "second"):
            add(outbox, player, token="token", now=NOW)
        sent = outbox.claim("pending", NOW, LEASE, 9)
        outbox.close()
    if len(sent) > 1:
        report.faults.append("one token was sent for two accounts")
    return report


def _try_an_hour_later() -> Findings:
    first = crashpoints.FIRST

    def scene(site: Site, server: StandIn) -> None:
        site.sign_up("scene")
        site.state.make_delivery().step()
        server.behave(Mood(first=first, ahead=3600))
        site.qualify("scene")

    return _play(scene, Mood(first=first))


def _try_a_late_failure() -> Findings:
    report = Findings("scene")
    with processes.scratch() as folder:
        outbox = SQLiteOutbox(folder / "outbox.db")
        add(outbox, "scene", now=NOW)
        (first,) = outbox.claim("pending", NOW, LEASE, 1)
        (second,) = outbox.claim("pending", NOW + LEASE, LEASE, 1)
        outbox.settle([Settlement(first, "pending", NOW + LEASE)], NOW + LEASE)
        third = outbox.claim("pending", NOW + LEASE + 1, LEASE, 1)
        outbox.close()
    if third:
        report.faults.append(f"claimed twice, while {second} was being sent")
    return report


def _play(scene: t.Callable[[Site, StandIn], None], mood: Mood) -> Findings:
    """Play a scene, deliver what is left, and compare."""
    with processes.scratch() as folder, StandIn(mood) as server:
        site = Site(folder, server.endpoint)

        def play() -> None:
            scene(site, server)
            site.drain(crashpoints.TURNS)

        processes.was_killed(processes.fork(play))
        evidence = Evidence.of(folder)
        site.close()
        counters = evidence.weigh(server.history())
    return Findings("scene", counters, faults=evidence.faults())


def _crash(phase: str, at_most_once: bool = False) -> t.Callable[[], Findings]:
    return partial(crashpoints.run, only=(phase,), at_most_once=(at_most_once,))


Trials = dict[str, t.Callable[[], Findings]]

SCENES: Trials = {
    "two at work": _try_two_at_work,
    "a late failure": _try_a_late_failure,
    "an hour later": _try_an_hour_later,
    "one token, many accounts": _try_two_accounts,
}

TRIALS: Trials = {
    "crash points: acknowledgement": _crash("acknowledgement"),
    "crash points: post": _crash("post"),
    "crash points: effect": _crash("effect"),
    "crash points, at most once: effect": _crash("effect", at_most_once=True),
    **SCENES,
}

MUTANTS = [
    Mutant(
        "answer before the row",
        "What is acknowledged is on disk.",
        _answers_before_the_row,
        "crash points: acknowledgement",
        "lost",
    ),
    Mutant(
        "settle before the answer",
        "An event is accepted when MMOLove accepts it.",
        _settles_before_the_answer,
        "crash points: post",
        "lost",
    ),
    Mutant(
        "pay before the answer",
        "A reward is due when MMOLove has credited it.",
        _pays_before_the_answer,
        "crash points, at most once: effect",
        "double rewards",
    ),
    Mutant(
        "pay before the settle",
        "At most once: it is written down, then called.",
        _pays_before_it_is_written_down,
        "crash points, at most once: effect",
        "double rewards",
    ),
    Mutant(
        "pay after the settle",
        "At least once: it is called, then written down.",
        _writes_down_before_it_pays,
        "crash points: effect",
        "missing rewards",
    ),
    Mutant(
        "no order",
        "A milestone waits until the signup is accepted.",
        _keeps_no_order,
        "crash points: acknowledgement",
        "order inversions",
    ),
    Mutant(
        "no lease",
        "A claim is for one worker alone.",
        _takes_no_lease,
        "two at work",
        "posted twice",
    ),
    Mutant(
        "no fence",
        "A failure is settled by the claim's holder only.",
        _has_no_fence,
        "a late failure",
        "claimed twice",
    ),
    Mutant(
        "a token for everyone",
        "A token belongs to the first account.",
        _lets_a_token_be_shared,
        "one token, many accounts",
        "one token was sent",
    ),
    Mutant(
        "sign once",
        "Each attempt is signed again.",
        _signs_once,
        "an hour later",
        "lost",
    ),
    Mutant(
        "200 without ok",
        "A 200 counts with 'ok: true' only.",
        _takes_any_200,
        "an hour later",
        "lost",
    ),
    Mutant(
        "no reward for a duplicate",
        "A duplicate is paid unless our ledger has paid it.",
        _pays_no_duplicate,
        "crash points: post",
        "missing rewards",
    ),
    Mutant(
        "a new key for each call",
        "The reward key of a referral never changes.",
        _changes_the_key,
        "crash points: effect",
        "double rewards",
    ),
    Mutant(
        "settle a reward first",
        "Exactly once: it is written down with the gift.",
        _settles_a_reward_first,
        "each commit: reward",
        "missing rewards",
    ),
    Mutant(
        "settle a reward afterwards",
        "Exactly once: it is written down with the gift.",
        _settles_a_reward_afterwards,
        "each commit: reward",
        "double rewards",
    ),
    Mutant(
        "record before the commit",
        "No event without its account.",
        _records_before_the_commit,
        "each commit: signup",
        "events without change",
    ),
    Mutant(
        "record after the commit",
        "No account without its event.",
        _records_after_the_commit,
        "each commit: signup",
        "changes without event",
    ),
]


def run() -> Findings:
    """Put a deliberate fault into the package and see whether it is found."""
    report = Findings("mutants")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(processes.scratch())
        trials = {**TRIALS, **_on_postgresql(stack)}
        sound = [Mutant("none", "", _breaks_nothing, name, "") for name in SCENES]
        mutants = [mutant for mutant in MUTANTS if mutant.trial in trials]
        for mutant in progress([*sound, *mutants], "Mutating"):
            broken = _try(mutant, trials[mutant.trial], folder / "broken")
            found = [each for each in broken if each.startswith(mutant.shows)]
            report.rows.append(
                {
                    "mutant": mutant.name,
                    "trial": mutant.trial,
                    "found": (found or broken or ["nothing"])[0],
                    "rule": mutant.rule,
                }
            )
            if mutant.shows and not found:
                report.faults.append(f"{mutant.name}: not found by {mutant.trial}")
            elif broken and not mutant.shows:
                report.faults.append(f"without a mutant, {mutant.trial}: {broken[0]}")
    report.figures = {
        "mutants": len(mutants),
        "found": len(mutants) - sum("not found" in each for each in report.faults),
    }
    return report


def _on_postgresql(stack: contextlib.ExitStack) -> Trials:
    try:
        url = stack.enter_context(servers.postgresql())
    except servers.Missing:
        return {}
    run = partial(commits.run, url.render_as_string(hide_password=False))
    return {
        f"each commit: {chapter}": partial(run, only=(chapter,))
        for chapter in ("signup", "reward")
    }


def _breaks_nothing() -> None:
    pass


def _try(mutant: Mutant, trial: t.Callable[[], Findings], result: Path) -> list[str]:
    """Make the trial in a child, for the fault stays in its process."""

    def work() -> None:
        mutant.breaks()
        result.write_text(json.dumps(trial().broken))

    processes.was_killed(processes.fork(work))
    return t.cast("list[str]", json.loads(result.read_text()))


command = harness()(run)
