"""One step of the delivery."""

from __future__ import annotations

import logging
import sqlite3
import time
import typing as t

import pytest

from flask_mmolove import OutboxBusy
from flask_mmolove import Outcome
from flask_mmolove import ReferralClient
from flask_mmolove.delivery.senders import Senders
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.protocol.response import Verdict
from flask_mmolove.protocol.wire import shorten
from flask_mmolove.sandbox import Faults
from flask_mmolove.settings import Settings
from tests.delivery.bench import Bench
from tests.delivery.bench import Grant
from tests.delivery.conftest import Fixture

DAY = 86_400.0


def test_everything_due_is_delivered_in_order_and_rewarded_once(bench: Bench) -> None:
    for identity in "abc":
        bench.add(identity, "registered", "qualified")
    bench.delivery.drain()
    assert sorted(bench.site.reported) == sorted(
        (name, identity) for identity in "abc" for name in ("registered", "qualified")
    )
    assert bench.grant is not None
    assert sorted(bench.grant.given) == ["a", "b", "c"]
    assert bench.delivery.drain() == 0


def test_nothing_is_begun_when_it_is_late(bench: Bench) -> None:
    assert bench.grant is not None
    bench.add("7", "registered", "qualified")
    assert bench.delivery.step(until=0) == 0
    assert bench.site.sandbox.arrivals == []
    bench.delivery.step()
    now = bench.delivery.now()
    (milestone,) = bench.outbox.claim("pending", now, 60_000, 1)
    bench.outbox.settle([Settlement(milestone, "accepted", now, True, True)], now)
    assert bench.delivery.step(until=0) == 0
    assert bench.grant.given == []
    bench.delivery.drain()
    assert bench.grant.given == ["7"]
    assert len(bench.site.sandbox.arrivals) == 1


def test_each_attempt_is_signed_at_its_own_time(bench: Bench) -> None:
    bench.site.sandbox.faults = Faults(fail=503)
    bench.add("7", "registered")
    bench.delivery.drain()
    bench.site.sandbox.faults = Faults()
    # A signature of the first attempt would long be out of MMOLove's window.
    bench.pass_time(DAY)
    assert bench.state("7", "registered") == "accepted"
    first, *_, last = bench.site.sandbox.arrivals
    assert first.status == 503
    assert last.status == 200


def test_a_lost_answer_is_sent_again_and_counts_once(bench: Bench) -> None:
    bench.site.sandbox.faults = Faults(drop="response")
    bench.add("7", "registered", "qualified")
    bench.delivery.drain()
    assert bench.state("7", "registered") == "pending"
    bench.site.sandbox.faults = Faults()
    bench.pass_time(60)
    assert bench.state("7", "qualified") == "rewarded"
    assert bench.site.reported == [("registered", "7"), ("qualified", "7")]
    outcomes = [arrival.outcome for arrival in bench.site.sandbox.arrivals]
    assert outcomes == ["accepted", "duplicate", "accepted"]
    entries = bench.outbox.of("7", False)
    assert entries["registered"].attempts == 2
    assert entries["qualified"].attempts == 1  # of its reward


def test_a_duplicate_pays_when_our_ledger_shows_no_payment(bench: Bench) -> None:
    token = bench.site.mint()
    bench.add("7", "registered", token=token)
    bench.delivery.drain()
    bench.site.sandbox.faults = Faults(drop="response")
    bench.add("7", "qualified", token=token)
    bench.delivery.drain()
    bench.site.sandbox.faults = Faults()
    bench.pass_time(60)
    assert bench.grant is not None
    assert bench.grant.given == ["7"]


def test_a_first_touch_conflict_is_never_rewarded(bench: Bench) -> None:
    bench.add("7", "registered")
    bench.delivery.drain()
    # The same account comes again from a store that knows nothing of the first.
    bench.outbox = SQLiteOutbox(bench.outbox._db.path.with_name("other.db"))
    bench.delivery = bench.new_process()
    bench.add("7", "registered", "qualified")
    bench.delivery.drain()
    assert bench.state("7", "registered") == "ignored"
    assert bench.state("7", "qualified") == "ignored"
    assert bench.grant is not None
    assert bench.grant.given == []


def test_a_worker_that_died_is_taken_over_when_its_lease_ends(bench: Bench) -> None:
    bench.add("7", "registered")
    bench.outbox.claim("pending", bench.delivery.now(), 120_000, 1)
    bench.pass_time(119)
    assert bench.state("7", "registered") == "pending"
    bench.pass_time(2)
    assert bench.state("7", "registered") == "accepted"


def test_what_was_answered_but_not_settled_is_not_sent_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add("7", "registered")
    settle = bench.outbox.settle

    def fail(*args: t.Any) -> t.NoReturn:
        raise OSError("the disk is full")

    monkeypatch.setattr(bench.outbox, "settle", fail)
    with pytest.raises(OSError, match="full"):
        bench.delivery.step()
    monkeypatch.setattr(bench.outbox, "settle", settle)
    bench.delivery.step()
    assert bench.state("7", "registered") == "accepted"
    assert len(bench.site.sandbox.arrivals) == 1


@pytest.mark.parametrize("senders", [1, 4])
def test_nothing_is_begun_or_sent_twice_when_the_outbox_fails_in_the_middle(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, senders: int
) -> None:
    for number in range(32):
        bench.add(str(number), "registered")
    settle, run = bench.outbox.settle, Senders(senders).run
    monkeypatch.setattr("flask_mmolove.delivery.step._GROUP_SECONDS", 60)

    def fail(*args: t.Any) -> t.NoReturn:
        raise OSError("the disk is full")

    monkeypatch.setattr(bench.outbox, "settle", fail)
    with pytest.raises(OSError, match="full"):
        bench.delivery.step(run)
    if senders == 1:
        assert len(bench.site.sandbox.arrivals) == 16
    monkeypatch.setattr(bench.outbox, "settle", settle)
    while bench.outbox.inspector.count("accepted") < 32:
        bench.delivery.step(run)
    assert len(bench.site.sandbox.arrivals) == 32


def test_a_claim_that_may_end_before_the_attempt_is_given_back(bench: Bench) -> None:
    bench.add("7", "registered")

    def late(attempt: t.Any, entries: t.Sequence[Entry]) -> t.Iterator[t.Any]:
        bench.clock.time += 115
        return map(attempt, entries)

    assert bench.delivery.step(late) == 0
    assert bench.site.sandbox.arrivals == []
    assert bench.outbox.of("7", False)["registered"].attempts == 0


@pytest.mark.parametrize("days", [0, 30])
def test_it_gives_up_by_age_and_attempts(bench: Bench, days: int) -> None:
    bench.site.sandbox.faults = Faults(fail=408)
    bench.add("7", "registered")
    bench.clock.time += days * DAY  # in which nothing delivers, and nothing ages
    bench.pass_time(6 * DAY, steps=100)
    entry = bench.outbox.of("7", False)["registered"]
    assert (entry.state, entry.attempts >= 12) == ("pending", True)
    bench.pass_time(2 * DAY, steps=12)
    assert bench.state("7", "registered") == "rejected"
    assert ("registered", "rejected") in bench.told


@pytest.mark.slow
@pytest.mark.slow
def test_an_outage_makes_no_event_too_old(bench: Bench) -> None:
    bench.site.sandbox.stop()
    for identity in "abcdefgh":
        bench.add(identity, "registered")
    bench.pass_time(60 * DAY, steps=400)
    assert bench.outbox.inspector.summary().counts == {"pending": 8}
    bench.site.sandbox.start()
    bench.pass_time(DAY, steps=40)
    assert bench.outbox.inspector.summary().counts == {"accepted": 8}


def test_an_outage_is_found_out_by_a_few_attempts(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.site.sandbox.faults = Faults(fail=503)
    for number in range(200):
        bench.add(str(number), "registered")
    with caplog.at_level(logging.WARNING):
        bench.pass_time(10)
    assert len(bench.site.sandbox.arrivals) <= 64
    (record,) = caplog.records
    assert "MMOLove fails: sending is paused" in record.getMessage()


def test_a_wrong_secret_stops_after_a_few_and_nothing_is_lost(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    good = bench.settings
    bench.settings = Settings.from_config(
        {**bench.site.config, "MMOLOVE_REFERRAL_SECRET": "a typo"}, "/"
    )
    bench.delivery = bench.new_process()
    for number in range(100):
        bench.add(str(number), "registered")
    bench.delivery.drain()
    assert bench.outbox.inspector.summary().counts == {"pending": 100}
    assert len(bench.site.sandbox.arrivals) <= 32
    assert bench.outbox.breaker().open_since is not None
    bench.settings = good
    bench.delivery = bench.new_process()
    assert "have changed" not in caplog.text
    bench.pass_time(3600, steps=60)
    assert bench.outbox.inspector.summary().counts == {"accepted": 100}
    # Told though nothing was rejected: another site may use this outbox.
    assert caplog.text.count("The settings for MMOLove have changed") == 1


def test_a_mend_at_mmolove_sends_what_was_refused_again(bench: Bench) -> None:
    for number in range(10):
        bench.add(str(number), "registered")
    servers = bench.site.sandbox.service.servers
    bench.site.sandbox.service.servers = {}
    bench.delivery.drain()
    assert bench.outbox.inspector.summary().counts == {"pending": 10}
    bench.site.sandbox.service.servers = servers
    bench.pass_time(3600, steps=60)
    assert bench.outbox.inspector.summary().counts == {"accepted": 10}


def test_a_bad_token_is_rejected_and_does_not_come_back_for_ever(bench: Bench) -> None:
    for number in range(5):
        bench.add(f"bad-{number}", "registered", token=f"junk-{number}")
    bench.delivery.drain()
    bench.add("good", "registered")
    bench.pass_time(2 * DAY, steps=400)
    assert bench.state("good", "registered") == "accepted"
    assert bench.outbox.inspector.summary().counts == {"accepted": 1, "rejected": 5}
    assert len(bench.site.sandbox.arrivals) < 100


def test_an_answer_that_quotes_the_token_shows_it_shortened(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = bench.site.mint()
    quoting = Outcome(400, f"no such\n  token: {token}", Verdict.REJECTED)
    monkeypatch.setattr(ReferralClient, "send", lambda self, body: quoting)
    bench.add("7", "registered", token=token)
    bench.delivery.drain()
    entry = bench.outbox.of("7", False)["registered"]
    assert entry.answer == f"no such token: {shorten(token)}"
    assert token not in caplog.text


def test_a_callback_that_exits_ends_nothing(make_bench: Fixture) -> None:
    class Exiting(Grant):
        def give(self, entry: Entry) -> None:
            raise SystemExit("the game's own idea")

    made: Bench = make_bench(Exiting())
    made.add("7", "registered", "qualified")
    made.pass_time(DAY, steps=30)
    made.add("8", "registered")
    made.delivery.drain()
    assert made.state("7", "qualified") == "accepted"
    assert made.state("8", "registered") == "accepted"


def test_a_stop_does_not_wait_for_a_store_that_is_held(bench: Bench) -> None:
    bench.add("7", "registered")
    stopped = []

    def stop_in_between(
        attempt: t.Any, entries: t.Sequence[Entry]
    ) -> t.Iterator[t.Any]:
        holder = sqlite3.connect(bench.outbox._db.path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(OutboxBusy):
            bench.delivery.stop()
        stopped.append(time.monotonic() - started)
        holder.close()
        return map(attempt, entries)

    bench.delivery.step(stop_in_between)
    assert stopped[0] < 5


def test_a_step_can_be_for_some_entries_only(bench: Bench) -> None:
    for player in ("1", "2", "3"):
        bench.add(player, "registered")
    named = bench.outbox.of("2", False)["registered"].id
    assert bench.delivery.step(ids=[named]) == 1
    assert bench.site.reported == [("registered", "2")]


def test_how_long_each_attempt_took_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = ReferralClient.send

    def take_long(client: ReferralClient, body: bytes) -> Outcome:
        return send(client, body)._replace(took=1.25)

    monkeypatch.setattr(ReferralClient, "send", take_long)
    bench.add("7", "registered", "qualified")
    bench.delivery.drain()
    entries = bench.outbox.of("7", False)
    assert [answer.took for answer in entries["registered"].answers] == [1250]
    sent, granted = entries["qualified"].answers, entries["qualified"].took
    assert [answer.took for answer in sent] == [1250]
    assert granted is not None and granted < 1250
