from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy import create_engine
from sqlalchemy import event as events_of
from sqlalchemy import insert
from sqlalchemy import inspect
from sqlalchemy import MetaData
from sqlalchemy import update
from sqlalchemy import URL

from example_app import servers
from flask_mmolove import ConfigError
from flask_mmolove import EventError
from flask_mmolove import OutboxBusy
from flask_mmolove import OutboxError
from flask_mmolove.outbox import Breaker
from flask_mmolove.outbox import Day
from flask_mmolove.outbox import Entry
from flask_mmolove.outbox import EntryState
from flask_mmolove.outbox import Invitation
from flask_mmolove.outbox import Outbox
from flask_mmolove.outbox import Settlement
from flask_mmolove.outbox import store
from flask_mmolove.outbox import Worker
from flask_mmolove.outbox.counters import reached
from flask_mmolove.outbox.entry import make_event
from flask_mmolove.outbox.rules import new_entry
from flask_mmolove.outbox.sql.store import _CONNECT
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.statements import Transaction
from flask_mmolove.protocol.wire import TOKEN_LIFETIME
from flask_mmolove.recording.recorder import REQUEST_TIMEOUT
from tests.conftest import find_url
from tests.conftest import SERVERS
from tests.conftest import SQL
from tests.outbox.storm import processes_context
from tests.outbox.storm import start
from tests.outbox.storm import storm

T = t.TypeVar("T")

LEASE = 60_000

STORES = ("own", *(f"sqlalchemy-{name}" for name in SQL))


@pytest.fixture
def sql(url: URL) -> t.Iterator[SQLAlchemyOutbox]:
    outbox = SQLAlchemyOutbox(url)
    yield outbox
    outbox.close()


@pytest.fixture
def own(tmp_path: Path) -> t.Iterator[SQLiteOutbox]:
    outbox = SQLiteOutbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


@pytest.fixture(params=STORES)
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[Outbox]:
    outbox: Outbox
    if request.param == "own":
        outbox = SQLiteOutbox(tmp_path / "outbox.db")
    else:
        outbox = SQLAlchemyOutbox(find_url(request.param.split("-")[1], request))
    yield outbox
    outbox.close()


def add(
    outbox: Outbox, identity: str = "7", *names: str, now: int = 1000
) -> list[Entry]:
    events = [
        make_event(name, identity, f"tok-{identity}", "srv", 1_700_000_000_000, False)
        for name in names or ("registered",)
    ]
    return outbox.add(identity, events, now)


def claim_one(outbox: Outbox, now: int = 1000) -> Entry:
    (entry,) = outbox.claim("pending", now, LEASE, 1)
    return entry


def explain(own: SQLiteOutbox, sql: str) -> list[t.Any]:
    return own.run(lambda db: db.execute(f"EXPLAIN QUERY PLAN {sql}", {}), writes=False)


def test_an_event_is_kept_with_its_exact_bytes(outbox: Outbox) -> None:
    (entry,) = add(outbox)
    event = make_event("registered", "7", "tok-7", "srv", 1_700_000_000_000, False)
    assert outbox.of("7", False) == {"registered": entry}
    assert entry.body == event.encode()
    assert (entry.state, entry.due, entry.attempts) == ("pending", 1000, 0)


def test_adding_again_changes_nothing(outbox: Outbox) -> None:
    (first,) = add(outbox)
    assert add(outbox, now=5000) == []
    assert outbox.of("7", False) == {"registered": first}


def test_a_dry_run_stands_beside_the_real_event(outbox: Outbox) -> None:
    add(outbox)
    event = make_event("registered", "7", "tok-7", "srv", 1_700_000_000_000, True)
    assert len(outbox.add("7", [event], 1000)) == 1
    assert outbox.of("7", True)["registered"].test


def test_a_claim_counts_the_attempt_and_lasts_for_its_lease(
    outbox: Outbox,
) -> None:
    add(outbox)
    claimed = claim_one(outbox)
    assert (claimed.attempts, claimed.due) == (1, 1000 + LEASE)
    assert outbox.claim("pending", 999 + LEASE, LEASE, 1) == []
    again = claim_one(outbox, 1000 + LEASE)
    assert (again.attempts, again.crashes) == (2, 1)
    assert again.claim != claimed.claim


def test_what_is_due_longest_is_claimed_first(outbox: Outbox) -> None:
    for identity, now in (("b", 2000), ("a", 1000), ("c", 3000)):
        add(outbox, identity, now=now)
    claimed = outbox.claim("pending", 5000, LEASE, 2)
    assert [entry.identity for entry in claimed] == ["a", "b"]


def test_entries_are_claimed_by_their_ids_if_they_are_due(outbox: Outbox) -> None:
    a, b, c = (add(outbox, identity)[0].id for identity in "abc")
    later = add(outbox, "later", now=9000)[0].id

    def claim(*ids: int) -> list[str]:
        claimed = outbox.claim("pending", 1000, LEASE, 9, ids)
        return sorted(entry.identity for entry in claimed)

    assert claim() == []
    assert claim(c, a, later, 10**6) == ["a", "c"]
    assert claim(a, b) == ["b"]
    assert claim(a, b, c) == []
    assert outbox.claim("accepted", 1000, LEASE, 9, [a, b, c]) == []


def test_an_entry_whose_worker_died_is_claimed_alone(outbox: Outbox) -> None:
    add(outbox, "poison")
    claim_one(outbox)
    for identity in "abc":
        add(outbox, identity, now=1000 + LEASE)
    now = 1000 + LEASE
    assert [e.identity for e in outbox.claim("pending", now, LEASE, 9)] == ["poison"]
    assert len(outbox.claim("pending", now, LEASE, 9)) == 3


def test_a_release_gives_the_attempt_back(outbox: Outbox) -> None:
    add(outbox)
    outbox.release([claim_one(outbox)])
    again = claim_one(outbox)
    assert (again.attempts, again.crashes) == (1, 0)


def test_a_schedule_beyond_the_horizon_was_set_by_a_wrong_clock(
    outbox: Outbox,
) -> None:
    year = 365 * 86_400_000
    add(outbox, now=year)
    assert outbox.next_due(1000) == 1000
    assert claim_one(outbox, 1000).identity == "7"


class TestOrder:
    def test_qualified_waits_for_registered(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        claimed = outbox.claim("pending", 1000, LEASE, 9)
        assert [entry.event for entry in claimed] == ["registered"]
        assert outbox.inspector.summary().waiting == 1
        outbox.settle([Settlement(claimed[0], "accepted", is_fact=True)], 2000)
        assert claim_one(outbox, 2000).event == "qualified"

    def test_qualified_of_an_accepted_player_is_due_at_once(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        outbox.settle([Settlement(claim_one(outbox), "accepted", is_fact=True)], 1000)
        add(outbox, "7", "qualified", now=2000)
        assert claim_one(outbox, 2000).event == "qualified"

    @pytest.mark.parametrize("late", [True, False])
    def test_a_conflict_takes_qualified_along(self, outbox: Outbox, late: bool) -> None:
        add(outbox, "7", "registered", *([] if late else ["qualified"]))
        outbox.settle([Settlement(claim_one(outbox), "ignored", is_fact=True)], 1000)
        add(outbox, "7", "qualified")
        assert outbox.of("7", False)["qualified"].state == "ignored"
        assert outbox.claim("pending", 9000, LEASE, 9) == []

    def test_a_rejected_registered_blocks_until_it_is_retried(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "7", "registered", "qualified")
        outbox.settle([Settlement(claim_one(outbox), "rejected", status=400)], 1000)
        assert outbox.claim("pending", 9000, LEASE, 9) == []
        assert outbox.inspector.summary().waiting == 1
        assert [entry.event for entry in outbox.retry(9000)] == ["registered"]
        retried = claim_one(outbox, 9000)
        outbox.settle([Settlement(retried, "accepted", is_fact=True)], 9000)
        assert claim_one(outbox, 9000).event == "qualified"


class TestFence:
    def test_a_failure_is_settled_by_the_holder_of_the_claim_only(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        assert outbox.settle([Settlement(stale, "rejected")], 99_000) == []
        assert outbox.of("7", False)["registered"].claim == holder.claim

    def test_a_success_is_settled_by_anyone(self, outbox: Outbox) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        (settled,) = outbox.settle(
            [Settlement(stale, "accepted", is_fact=True)], 99_000
        )
        assert settled.state == "accepted"
        assert outbox.settle([Settlement(holder, "rejected")], 99_000) == []

    def test_a_late_success_overrules_a_rejection(self, outbox: Outbox) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        outbox.settle([Settlement(holder, "rejected", status=400)], 99_000)
        (settled,) = outbox.settle(
            [Settlement(stale, "accepted", is_fact=True)], 99_000
        )
        assert settled.state == "accepted"

    def test_a_paid_reward_is_not_due_again(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        outbox.settle([Settlement(claim_one(outbox), "accepted", is_fact=True)], 1000)
        qualified = claim_one(outbox)
        accepted = Settlement(
            qualified, "accepted", 1000, is_fact=True, resets_attempts=True
        )
        outbox.settle([accepted], 1000)
        (reward,) = outbox.claim("accepted", 1000, LEASE, 1)
        assert reward.attempts == 1
        outbox.settle([Settlement(reward, "rewarded", is_fact=True)], 1000)
        assert outbox.settle([accepted], 1000) == []
        assert outbox.of("7", False)["qualified"].state == "rewarded"


class TestSettings:
    def test_what_was_refused_is_sent_again_when_the_settings_change(
        self, outbox: Outbox
    ) -> None:
        assert outbox.apply_settings("old", "srv", 1000) is None
        for identity, status in (("a", 401), ("b", 404), ("c", 301), ("d", 400)):
            add(outbox, identity)
            rejected = Settlement(claim_one(outbox), "rejected", status=status)
            outbox.settle([rejected], 1000)
        assert outbox.apply_settings("old", "srv", 2000) is None
        assert outbox.apply_settings("new", "srv", 2000) == 3
        assert outbox.inspector.summary().counts == {"pending": 3, "rejected": 1}

    def test_what_waits_is_addressed_to_the_new_server_id(self, outbox: Outbox) -> None:
        outbox.apply_settings("old", "srv", 1000)
        add(outbox, "7", "registered", "qualified", now=1_700_000_000_000)
        outbox.apply_settings("new", "other", 2000)
        for name, entry in outbox.of("7", False).items():
            event = make_event(name, "7", "tok-7", "other", 1_700_000_000_000, False)
            assert (entry.server_id, entry.body) == ("other", event.encode())

    def test_what_may_be_retried_is_addressed_to_it_as_well(
        self, outbox: Outbox
    ) -> None:
        outbox.apply_settings("old", "srv", 1000)
        add(outbox, now=1_700_000_000_000)
        rejected = Settlement(claim_one(outbox, 1_700_000_000_000), "rejected")
        outbox.settle([rejected._replace(status=400)], 1_700_000_000_000)
        assert outbox.apply_settings("new", "other", 1_700_000_000_000) == 0
        (entry,) = outbox.retry(1_700_000_000_000)
        event = make_event("registered", "7", "tok-7", "other", entry.recorded, False)
        assert (entry.state, entry.server_id) == ("pending", "other")
        assert entry.body == event.encode()


class TestBreaker:
    def test_what_is_learned_is_kept(self, outbox: Outbox) -> None:
        add(outbox)
        failed = Settlement(claim_one(outbox), "pending", 5000)
        outbox.settle(
            [failed], 2000, lambda breaker: Breaker(failures=breaker.failures + 1)
        )
        outbox.settle([], 2000, lambda breaker: Breaker(failures=breaker.failures + 1))
        assert outbox.breaker() == Breaker(failures=2)

    def test_a_host_in_trouble_is_asked_by_one(self, outbox: Outbox) -> None:
        add(outbox, "a")
        add(outbox, "b")
        outbox.settle(
            [], 1000, lambda breaker: Breaker(open_since=1000, not_before=2000)
        )
        assert outbox.claim("pending", 1999, LEASE, 9) == []
        assert outbox.next_due(1999) == 2000
        assert len(outbox.claim("pending", 2000, LEASE, 9)) == 1
        assert outbox.claim("pending", 2001, LEASE, 9) == []

    def test_on_the_way_back_few_are_let_through(self, outbox: Outbox) -> None:
        for identity in "abcd":
            add(outbox, identity)
        outbox.settle([], 1000, lambda breaker: Breaker(width=3))
        assert len(outbox.claim("pending", 2000, LEASE, 2)) == 2
        assert len(outbox.claim("pending", 2000, LEASE, 2)) == 1
        assert outbox.claim("pending", 2000, LEASE, 2) == []

    def test_refusals_that_open_the_breaker_are_absolved(self, outbox: Outbox) -> None:
        for identity, status in (("a", 401), ("b", 400)):
            add(outbox, identity)
            rejected = Settlement(claim_one(outbox), "rejected", status=status)
            outbox.settle([rejected], 1000)
        wrong = Breaker(open_since=2000, refused_since=1000)
        outbox.settle([], 2000, lambda breaker: wrong)
        assert outbox.inspector.summary().counts == {"pending": 1, "rejected": 1}

    def test_when_it_is_well_again_nothing_waits_any_longer(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        failed = Settlement(claim_one(outbox), "pending", 3_000_000)
        outbox.settle([failed], 1000, lambda breaker: Breaker(open_since=1000))
        outbox.settle([], 2000, lambda breaker: Breaker())
        assert outbox.next_due(2000) == 2000

    def test_what_is_settled_is_given_as_the_turn_of_the_breaker_leaves_it(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        refused = Settlement(claim_one(outbox), "rejected", status=401)
        wrong = Breaker(open_since=2000, refused_since=1000)
        (entry,) = outbox.settle([refused], 2000, lambda breaker: wrong)
        assert entry.state == "pending"
        failed = Settlement(claim_one(outbox, 2000), "pending", 3_000_000)
        (entry,) = outbox.settle([failed], 2000, lambda breaker: Breaker())
        assert entry.due == 2000

    def test_an_event_ages_by_its_uptime_from_the_first_claim_on(
        self, outbox: Outbox
    ) -> None:
        (entry,) = add(outbox)
        assert entry.begun == 0
        outbox.settle([], 1000, lambda breaker: Breaker(down=400))
        first = claim_one(outbox, 5000)
        outbox.release([first])
        assert first.begun == claim_one(outbox, 9000).begun == 4600


class TestPerson:
    def test_asks_in_vain_for_an_id_that_no_event_has(self, outbox: Outbox) -> None:
        add(outbox)
        outbox.settle([Settlement(claim_one(outbox), "rejected")], 1000)
        (entry,) = outbox.inspector.page()
        assert outbox.retry(2000, [10**20, -1, entry.id]) == [
            outbox.of("7", False)["registered"]
        ]
        assert outbox.decide(10**20, "rewarded", 2000) is None

    def test_sends_again_however_many_are_rejected(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "_BATCH", 2)
        retry, sizes = Transaction.retry, []

        def watch(db: Transaction, now: int, ids: list[int]) -> list[Entry]:
            sizes.append(len(ids))
            return retry(db, now, ids)

        monkeypatch.setattr(Transaction, "retry", watch)
        for player in "abcde":
            add(outbox, player)
            outbox.settle([Settlement(claim_one(outbox), "rejected")], 1000)
        assert sorted(e.identity for e in outbox.retry(2000)) == [*"abcde"]
        assert sizes == [2, 2, 1]
        assert outbox.inspector.summary().counts == {"pending": 5}

    @pytest.mark.parametrize("state", ["unknown", "unpaid"])
    def test_decides_on_a_reward(self, outbox: Outbox, state: t.Any) -> None:
        add(outbox)
        failed = Settlement(claim_one(outbox), state, answer="its callback raised")
        (entry,) = outbox.settle([failed], 1000)
        assert outbox.inspector.page(state=state) == [entry]
        again = outbox.decide(entry.id, "accepted", 2000)
        assert again is not None
        assert again.answers == [
            (1000, None, "its callback raised"),
            (2000, None, "a person: give it now"),
        ]
        assert (again.state, again.due, again.attempts) == ("accepted", 2000, 0)
        assert outbox.decide(entry.id, "rewarded", 2000) is None

    def test_sends_one_again(self, outbox: Outbox) -> None:
        for identity in "ab":
            add(outbox, identity)
            outbox.settle([Settlement(claim_one(outbox), "rejected")], 1000)
        first, second = reversed(outbox.inspector.page(state="rejected"))
        assert [entry.id for entry in outbox.retry(2000, [second.id])] == [second.id]
        assert outbox.inspector.page(state="rejected", limit=9) == [first]


class TestRenew:
    def test_a_claim_lasts_longer(self, outbox: Outbox) -> None:
        add(outbox)
        entry = claim_one(outbox)
        assert outbox.renew([entry], 1000 + 2 * LEASE) == []
        assert outbox.claim("pending", 1000 + LEASE, LEASE, 1) == []
        assert claim_one(outbox, 1000 + 2 * LEASE).crashes == 1

    def test_one_whose_lease_is_over_is_held_until_another_claims_it(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        first = claim_one(outbox)
        assert outbox.renew([first], 1000) == []
        second = claim_one(outbox)
        assert outbox.renew([first], 10**12) == [first]
        assert outbox.of("7", False)["registered"] == second
        assert outbox.renew([second], 2000) == []

    @pytest.mark.parametrize("state", ["accepted", "rejected", "pending"])
    def test_what_is_settled_is_held_by_nobody(
        self, outbox: Outbox, state: EntryState
    ) -> None:
        add(outbox)
        entry = claim_one(outbox)
        outbox.settle([Settlement(entry, state, 5000)], 1000)
        assert outbox.renew([entry], 10**12) == [entry]
        assert outbox.of("7", False)["registered"].due == 5000

    def test_several_are_renewed_at_once(self, outbox: Outbox) -> None:
        for identity in "abc":
            add(outbox, identity)
        entries = outbox.claim("pending", 1000, LEASE, 3)
        outbox.settle([Settlement(entries[1], "accepted")], 1000)
        assert outbox.renew(entries, 9000) == [entries[1]]
        assert outbox.of("c", False)["registered"].due == 9000
        assert outbox.renew([], 9000) == []


INVITATION = Invitation("tok", "3")


class TestHeld:
    def test_what_is_held_is_there_until_it_is_let_go(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        outbox.hold("two", Invitation("other"), 1000)
        assert outbox.held("one", 2000) == INVITATION
        assert outbox.held("two", 2000) == Invitation("other", None)
        outbox.let_go("one")
        outbox.let_go("one")
        assert outbox.held("one", 2000) is None
        assert outbox.held("two", 2000) is not None

    def test_the_first_one_under_a_key_stays(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        outbox.hold("one", Invitation("later"), 1000)
        outbox.hold("one", Invitation("later"), 2000)
        assert outbox.held("one", 3000) == INVITATION
        outbox.let_go("one")
        outbox.hold("one", Invitation("next"), 3000)
        assert outbox.held("one", 3000) == Invitation("next")

    def test_one_that_came_first_but_is_recorded_later_stays(
        self, outbox: Outbox
    ) -> None:
        outbox.hold("one", Invitation("later"), 2000)
        outbox.hold("one", INVITATION, 1000)
        assert outbox.held("one", 3000) == INVITATION

    def test_one_that_has_expired_makes_room(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        later = 1000 + TOKEN_LIFETIME * 1000
        outbox.hold("one", Invitation("next"), later)
        assert outbox.held("one", later) == Invitation("next")

    def test_of_two_at_once_one_is_held(self, outbox: Outbox) -> None:
        start = threading.Barrier(2)

        def hold(invitation: Invitation) -> None:
            start.wait(20)
            outbox.hold("one", invitation, 1000)

        rivals = [INVITATION, Invitation("other")]
        threads = [threading.Thread(target=hold, args=(each,)) for each in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        first = outbox.held("one", 2000)
        assert first in rivals
        for each in rivals:
            outbox.hold("one", each, 1000)
        assert outbox.held("one", 2000) == first

    def test_it_ends_with_its_token(self, outbox: Outbox) -> None:
        lifetime = TOKEN_LIFETIME * 1000
        outbox.hold("one", INVITATION, 1000)
        assert outbox.held("one", 1000 + lifetime - 1) == INVITATION
        assert outbox.held("one", 1000 + lifetime) is None
        outbox.hold("two", INVITATION, 1000 + lifetime)
        assert outbox.held("one", 1000) is None  # it is not even kept

    def test_it_is_no_event(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        assert outbox.inspector.summary().counts == {}
        assert outbox.claim("pending", 10**12, LEASE, 10) == []


def test_who_invited_stands_with_the_event_through_its_life(outbox: Outbox) -> None:
    event = make_event("registered", "7", "tok", "srv", 1_700_000_000_000, False)
    (new,) = outbox.add("7", [event], 1000, referrer="3")
    (entry,) = outbox.settle([Settlement(claim_one(outbox), "accepted")], 1000)
    assert (new.referrer, entry.referrer) == ("3", "3")


def test_nobody_invites_themselves(outbox: Outbox) -> None:
    event = make_event("registered", "7", "tok", "srv", 1_700_000_000_000, False)
    (entry,) = outbox.add("7", [event], 1000, referrer="7")
    assert entry.referrer is None


def test_what_someone_answers_can_always_be_written_down(outbox: Outbox) -> None:
    add(outbox)
    settled = Settlement(
        claim_one(outbox),
        "accepted",
        is_fact=True,
        answer="a\0b",
        referral_id="r\ud800",
    )
    (entry,) = outbox.settle([settled], 1000)
    assert (entry.answer, entry.referral_id) == ("a\ufffdb", "r?")


def test_a_referral_id_is_not_forgotten(outbox: Outbox) -> None:
    add(outbox)
    first = claim_one(outbox)
    outbox.settle([Settlement(first, "pending", 1000, referral_id="ref")], 1000)
    (entry,) = outbox.settle([Settlement(claim_one(outbox), "accepted")], 1000)
    assert entry.referral_id == "ref"


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann", "ann"), ("\xe9", "e\u0301"), ("ss", "\xdf"), ("e", "\xe9")],
)
def test_identities_are_told_apart_byte_for_byte(
    outbox: Outbox, one: str, other: str
) -> None:
    add(outbox, one)
    assert len(add(outbox, other)) == 1
    assert outbox.of(one, False)["registered"].identity == one


def test_threads_that_report_the_same_record_it_once(outbox: Outbox) -> None:
    def report(number: int) -> int:
        return len(add(outbox, str(number // 8), "registered", "qualified"))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(report, range(40))) == 10
    assert outbox.inspector.summary().counts == {"pending": 10}


def test_an_entry_shows_neither_its_token_nor_its_body(outbox: Outbox) -> None:
    event = make_event(
        "registered", "7", "a-long-token", "srv", 1_700_000_000_000, False
    )
    (entry,) = outbox.add("7", [event], 1000)
    assert "a-long-token" not in repr(entry)
    assert "a-long-token" not in f"{entry}"


class TestFile:
    def test_the_folder_is_made(self, tmp_path: Path) -> None:
        outbox = SQLiteOutbox(tmp_path / "a" / "b" / "outbox.db")
        add(outbox)
        outbox.close()
        assert (tmp_path / "a" / "b" / "outbox.db").exists()

    def test_another_process_holding_it_is_waited_for_no_longer_than_allowed(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own)
        other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        event = make_event("registered", "8", "tok", "srv", 1_700_000_000_000, False)
        with pytest.raises(OutboxBusy, match="kept busy by other processes"):
            own.add("8", [event], 1000, timeout=0.05)
        other.execute("ROLLBACK")
        other.close()
        assert len(own.add("8", [event], 1000, timeout=0.05)) == 1

    def test_a_deleted_file_is_made_anew(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own)
        (tmp_path / "outbox.db").unlink()
        assert len(add(own)) == 1
        assert (tmp_path / "outbox.db").exists()

    def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "outbox.db"
        outbox = SQLiteOutbox(path)
        add(outbox)
        outbox.close()
        connection = sqlite3.connect(path)
        for pragma in ("user_version", "application_id"):
            ((now,),) = connection.execute(f"PRAGMA {pragma}")
            connection.execute(f"PRAGMA {pragma} = {now + 98}")
        connection.close()
        with pytest.raises(OutboxError, match="newer Flask-MMOLove"):
            add(SQLiteOutbox(path))

    def test_what_it_cannot_do_it_says_with_the_file_and_the_key(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutboxError, match="MMOLOVE_OUTBOX"):
            add(SQLiteOutbox(tmp_path / "file" / "outbox.db"))

    @pytest.mark.slow
    def test_processes_that_start_at_once_make_one_schema(self, tmp_path: Path) -> None:
        start_together(multiprocessing.get_context("spawn"), _add_in_process, tmp_path)
        outbox = SQLiteOutbox(tmp_path / "outbox.db")
        assert outbox.inspector.summary().counts == {"pending": 4}
        outbox.close()


def start_together(context: t.Any, work: t.Callable[..., None], where: object) -> None:
    """Let four processes do a work at the same moment."""
    barrier = context.Barrier(4)
    processes = [
        context.Process(target=work, args=(where, barrier, number))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4


def _add_in_process(folder: Path, barrier: t.Any, number: int) -> None:
    outbox = SQLiteOutbox(folder / "outbox.db")
    barrier.wait(30)
    add(outbox, str(number))
    outbox.close()


def through(outbox: Outbox, state: EntryState, now: int = 1000) -> Entry:
    """Settle what is to be sent next."""
    return outbox.settle(
        [Settlement(claim_one(outbox, now), state, is_fact=True)], now
    )[0]


def invite(
    outbox: Outbox,
    identity: str,
    referrer: str | None,
    name: str = "registered",
    *,
    test: bool = False,
) -> None:
    """Record an event of a player who came by another's link."""
    token, moment = f"tok-{identity}", 1_700_000_000_000
    event = make_event(name, identity, token, "srv", moment, test)
    outbox.add(identity, [event], 1000, referrer=referrer)


def pay(outbox: Outbox, state: EntryState, now: int = 1000) -> None:
    """Settle the reward of what was taken last."""
    (entry,) = outbox.inspector.page(state="accepted", limit=1)
    outbox.settle([Settlement(entry, state, is_fact=True)], now)


class TestJournal:
    DAY = 86_400_000

    def test_pages_go_on_where_the_last_one_ended(self, outbox: Outbox) -> None:
        for player in "abcde":
            add(outbox, player)
        first = outbox.inspector.page(limit=3)
        rest = outbox.inspector.page(before=first[-1].id, limit=3)
        assert [entry.identity for entry in [*first, *rest]] == [*"edcba"]

    def test_a_page_is_filtered_by_state_and_player(self, outbox: Outbox) -> None:
        add(outbox, "a", "registered", "qualified")
        add(outbox, "b")
        through(outbox, "rejected")
        ask = outbox.inspector.page
        (rejected,) = ask(state="rejected")
        assert (rejected.identity, ask(state="accepted")) == ("a", [])
        assert [entry.event for entry in ask(player="a")] == ["qualified", "registered"]
        assert ask(player="a", state="rejected") == [rejected]
        assert len(ask(before=10**20)) == len(ask())
        assert ask(before=-(10**20)) == []
        assert ask(player="a", before=rejected.id) == ask(player="nobody") == []
        assert ask(player="a'; --") == []

    def test_an_entry_is_found_by_its_id(self, outbox: Outbox) -> None:
        (entry,) = add(outbox)
        assert outbox.inspector.get(entry.id) == entry
        assert outbox.inspector.get(entry.id + 1) is None
        assert outbox.inspector.get(1 << 70) is None

    def test_a_day_is_counted_as_far_as_its_players_came(self, outbox: Outbox) -> None:
        for player, names in (("a", ("registered", "qualified")), ("b", ())):
            add(outbox, player, *names)
        add(outbox, "c")
        add(outbox, "next day", now=self.DAY)
        assert outbox.inspector.days(0, self.DAY) == [
            Day(0, 3, 0, 0, 0),
            Day(self.DAY, 1, 0, 0, 0),
        ]
        through(outbox, "accepted")
        assert outbox.inspector.days(0, 1) == [Day(0, 3, 1, 0, 0)]
        through(outbox, "accepted")
        through(outbox, "ignored")
        through(outbox, "rejected")
        pay(outbox, "unknown")
        assert outbox.inspector.days(0, 1) == [Day(0, 3, 1, 1, 0)]
        (doubtful,) = outbox.inspector.page(state="unknown", limit=1)
        outbox.decide(doubtful.id, "rewarded", 2000)
        assert outbox.inspector.days(0, 1) == [Day(0, 3, 1, 1, 1, 1)]

    def test_a_step_is_counted_once(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        first = claim_one(outbox)
        second = claim_one(outbox, 1000 + LEASE)
        for entry in (second, first):
            outbox.settle([Settlement(entry, "accepted", is_fact=True)], 2000)
        through(outbox, "accepted", 2000)
        (qualified,) = outbox.inspector.page(state="accepted", limit=1)
        again = Settlement(qualified, "accepted", due=3000)
        outbox.settle([again, again], 2000)
        pay(outbox, "rewarded")
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 1, 1)]

    def test_without_a_callback_a_player_qualifies_all_the_same(
        self, outbox: Outbox
    ) -> None:
        invite(outbox, "7", "anna")
        invite(outbox, "7", "anna", "qualified")
        through(outbox, "accepted")
        through(outbox, "unpaid")
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 0)]
        (unpaid,) = outbox.inspector.page(state="unpaid")
        outbox.decide(unpaid.id, "accepted", 2000)
        pay(outbox, "unpaid")
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 0)]
        outbox.decide(unpaid.id, "rewarded", 2000)
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 1)]
        assert outbox.inspector.best_referrers() == [("anna", 1, 1, 1)]

    def test_a_dry_run_is_not_counted(self, outbox: Outbox) -> None:
        event = make_event("registered", "7", "tok", "srv", 1_700_000_000_000, True)
        outbox.add("7", [event], 1000)
        assert outbox.inspector.days(0, 1)[0].signed_up == 0
        through(outbox, "accepted")
        assert outbox.inspector.days(0, 1)[0] == Day(0, 0, 0, 0, 0)

    def test_a_friend_is_counted_for_the_referrer(self, outbox: Outbox) -> None:
        for player, by in (("a", "anna"), ("b", "anna"), ("c", "berta"), ("d", None)):
            invite(outbox, player, by)
        for player in "ef":
            invite(outbox, player, "anna", test=player == "f")
        ask = outbox.inspector.best_referrers
        assert ask() == []
        for state in ("accepted",) * 4 + ("ignored", "accepted"):
            through(outbox, state)
        assert ask() == [("anna", 2, 0, 0), ("berta", 1, 0, 0)]
        invite(outbox, "c", "berta", "qualified")
        through(outbox, "accepted")
        pay(outbox, "rewarded")
        assert ask() == [("anna", 2, 0, 0), ("berta", 1, 1, 1)]
        assert ask(limit=1) == [("anna", 2, 0, 0)]

    def test_who_is_erased_invited_nobody(self, outbox: Outbox) -> None:
        invite(outbox, "a", "anna")
        invite(outbox, "b", "berta")
        outbox.hold("key", Invitation("tok", "anna"), 1000)
        through(outbox, "accepted")
        through(outbox, "accepted")
        assert outbox.inspector.erase("anna") == []
        assert [entry.referrer for entry in outbox.inspector.page()] == ["berta", None]
        assert outbox.inspector.best_referrers() == [("berta", 1, 0, 0)]
        assert outbox.held("key", 1000) == Invitation("tok", None)

    def test_who_is_erased_while_a_friend_is_under_way_is_not_counted(
        self, outbox: Outbox
    ) -> None:
        invite(outbox, "a", "anna")
        claimed = claim_one(outbox)
        outbox.inspector.erase("anna")
        (entry,) = outbox.settle([Settlement(claimed, "accepted", is_fact=True)], 1000)
        assert (claimed.referrer, entry.referrer) == ("anna", None)
        assert outbox.inspector.best_referrers() == []
        assert outbox.inspector.days(0, 1)[0].accepted == 1

    def test_the_counts_survive_what_is_erased(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        through(outbox, "accepted")
        add(outbox, "8")
        before = outbox.inspector.days(0, 1)
        for player, count in (("7", 2), ("8", 1), ("8", 0)):
            assert len(outbox.inspector.erase(player)) == count
        assert outbox.inspector.page() == []
        assert outbox.inspector.days(0, 1) == before

    def test_what_is_erased_under_way_is_not_there_to_be_settled(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        entry = claim_one(outbox)
        outbox.inspector.erase("7")
        assert outbox.settle([Settlement(entry, "accepted", is_fact=True)], 2000) == []

    def test_only_what_is_finished_is_purged(self, outbox: Outbox) -> None:
        for player in ("paid", "due", "late", "to come"):
            add(outbox, player, "registered", "qualified")
        add(outbox, "milestone to come")
        add(outbox, "second", "registered", "qualified")
        for entry in outbox.claim("pending", 1000, LEASE, 9):
            state = "ignored" if entry.identity == "second" else "accepted"
            outbox.settle(
                [Settlement(entry, t.cast(EntryState, state), is_fact=True)], 1000
            )
        for entry in outbox.claim("pending", 1000, LEASE, 3):
            due = 5000 if entry.identity == "due" else None
            now = 5000 if entry.identity == "late" else 1000
            outbox.settle([Settlement(entry, "accepted", due, is_fact=True)], now)
        assert outbox.inspector.purge(2000) == 4
        left = {entry.identity for entry in outbox.inspector.page()}
        assert left == {"due", "to come", "late", "milestone to come"}

    def test_the_earlier_answers_are_kept_but_not_all(self, outbox: Outbox) -> None:
        add(outbox)
        for number in range(15):
            now = 1000 + number
            failure = Settlement(claim_one(outbox, now), "pending", now + 1)
            words = f"answer {number}"
            outbox.settle([failure._replace(status=500, answer=words)], now)
        (entry,) = outbox.inspector.page()
        assert [a.words for a in entry.answers] == [f"answer {n}" for n in range(4, 15)]
        assert entry.answers[-1] == (1014, 500, "answer 14")

    def test_what_delivers_shows_itself(self, outbox: Outbox) -> None:
        assert outbox.inspector.worker() is None
        for worker in (Worker(1000), Worker(2000, -90.5)):
            outbox.inspector.heartbeat(worker)
            assert outbox.inspector.worker() == worker

    def test_it_is_known_when_a_signup_was_last_taken(self, outbox: Outbox) -> None:
        assert outbox.inspector.last_signup() is None
        add(outbox, "7", "registered", "qualified")
        through(outbox, "accepted", 4000)
        assert outbox.inspector.last_signup() == 4000
        through(outbox, "accepted", 5000)
        assert outbox.inspector.last_signup() == 4000

    def test_the_oldest_pending_and_a_count(self, outbox: Outbox) -> None:
        assert outbox.inspector.oldest_pending() is None
        add(outbox, "a", now=1000)
        add(outbox, "b", now=2000)
        assert outbox.inspector.oldest_pending() == 1000
        assert outbox.inspector.count("pending") == 2

    def test_what_is_taken_over_from_a_lost_file_is_counted(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own, "7", "registered", "qualified")
        through(own, "accepted")
        through(own, "accepted")
        before = own.inspector.days(0, 1)
        (tmp_path / "outbox.db").unlink()
        assert own.inspector.days(0, 1) == [Day(0, 0, 0, 0, 0)]
        assert own.recover() == 2
        assert own.inspector.days(0, 1) == before == [Day(0, 1, 1, 1, 0)]

    def test_what_was_under_way_when_a_file_was_lost_is_settled(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        for player in "78":
            add(own, player)
        own.inspector.erase("7")
        claimed = claim_one(own)
        (tmp_path / "outbox.db").unlink()
        own.inspector.summary()
        assert own.recover() == 1
        (entry,) = own.settle([Settlement(claimed, "accepted", is_fact=True)], 1000)
        assert (entry.key, entry.state) == (claimed.key, "accepted")
        assert entry.id != claimed.id

    def test_no_question_looks_at_every_row(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own)
        asked: list[str] = []
        connection = own._db._handles[os.getpid()].connection
        assert connection is not None
        connection.set_trace_callback(asked.append)
        ask = own.inspector
        ask.page(), ask.page(state="rejected", before=9), ask.page(player="7")
        ask.get(1), ask.count("rejected"), ask.days(0, 1), ask.worker()
        ask.best_referrers(), ask.last_signup(), ask.oldest_pending(), own.retry(1000)
        connection.set_trace_callback(None)
        selects = [sql for sql in asked if sql.startswith("SELECT")]
        assert len(selects) >= 12
        for sql in selects:
            for *_, plan in explain(own, sql):
                # The rows as they stand, newest first, are an index too.
                sorts = "TEMP B-TREE" in plan and "GROUP BY" not in sql
                scans = plan.startswith("SCAN") and plan != "SCAN best"  # ten rows
                assert not scans and not sorts, (sql, plan)

    def test_a_worker_neither_leads_signups_nor_is_led_by_them(
        self, own: SQLiteOutbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shared: list[float] = []
        together = own._db.together

        def watch(work: t.Any, timeout: float) -> t.Any:
            shared.append(timeout)
            return together(work, timeout)

        monkeypatch.setattr(own._db, "together", watch)
        event = make_event("registered", "7", "tok-7", "srv", 1000, False)
        own.add("7", [event], 1000, REQUEST_TIMEOUT)
        assert shared == [REQUEST_TIMEOUT]
        own.settle([Settlement(claim_one(own), "rejected")], 1000)
        own.retry(1000)
        own.inspector.erase("7")
        assert shared == [REQUEST_TIMEOUT]


class TestQueriesOfFile:
    """The queries of the way to MMOLove must not grow with what stands there."""

    def test_they_go_by_an_index_of_what_is_due_or_of_players(
        self, own: SQLiteOutbox
    ) -> None:
        add(own)
        asked: list[str] = []
        own.inspector.summary()
        connection = own._db._handles[os.getpid()].connection
        assert connection is not None
        connection.set_trace_callback(asked.append)
        add(own, "8", "registered", "qualified")
        for number in range(9, 20):  # SQLite chooses otherwise for many
            add(own, str(number))
        *settled, left = own.claim("pending", 1000, LEASE, 20)
        own.settle([Settlement(e, "accepted", is_fact=True) for e in settled], 1000)
        own.release([left])
        own.claim("pending", 1000, LEASE, 1, [left.id])
        own.next_due(1000), own.of("8", False)
        connection.set_trace_callback(None)
        verbs = ("SELECT", "UPDATE", "INSERT")
        statements = [sql for sql in asked if sql.startswith(verbs)]
        assert len(statements) >= 16
        for sql in statements:
            for *_, plan in explain(own, sql):
                good = (
                    "USING" in plan or plan.startswith("SCALAR") or "CONSTANT" in plan
                )
                # By their state alone they would be all that is pending.
                grows = "SCAN event" in plan or "INDEX event_state" in plan
                assert good and not grows and "TEMP" not in plan, (sql, plan)


class TestSQL:
    def test_processes_that_start_at_once_make_the_tables_once(self, url: URL) -> None:
        start_together(processes_context(), start, url.render_as_string(False))
        outbox = SQLAlchemyOutbox(url)
        assert outbox.inspector.summary().counts == {"pending": 4}
        inspector = inspect(outbox._engine())
        indexes = {index["name"] for index in inspector.get_indexes("mmolove_event")}
        outbox.close()
        assert "mmolove_event_due" in indexes

    def test_tables_are_left_to_migrations_where_it_is_so(self, url: URL) -> None:
        outbox = SQLAlchemyOutbox(url, creates=lambda: False)
        with pytest.raises(OutboxError, match="migration"):
            add(outbox)
        outbox.create()
        assert len(add(outbox)) == 1
        outbox.close()

    def test_an_index_that_is_missing_is_made(self, sql: SQLAlchemyOutbox) -> None:
        sql.create()
        on = " ON mmolove_event" if sql._is_mysql else ""
        with sql._engine().begin() as connection:
            connection.exec_driver_sql(f"DROP INDEX mmolove_event_due{on}")
        sql.create()
        indexes = inspect(sql._engine()).get_indexes("mmolove_event")
        assert "mmolove_event_due" in {index["name"] for index in indexes}

    def test_the_tables_stand_in_a_site_s_metadata(self, url: URL) -> None:
        metadata = MetaData()
        first = SQLAlchemyOutbox(url, metadata)
        second = SQLAlchemyOutbox(url, metadata)
        assert set(metadata.tables) == {
            "mmolove_event",
            "mmolove_held",
            "mmolove_fact",
            "mmolove_tally",
            "mmolove_referrer",
            "mmolove_used",
        }
        assert first.tables == second.tables
        first.close()
        second.close()

    def test_a_transaction_of_the_site_takes_events_along(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        sql.create()
        engine = create_engine(url)
        event = make_event("registered", "7", "t", "s", 1_700_000_000_000, False)
        for ends in (Connection.rollback, Connection.commit):
            with engine.connect() as connection:
                transaction = sql.within(connection)
                assert len(transaction.add("7", [event], 1000)) == 1
                assert transaction.add("7", [event], 1000) == []
                ends(connection)
        engine.dispose()
        assert sql.inspector.summary().counts == {"pending": 1}

    def test_an_engine_of_the_site_is_used_and_left_to_it(self, url: URL) -> None:
        engine = create_engine(url)
        outbox = SQLAlchemyOutbox(engine)
        add(outbox, "7", "registered", "qualified")
        assert claim_one(outbox).event == "registered"
        pool = engine.pool
        outbox.close()
        assert engine.pool is pool
        level = engine.dialect.default_isolation_level
        with engine.connect() as connection:
            assert connection.get_isolation_level() == level
        engine.dispose()

    @pytest.mark.slow
    def test_a_child_makes_its_own_connections(self, url: URL) -> None:
        script = Path(__file__).with_name("forks.py")
        for how in ("url", "engine"):
            done = subprocess.run(
                [sys.executable, script, url.render_as_string(False), how],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (done.returncode, done.stderr) == (0, "")
        outbox = SQLAlchemyOutbox(url)
        assert outbox.inspector.summary().counts == {"pending": 2 * 3 * 20}
        outbox.close()

    def test_what_would_be_cut_off_is_refused(self, sql: SQLAlchemyOutbox) -> None:
        for identity in ("7" * 256, "7\0"):
            with pytest.raises(EventError, match="referee_identity"):
                add(sql, identity)
        assert len(add(sql, "\U0001f600" * 255)) == 1

    def test_the_lock_of_another_is_waited_for_no_longer_than_allowed(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        event = make_event("qualified", "7", "t", "s", 1_700_000_000_000, False)
        with other_transaction(url) as connection:
            hold_player(sql, connection)
            begun = time.monotonic()
            with pytest.raises(OutboxBusy, match="kept busy by others"):
                sql.add("7", [event], 1000, timeout=0.2)
            assert time.monotonic() - begun < 1.8
        assert len(sql.add("7", [event], 1000, timeout=1)) == 1

    def test_qualified_is_seen_by_a_settle_that_comes_meanwhile(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        accepted = Settlement(claim_one(sql), "accepted", is_fact=True)
        event = make_event("qualified", "7", "t", "s", 1_700_000_000_000, False)
        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                sql.within(connection).add("7", [event], 1000)
                settling = pool.submit(sql.settle, [accepted], 2000)
                time.sleep(0.2)
                assert not settling.done()
            assert len(settling.result()) == 1
        assert claim_one(sql, 2000).event == "qualified"

    def test_qualified_sees_a_settle_that_came_first(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        accepted = Settlement(claim_one(sql), "accepted", is_fact=True)
        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                sql.within(connection).settle([accepted], 2000, lambda breaker: breaker)
                adding = pool.submit(add, sql, "7", "qualified", now=2000)
                time.sleep(0.2)
                assert not adding.done()
            (entry,) = adding.result()
        assert entry.due == 2000

    def test_an_entry_that_another_claims_meanwhile_is_left_to_it(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        for identity in "ab":
            add(sql, identity)
        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                (first,) = sql.within(connection).claim("pending", 1000, LEASE, 1)
                claiming = pool.submit(sql.claim, "pending", 1000, LEASE, 1)
                time.sleep(0.2)
                assert not claiming.done()
            (second,) = claiming.result()
        assert {first.identity, second.identity} == {"a", "b"}

    def test_what_is_learned_at_once_is_all_kept(self, sql: SQLAlchemyOutbox) -> None:
        sql.create()

        def fail(_: int) -> None:
            sql.settle([], 1000, lambda breaker: Breaker(failures=breaker.failures + 1))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fail, range(40)))
        assert sql.breaker().failures == 40


def test_a_commit_that_fails_leaves_sqlite_to_others(tmp_path: Path) -> None:
    path = tmp_path / "site.db"
    outbox = SQLAlchemyOutbox(f"sqlite:///{path}")
    add(outbox)
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM mmolove_event").fetchone() == (1,)
        with pytest.raises(OutboxBusy):
            outbox.add(
                "8",
                [make_event("registered", "8", "t", "s", 1_700_000_000_000, False)],
                1000,
                timeout=0.1,
            )
        reader.rollback()
        # Not the one whose COMMIT failed, and nobody is kept from writing by it.
        reader.execute("BEGIN IMMEDIATE")
        assert reader.execute("SELECT count(*) FROM mmolove_event").fetchone() == (1,)
    outbox.close()


class TestTrouble:
    """What the words of an error say, and what they do not."""

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("nonsense s3cret", "is no URL"),
            ("oracle://u:s3cret@host/db", "oracle"),
            ("postgres://u:s3cret@host/db", "postgres"),
            ("postgresql+asyncpg://u:s3cret@host/db", "asyncio"),
            ("mysql+oursql9://u:s3cret@host/db", "oursql9"),
            ("sqlite+pysqlite://", "in memory"),
        ],
    )
    def test_a_url_that_cannot_be(self, url: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words) as caught:
            SQLAlchemyOutbox(url)
        assert "MMOLOVE_OUTBOX" in str(caught.value)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
    def test_a_server_that_is_not_there(self, driver: str) -> None:
        port = servers.free_port()
        outbox = SQLAlchemyOutbox(f"{driver}://u:s3cret@127.0.0.1:{port}/db")
        begun = time.monotonic()
        with pytest.raises(OutboxError, match="MMOLOVE_OUTBOX") as caught:
            outbox.of("7", False)
        assert time.monotonic() - begun < 2
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        outbox.close()

    def test_the_cause_shows_nothing_that_was_to_be_written(self, url: URL) -> None:
        engine = create_engine(url)  # one that would show it
        outbox = SQLAlchemyOutbox(engine, creates=lambda: False)
        outbox.create()
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE mmolove_event RENAME TO away")
        with pytest.raises(OutboxError) as caught:
            add(outbox, "7")
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO mmolove_event")
        assert "tok-7" not in "".join(traceback.format_exception(caught.value))
        outbox.close()
        engine.dispose()


class Relay:
    """Stands before a server, and can fall silent with its connections open.

    :ivar url: The server's, by way of this.
    """

    def __init__(self, url: URL) -> None:
        self.silent = False
        self._to = (url.host or "", url.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.url = url.set(port=self._listener.getsockname()[1])

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pass_on, args=ends, daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.silent:
                    target.sendall(data)


def test_sqlite_s_lock_is_waited_for_in_turns(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'site.db'}")  # waits 5 s by itself
    outbox = SQLAlchemyOutbox(engine)
    add(outbox)
    with outbox._engine().connect() as connection:
        turn = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    assert turn is not None and turn <= 1000
    outbox.close()
    engine.dispose()


class TestSilence:
    """A machine that is gone, while connections to it are open."""

    @pytest.mark.parametrize("libpq", [None, 110022])
    def test_postgresql_s_driver_leaves_that_to_the_system(
        self, postgresql: URL, monkeypatch: pytest.MonkeyPatch, libpq: int | None
    ) -> None:
        # It would take a network that loses everything to see it at work.
        most = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1}
        if libpq is None:
            most[socket.TCP_USER_TIMEOUT] = 1500
        else:
            monkeypatch.setattr("psycopg.pq.version", lambda: libpq)
        outbox = SQLAlchemyOutbox(postgresql)
        with outbox._engine().connect() as connection:
            fd = t.cast(t.Any, connection.connection).fileno()
            with socket.socket(fileno=os.dup(fd)) as copy:
                assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                for option in (*most, socket.TCP_USER_TIMEOUT):
                    found = copy.getsockopt(socket.IPPROTO_TCP, option)
                    assert found == most.get(option, 0)
        outbox.close()

    def test_mariadb_s_waits_no_longer_for_an_answer(
        self, mariadb: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = dict.fromkeys(_CONNECT["pymysql"], 0.2)
        monkeypatch.setitem(_CONNECT, "pymysql", short)
        with ThreadPoolExecutor(1) as pool, Relay(mariadb) as relay:
            outbox = SQLAlchemyOutbox(relay.url)
            outbox.of("7", False)
            relay.silent = True
            with pytest.raises(OutboxError, match="Lost connection"):
                pool.submit(outbox.of, "7", False).result(10)
            outbox.close()

    def test_who_cannot_wait_tries_no_other_connection(
        self, mariadb: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = dict.fromkeys(_CONNECT["pymysql"], 0.2)
        monkeypatch.setitem(_CONNECT, "pymysql", short)
        with Relay(mariadb) as relay:
            outbox = SQLAlchemyOutbox(relay.url)
            outbox.of("7", False)
            relay.silent, made = True, len(relay._sockets)
            with pytest.raises(OutboxError, match="Lost connection"):
                outbox.of("7", False, 0.1)
            assert len(relay._sockets) == made
            outbox.close()


class TestServers:
    @pytest.fixture(params=SERVERS)
    def url(self, request: pytest.FixtureRequest) -> URL:
        return find_url(request.param, request)

    def test_a_lost_connection_is_made_anew(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        with other_transaction(url) as connection:
            if sql._is_mysql:
                mine = (
                    "SELECT id FROM information_schema.processlist"
                    " WHERE db = database()"
                )
                for (id,) in connection.exec_driver_sql(
                    f"{mine} AND id != connection_id()"
                ).all():
                    connection.exec_driver_sql(f"KILL {id}")
            else:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                    " datname = current_database() AND pid != pg_backend_pid()"
                )
        assert len(add(sql, "8")) == 1

    def test_a_late_failure_waits_for_a_success_under_way(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        entry = claim_one(sql)
        accepted = Settlement(entry, "accepted", is_fact=True)
        changed = wait_for_other(
            sql,
            url,
            lambda other: other.settle([accepted], 1000),
            lambda: sql.settle([Settlement(entry, "rejected")], 1000),
        )
        assert changed == []
        assert sql.of("7", False)["registered"].state == "accepted"

    def test_a_player_who_is_erased_meanwhile_is_counted_once(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        accepted = Settlement(claim_one(sql), "accepted", is_fact=True)
        erased = wait_for_other(
            sql,
            url,
            lambda other: other.settle([accepted], 1000),
            lambda: sql.inspector.erase("7"),
        )
        assert len(erased) == 1
        (day,) = sql.inspector.days(0, 1)
        assert (day.signed_up, day.accepted) == (1, 1)

    def test_a_deadlock_ends_well(self, sql: SQLAlchemyOutbox, url: URL) -> None:
        for number in range(30):
            add(sql, str(number))
        first, *between, last = sql.claim("pending", 1000, LEASE, 30)
        settlements = [
            Settlement(each, "accepted", is_fact=True) for each in (first, last)
        ]
        errors: list[str] = []

        @events_of.listens_for(sql._engine(), "handle_error")
        def note(context: t.Any) -> None:
            errors.append(str(getattr(context.original_exception, "sqlstate", "")))

        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                if not sql._is_mysql:
                    connection.exec_driver_sql("SET LOCAL deadlock_timeout = '20s'")
                # MariaDB ends the one that has changed less.
                for entry in (last, *between):
                    touch(sql, connection, entry)
                settling = pool.submit(sql.settle, settlements, 2000)
                time.sleep(0.2)
                touch(sql, connection, first)
            assert len(settling.result()) == 2
        assert errors and set(errors) <= {"40P01", "40001"}

    def test_the_first_two_of_a_referrer_are_counted_at_once(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        for player in "ab":
            invite(sql, player, "anna")
        first, second = sql.claim("pending", 1000, LEASE, 2)
        begun, counted = threading.Event(), threading.Event()

        def count_second() -> None:
            # As in a site's own session: with the isolation that the server has.
            with other_transaction(url) as connection:
                transaction = sql.within(connection)
                transaction.of("b", False)  # from here on MariaDB reads what was then
                begun.set()
                assert counted.wait(20)
                transaction.count(reached(second._replace(state="accepted"), "pending"))

        with ThreadPoolExecutor(1) as pool:
            counting = pool.submit(count_second)
            assert begun.wait(20)
            with other_transaction(url) as connection:
                accepted = first._replace(state="accepted")
                sql.within(connection).count(reached(accepted, "pending"))
                counted.set()
                time.sleep(0.2)
                assert not counting.done()
            counting.result()
        assert sql.inspector.best_referrers() == [("anna", 2, 0, 0)]
        assert sql.inspector.days(0, 1)[0].accepted == 2

    @pytest.mark.slow
    def test_workers_do_not_get_in_each_other_s_way(self, url: URL) -> None:
        events = 2000 if url.get_backend_name() == "postgresql" else 800
        result = storm(url.render_as_string(False), events=events)
        assert result.counts == {"accepted": events}
        assert set(result.claims.values()) == {1}
        assert set(result.settled.values()) == {1}
        assert len(result.settled) == events
        assert result.too_early == []


def wait_for_other(
    sql: SQLAlchemyOutbox,
    url: URL,
    first: t.Callable[[Transaction], object],
    second: t.Callable[[], T],
) -> T:
    """What comes of a second thing that has to wait for somebody else's first one."""
    with ThreadPoolExecutor(1) as pool:
        with other_transaction(url) as connection:
            first(sql.within(connection))
            waiting = pool.submit(second)
            time.sleep(0.2)  # it would be through by then
            assert not waiting.done()
        return waiting.result()


@contextlib.contextmanager
def other_transaction(url: URL) -> t.Iterator[Connection]:
    """Somebody else's, who takes their time."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def hold_player(sql: SQLAlchemyOutbox, connection: Connection) -> None:
    (entry,) = sql.within(connection).of("7", False).values()
    touch(sql, connection, entry)


def touch(sql: SQLAlchemyOutbox, connection: Connection, entry: Entry) -> None:
    event = sql.tables.event
    connection.execute(
        update(event).where(event.c.id == entry.id).values(crashes=event.c.crashes + 1)
    )


class TestQueries:
    """What is asked on the way to MMOLove must not grow with what stands there."""

    def test_they_use_an_index(self, sql: SQLAlchemyOutbox) -> None:
        sql.create()
        fill(sql)
        engine = sql._engine()
        asked: list[tuple[str, t.Any]] = []

        @events_of.listens_for(engine, "before_cursor_execute")
        def note(*called: t.Any) -> None:
            _, _, statement, parameters, _, many = called
            if statement.startswith(("SELECT", "UPDATE")) and "event" in statement:
                asked.append((statement, parameters[0] if many else parameters))

        entries = sql.claim("pending", 5000, LEASE, 8)
        sql.settle(
            [Settlement(each, "accepted", is_fact=True) for each in entries], 5000
        )
        sql.next_due(5000)
        add(sql, "7", "registered", "qualified")
        sql.of("7", False)
        events_of.remove(engine, "before_cursor_execute", note)
        assert len(asked) >= 9
        with engine.connect() as connection:
            for statement, parameters in asked:
                rows = connection.exec_driver_sql(
                    f"{EXPLAIN[engine.dialect.name]} {statement}", parameters
                )
                plan = [dict(row) for row in rows.mappings()]
                assert is_quick(plan), (statement, plan)


EXPLAIN = {
    "sqlite": "EXPLAIN QUERY PLAN",
    "postgresql": "EXPLAIN",
    "mariadb": "EXPLAIN",
}


def is_quick(plan: list[dict[str, t.Any]]) -> bool:
    text = " ".join(str(row) for row in plan)
    if any(
        word in text for word in ("Seq Scan", "Sort", "SCAN mmolove", "TEMP B-TREE")
    ):
        return False
    if "Using filesort" in text:
        return False
    return all(row.get("type") not in ("ALL", "index") for row in plan)


def fill(sql: SQLAlchemyOutbox) -> None:
    """Thousands of entries in all states, as on a site that has run for long."""
    event = make_event("registered", "0", "t", "s", 1_700_000_000_000, False)
    entry = new_entry("0", event, ("pending", 1000), 1000)
    rows = []
    for number in range(6000):
        state: EntryState = "pending" if number % 3 else "accepted"
        due = 1000 + number if number % 3 == 1 else None
        row = entry._replace(
            identity=str(number), state=state, due=due, digest=f"{number:032}"
        )
        rows.append({k: v for k, v in row._asdict().items() if k != "id"})
    analyze = "ANALYZE TABLE" if sql._is_mysql else "ANALYZE"
    with sql._engine().begin() as connection:
        connection.execute(insert(sql.tables.event), rows)
    with sql._engine().begin() as connection:
        connection.exec_driver_sql(f"{analyze} mmolove_event").close()
