from __future__ import annotations

import logging
import sqlite3
import threading
import time
import typing as t
from functools import partial
from pathlib import Path

import pytest

from flask_mmolove import OutboxBusy
from flask_mmolove import Outcome
from flask_mmolove import ReferralClient
from flask_mmolove import RewardLater
from flask_mmolove.delivery import Delivery
from flask_mmolove.delivery import Promise
from flask_mmolove.delivery import Senders
from flask_mmolove.delivery import ThreadEngine
from flask_mmolove.delivery.backoff import backoff
from flask_mmolove.delivery.grant import REWARD_LEASE
from flask_mmolove.delivery.lease import Leases
from flask_mmolove.outbox import Entry
from flask_mmolove.outbox import RewardBreaker
from flask_mmolove.outbox import Settlement
from flask_mmolove.outbox import Spool
from flask_mmolove.outbox.entry import make_event
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.protocol.response import Verdict
from flask_mmolove.protocol.wire import shorten
from flask_mmolove.sandbox import Faults
from flask_mmolove.settings import Settings
from flask_mmolove.testing import SiteSandbox

DAY = 86_400.0


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.time = 1_790_000_000.0

    def __call__(self) -> float:
        return self.time


class Grant:
    """A reward callback that fails as often as it is told."""

    def __init__(self, failures: int = 0, promise: Promise = "at-least-once") -> None:
        self.failures = failures
        self.promise: Promise = promise
        self.given: list[str] = []

    def prepare(self, entry: Entry) -> t.Callable[[], None]:
        return partial(self.give, entry)

    def give(self, entry: Entry) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the game is down")
        self.given.append(entry.identity)


class Bench:
    """A delivery with everything around it real but its clock."""

    def __init__(self, site: SiteSandbox, folder: Path, grant: Grant | None) -> None:
        self.site = site
        self.clock = Clock()
        site.sandbox.service.clock = self.clock
        self.outbox = SQLiteOutbox(folder / "bench.db")
        self.told: list[tuple[str, str]] = []
        self.grant = grant
        self.settings = Settings.from_config(site.config, folder)
        self.delivery = self.new_process()

    def new_process(self, lease: int = REWARD_LEASE) -> Delivery:
        client = ReferralClient(
            server_id=self.settings.server_id,
            secret=self.settings.secret,
            endpoint=self.settings.endpoint,
            clock=self.clock,
        )
        return Delivery(
            self.outbox,
            client,
            self.settings,
            Spool(self.outbox._db.path, self.settings.secret),
            reward=lambda: self.grant,
            report=lambda entry: self.told.append((entry.event, entry.state)),
            clock=self.clock,
            lease=lease,
        )

    def add(self, identity: str, *names: str, token: str | None = None) -> None:
        token = token or self.site.mint()
        server_id = self.settings.server_id
        events = [
            make_event(name, identity, token, server_id, self.delivery.now(), False)
            for name in names
        ]
        self.outbox.add(identity, events, self.delivery.now())

    def state(self, identity: str, name: str) -> str:
        return self.outbox.of(identity, False)[name].state

    def pass_time(self, seconds: float, steps: int = 1) -> None:
        for _ in range(steps):
            self.clock.time += seconds / steps
            self.delivery.drain()


Fixture = t.Callable[..., Bench]


@pytest.fixture
def make_bench(mmolove_sandbox: SiteSandbox, tmp_path: Path) -> t.Iterator[Fixture]:
    benches: list[Bench] = []

    def make(grant: Grant | None = None) -> Bench:
        benches.append(Bench(mmolove_sandbox, tmp_path, grant))
        return benches[-1]

    yield make
    for bench in benches:
        bench.outbox.close()


@pytest.fixture
def bench(make_bench: Fixture) -> Bench:
    return make_bench(Grant())


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
    assert "MMOLove fails; all of them wait" in record.getMessage()


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


class TestReward:
    def test_one_that_was_given_but_not_settled_is_not_given_again(
        self, make_bench: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: Bench = make_bench(grant := Grant())
        made.add("7", "registered", "qualified")
        settle = made.outbox.settle

        def fail(settlements: t.Any, *args: t.Any) -> list[Entry]:
            if settlements[0].state == "rewarded":
                raise OSError("the disk is full")
            return settle(settlements, *args)

        monkeypatch.setattr(made.outbox, "settle", fail)
        with pytest.raises(OSError, match="full"):
            made.delivery.drain()
        monkeypatch.setattr(made.outbox, "settle", settle)
        made.pass_time(600)
        assert made.state("7", "qualified") == "rewarded"
        assert grant.given == ["7"]

    def test_that_one_was_told_of_in_vain_makes_no_later_one_seem_given(
        self, make_bench: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: Bench = make_bench(grant := Grant())
        made.add("7", "registered", "qualified")
        told = made.delivery._tell._report

        def fail(entry: Entry) -> None:
            if entry.state == "rewarded":
                raise OSError("a moment of trouble")

        monkeypatch.setattr(made.delivery._tell, "_report", fail)
        with pytest.raises(OSError, match="trouble"):
            made.delivery.drain()
        monkeypatch.setattr(made.delivery._tell, "_report", told)
        made.outbox.inspector.erase("7")
        made.add("7", "registered", "qualified")
        now = made.delivery.now()
        for _ in range(2):
            (entry,) = made.outbox.claim("pending", now, 1000, 1)
            due = now if entry.event == "qualified" else None
            made.outbox.settle([Settlement(entry, "accepted", due, is_fact=True)], now)
        made.delivery.drain()
        assert made.state("7", "qualified") == "rewarded"
        assert grant.given == ["7", "7"]

    def test_a_callback_that_raises_is_called_again(self, make_bench: Fixture) -> None:
        bench = make_bench(grant := Grant(failures=3))
        bench.add("7", "registered", "qualified")
        bench.pass_time(DAY, steps=50)
        assert grant.given == ["7"]
        assert bench.state("7", "qualified") == "rewarded"
        assert bench.told.count(("qualified", "accepted")) == 1

    def test_it_waits_out_a_restart_of_the_game(self, make_bench: Fixture) -> None:
        bench = make_bench(grant := Grant(failures=10**9))
        for identity in "abcdefgh":
            bench.add(identity, "registered", "qualified")
        bench.pass_time(2 * 3600, steps=240)
        assert 100 < 10**9 - grant.failures < 140  # one a minute, not one each
        assert bench.outbox.reward_breaker().is_open
        assert bench.outbox.reward_breaker().reason == "RuntimeError: the game is down"
        grant.failures = 0
        bench.pass_time(61, steps=61)
        assert sorted(grant.given) == list("abcdefgh")
        assert bench.outbox.reward_breaker() == RewardBreaker()

    def test_one_that_fails_alone_holds_up_no_other(self, make_bench: Fixture) -> None:
        class Poison(Grant):
            def give(self, entry: Entry) -> None:
                if entry.identity == "poison":
                    raise RuntimeError("no such item")
                super().give(entry)

        bench = make_bench(grant := Poison())
        bench.add("poison", "registered", "qualified")
        bench.pass_time(3600, steps=60)
        assert not bench.outbox.reward_breaker().is_open
        bench.add("7", "registered", "qualified")
        bench.delivery.drain()
        assert grant.given == ["7"]

    @pytest.mark.slow
    def test_one_that_fails_for_days_is_left_to_a_person(
        self, make_bench: Fixture, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = make_bench(grant := Grant(failures=10**9))
        bench.add("7", "registered", "qualified")
        bench.pass_time(6.9 * DAY, steps=700)
        assert bench.state("7", "qualified") == "accepted"
        bench.pass_time(0.2 * DAY, steps=20)
        entry = bench.outbox.of("7", False)["qualified"]
        assert (entry.state, entry.answer) == (
            "unpaid",
            "RuntimeError: the game is down",
        )
        assert "flask mmolove rewards" in caplog.text
        grant.failures = 0
        assert bench.outbox.retry_rewards(bench.delivery.now()) == 1
        bench.delivery.drain()
        assert grant.given == ["7"]

    @pytest.mark.slow
    def test_first_retries_are_quick_and_later_ones_a_quarter_of_an_hour_apart(
        self, make_bench: Fixture
    ) -> None:
        called: list[float] = []

        class Noting(Grant):
            def give(self, entry: Entry) -> None:
                called.append(made.clock.time)
                raise RuntimeError("the game is down")

        made: Bench = make_bench(Noting())
        made.add("7", "registered", "qualified")
        made.pass_time(60, steps=60)
        assert len(called) >= 4
        made.pass_time(DAY, steps=1440)
        pauses = [b - a for a, b in zip(called, called[1:], strict=False)]
        assert max(pauses) <= 15 * 60 + 60

    @pytest.mark.parametrize("promise", t.get_args(Promise)[:2])
    def test_not_now_is_no_failure_and_has_no_traceback(
        self, make_bench: Fixture, promise: Promise, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Restarting(Grant):
            def give(self, entry: Entry) -> None:
                if self.failures:
                    self.failures -= 1
                    raise RewardLater("the game restarts")
                super().give(entry)

        bench = make_bench(grant := Restarting(2, promise))
        bench.add("7", "registered", "qualified")
        bench.delivery.drain()
        (failing,) = bench.outbox.inspector.failing_rewards()
        assert (failing.answer, failing.status) == ("the game restarts", None)
        bench.pass_time(60, steps=60)
        assert grant.given == ["7"]
        assert "the game restarts" in caplog.text
        assert "Traceback" not in caplog.text

    def test_at_most_once_is_not_called_again_after_it_raised(
        self, make_bench: Fixture
    ) -> None:
        bench = make_bench(grant := Grant(1, "at-most-once"))
        bench.add("7", "registered", "qualified")
        bench.pass_time(DAY, steps=10)
        entry = bench.outbox.of("7", False)["qualified"]
        assert (entry.state, grant.given) == ("unknown", [])
        assert entry.answer == "RuntimeError: the game is down"
        assert bench.outbox.decide(entry.id, "rewarded", bench.delivery.now())
        assert bench.state("7", "qualified") == "rewarded"

    def test_at_most_once_is_noted_before_the_call(self, make_bench: Fixture) -> None:
        seen: list[str] = []

        class Watching(Grant):
            def give(self, entry: Entry) -> None:
                seen.append(made.state(entry.identity, "qualified"))

        made: Bench = make_bench(Watching(promise="at-most-once"))
        made.add("7", "registered", "qualified")
        made.delivery.drain()
        assert seen == ["unknown"]
        assert made.state("7", "qualified") == "rewarded"

    def test_without_a_callback_it_is_set_aside(self, make_bench: Fixture) -> None:
        bench = make_bench(None)
        bench.add("7", "registered", "qualified")
        bench.delivery.drain()
        assert bench.state("7", "qualified") == "unpaid"


class TestLease:
    """A callback that takes longer than the lease of its reward."""

    def test_one_that_outlasts_it_is_called_once(self, make_bench: Fixture) -> None:
        class Long(Grant):
            def give(self, entry: Entry) -> None:
                super().give(entry)
                for _ in range(20):
                    made.clock.time += 200
                    assert leases(made).renew()
                    other = made.new_process()
                    other.drain()

        made: Bench = make_bench(grant := Long())
        made.add("7", "registered", "qualified")
        made.delivery.drain()
        assert made.state("7", "qualified") == "rewarded"
        assert grant.given == ["7"]

    @pytest.mark.parametrize("promise", ["at-least-once", "at-most-once"])
    def test_a_process_paused_before_the_call_leaves_it_to_who_has_claimed_it(
        self, make_bench: Fixture, promise: Promise
    ) -> None:
        class Pausing(Grant):
            def prepare(self, entry: Entry) -> t.Callable[[], None]:
                give = super().prepare(entry)
                if made.clock.time == started:
                    made.clock.time += 301
                    made.new_process().drain()
                return give

        made: Bench = make_bench(grant := Pausing(promise=promise))
        started = made.clock.time
        made.add("7", "registered", "qualified")
        made.delivery.drain()
        assert made.state("7", "qualified") == "rewarded"
        assert grant.given == ["7"]

    def test_a_pause_in_which_nobody_claims_it_changes_nothing(
        self, make_bench: Fixture
    ) -> None:
        class Pausing(Grant):
            def prepare(self, entry: Entry) -> t.Callable[[], None]:
                made.clock.time += 301
                return super().prepare(entry)

            def give(self, entry: Entry) -> None:
                super().give(entry)
                made.new_process().drain()  # and it is renewed before the call

        made: Bench = make_bench(grant := Pausing())
        made.add("7", "registered", "qualified")
        made.delivery.drain()
        assert grant.given == ["7"]

    def test_one_that_was_taken_over_meanwhile_is_told(
        self, make_bench: Fixture, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Paused(Grant):
            def give(self, entry: Entry) -> None:
                super().give(entry)
                if len(self.given) == 1:
                    made.clock.time += 301
                    made.new_process().drain()
                    assert leases(made).renew()

        made: Bench = make_bench(grant := Paused())
        made.add("7", "registered", "qualified")
        made.delivery.drain()
        assert grant.given == ["7", "7"]
        assert "another one has taken it over" in caplog.text

    def test_what_ended_while_it_was_renewed_was_not_taken_over(
        self,
        make_bench: Fixture,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        made: Bench = make_bench(Grant())
        made.add("7", "registered")
        (entry,) = made.outbox.claim("pending", made.delivery.now(), 1000, 1)
        kept = leases(made).keep(entry)
        kept.__enter__()

        def end(entries: list[Entry], *args: t.Any) -> list[Entry]:
            kept.__exit__(None, None, None)
            return entries

        monkeypatch.setattr(made.outbox, "renew", end)
        assert leases(made).renew()
        assert caplog.text == ""

    def test_a_store_that_is_busy_is_tried_again(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.add("7", "registered")
        delivery = bench.new_process(lease=30)
        (entry,) = bench.outbox.claim("pending", delivery.now(), 30, 1)
        renewed = threading.Event()
        failures: list[t.Any] = []

        def renew(*args: t.Any) -> list[Entry]:
            if len(failures) < 3:
                failures.append(args)
                raise OutboxBusy("The outbox was kept busy.")
            renewed.set()
            return []

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.outbox, "renew", renew)
            with delivery._granter._leases.keep(entry):
                assert renewed.wait(20)
        assert caplog.text.count("Leases cannot be renewed for now") == 1

    def test_a_thread_renews_them_and_ends_with_the_work(
        self, make_bench: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        renewed = threading.Semaphore(0)
        threads: list[threading.Thread] = []

        class Long(Grant):
            def give(self, entry: Entry) -> None:
                for _ in range(3):
                    assert renewed.acquire(timeout=20)
                threads.extend(threads_for_leases())
                super().give(entry)

        made: Bench = make_bench(grant := Long())
        renew = made.outbox.renew

        def note(*args: t.Any) -> list[Entry]:
            lost = renew(*args)
            renewed.release()
            return lost

        monkeypatch.setattr(made.outbox, "renew", note)
        for player in "789":
            made.add(player, "registered", "qualified")
        made.new_process(lease=90).drain()
        assert grant.given == ["7", "8", "9"]
        for thread in threads:
            thread.join(20)
        assert threads and threads_for_leases() == []

    def test_without_threads_it_is_given_all_the_same(
        self, make_bench: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "flask-mmolove-leases":
                raise RuntimeError("can't start new thread")
            start(thread)

        made: Bench = make_bench(grant := Grant())
        made.add("7", "registered", "qualified")
        monkeypatch.setattr(threading.Thread, "start", refuse)
        made.delivery.drain()
        assert grant.given == ["7"]


def leases(bench: Bench) -> Leases:
    return bench.delivery._granter._leases


def threads_for_leases() -> list[threading.Thread]:
    found = threading.enumerate()
    return [thread for thread in found if thread.name == "flask-mmolove-leases"]


def test_a_step_can_be_for_some_entries_only(bench: Bench) -> None:
    for player in ("1", "2", "3"):
        bench.add(player, "registered")
    named = bench.outbox.of("2", False)["registered"].id
    assert bench.delivery.step(ids=[named]) == 1
    assert bench.site.reported == [("registered", "2")]


class TestThread:
    @pytest.fixture
    def engine(self, bench: Bench) -> t.Iterator[ThreadEngine]:
        engine = ThreadEngine(bench.new_process, 4)
        yield engine
        engine.stop()

    def test_it_delivers_what_it_is_woken_for(
        self, bench: Bench, engine: ThreadEngine
    ) -> None:
        told = _event_on(bench, 40)
        engine.start()
        for number in range(20):
            bench.add(str(number), "registered", "qualified")
        engine.wake()
        assert told.wait(20)
        assert bench.grant is not None
        assert len(bench.grant.given) == 20

    def test_nothing_runs_before_the_first_request(self, bench: Bench) -> None:
        ThreadEngine(bench.new_process, 4)
        names = [thread.name for thread in threading.enumerate()]
        assert "flask-mmolove" not in names

    def test_an_orderly_stop_gives_claims_back(
        self,
        bench: Bench,
        engine: ThreadEngine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        bench.site.sandbox.faults = Faults(latency=30)
        for number in range(8):
            bench.add(str(number), "registered")
        claimed = threading.Event()
        claim = bench.outbox.claim

        def note(*args: t.Any) -> list[Entry]:
            entries = claim(*args)
            if entries:
                claimed.set()
            return entries

        monkeypatch.setattr(bench.outbox, "claim", note)
        engine.wake()
        assert claimed.wait(20)
        engine.stop()
        bench.site.sandbox.stop()
        entries = [bench.outbox.of(str(n), False)["registered"] for n in range(8)]
        assert [entry.claim for entry in entries] == [None] * 8


def _event_on(bench: Bench, count: int) -> threading.Event:
    """Set when so many entries are accepted or rewarded."""
    reached = threading.Event()
    told = bench.told

    class Counting(list[tuple[str, str]]):
        def append(self, item: tuple[str, str]) -> None:
            super().append(item)
            done = [s for _, s in self if s in ("accepted", "rewarded")]
            if len(done) >= count + count // 2:
                reached.set()

    bench.told = Counting(told)
    return reached


def test_backoff_grows_with_full_jitter_and_is_bounded() -> None:
    lows, highs = [], []
    for attempts in (0, 1, 2, 5, 12, 40, 10_000):
        lows.append(backoff(attempts, lambda low, high: low))
        highs.append(backoff(attempts, lambda low, high: high))
    assert lows == [1000] * 7
    assert highs == [2000, 2000, 4000, 32_000, 4_096_000, 14_400_000, 14_400_000]
