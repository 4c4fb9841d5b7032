"""A reward whose callback takes longer than its lease, in several processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import OutboxBusy
from flask_mmolove import ReferralClient
from flask_mmolove.delivery.grant import Promise
from flask_mmolove.delivery.lease import Leases
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.store import Outbox
from flask_mmolove.protocol.response import Outcome
from tests.conftest import find_url
from tests.conftest import SQL
from tests.delivery.bench import Bench
from tests.delivery.bench import Grant
from tests.delivery.conftest import Fixture
from tests.delivery.longcall import open_outbox
from tests.outbox.recording import add

LEASE = 900

PROMISES = ("at-least-once", "at-most-once")


class Due:
    """An outbox in which one reward is due."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.outbox: Outbox = open_outbox(where)
        now = int(time.time() * 1000)
        add(self.outbox, "7", "registered", "qualified", now=now)
        for due in (None, now):
            (entry,) = self.outbox.claim("pending", now, 60_000, 1)
            settled = Settlement(
                entry, "accepted", due, is_fact=True, resets_attempts=True
            )
            self.outbox.settle([settled], now)

    @property
    def entry(self) -> Entry:
        return self.outbox.of("7", False)["qualified"]

    @contextlib.contextmanager
    def granter(self, promise: str, lease: int, now: int = 0) -> t.Iterator[Process]:
        command = [sys.executable, str(Path(__file__).with_name("longcall.py"))]
        with subprocess.Popen(
            [*command, self.where, promise, str(lease), str(now)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as popen:
            process = Process(popen)
            try:
                yield process
            finally:
                popen.kill()


class Process:
    """One that pays; see :mod:`longcall`."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.pid = popen.pid
        assert popen.stdin and popen.stdout
        self._input = popen.stdin
        self._output = popen.stdout

    def go_on(self) -> None:
        self._input.write("\n")
        self._input.flush()

    def await_word(self, word: str) -> list[str]:
        """What it says until it says this."""
        said: list[str] = []
        while not said or said[-1] != word:
            line = self._output.readline()
            assert line, f"It ended after {said}."
            said.append(line.strip())
        return said

    def finish(self) -> list[str]:
        """What it says until its end, where it need not be waited for."""
        self._input.close()
        said = self.await_word("done")
        return [word for word in said if word not in ("renewed", "failed")]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SQL]


@pytest.fixture(params=("own", *SLOW))
def due(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[Due]:
    if request.param == "own":
        where = str(tmp_path / "outbox.db")
    else:
        url = find_url(request.param, request)
        where = url.render_as_string(hide_password=False)
    due = Due(where)
    yield due
    due.outbox.close()


def test_a_callback_that_outlasts_its_lease_is_called_once(due: Due) -> None:
    with due.granter("at-least-once", LEASE) as first:
        first.await_word("claimed")
        ends = due.entry.due
        assert ends is not None
        first.go_on()
        first.await_word("called")
        first.await_word("renewed")
        # To the second one the first lease is over.
        with due.granter("at-least-once", LEASE, ends + 1) as second:
            assert second.finish() == ["done"]
        assert first.finish() == ["rewarded", "done"]
    assert due.entry.state == "rewarded"


def test_nobody_takes_one_in_doubt_whose_callback_runs(due: Due) -> None:
    with due.granter("at-most-once", LEASE) as first:
        first.await_word("claimed")
        first.go_on()
        first.await_word("called")
        begun = due.entry
        assert begun.state == "reward_unconfirmed" and begun.due is not None
        first.await_word("renewed")
        renewed = due.entry.due
        assert renewed is not None and renewed > begun.due
        assert first.finish() == ["rewarded", "done"]


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
def test_a_process_that_was_paused_calls_nothing_that_another_has_claimed(
    due: Due, promise: str
) -> None:
    with due.granter(promise, 1) as first:
        first.await_word("claimed")
        os.kill(first.pid, signal.SIGSTOP)
        with due.granter(promise, 1) as second:
            said = second.finish()
            assert "called" in said and said[-2:] == ["rewarded", "done"]
        os.kill(first.pid, signal.SIGCONT)
        assert first.finish() == ["done"]
    assert due.entry.state == "rewarded"


@pytest.mark.slow
@pytest.mark.parametrize("due", ["own"], indirect=True)
def test_a_process_that_was_paused_goes_on_with_what_is_still_its_own(
    due: Due,
) -> None:
    with due.granter("at-least-once", 1) as first:
        first.await_word("claimed")
        os.kill(first.pid, signal.SIGSTOP)
        os.kill(first.pid, signal.SIGCONT)
        assert "called" in first.finish()
    assert due.entry.state == "rewarded"


@pytest.mark.slow
@pytest.mark.parametrize("due", ["own"], indirect=True)
def test_what_a_paused_process_has_given_is_settled_by_whoever_is_first(
    due: Due,
) -> None:
    with due.granter("at-least-once", LEASE) as first:
        first.await_word("claimed")
        first.go_on()
        first.await_word("called")
        os.kill(first.pid, signal.SIGSTOP)
        ends = due.entry.due
        assert ends is not None
        # Nobody can tell a paused process from a dead one, so it is called again.
        with due.granter("at-least-once", LEASE, ends + LEASE) as second:
            second.await_word("claimed")
            second.go_on()
            second.await_word("called")
            os.kill(first.pid, signal.SIGCONT)
            assert first.finish() == ["rewarded", "done"]
            assert second.finish() == ["done"]
    assert due.entry.state == "rewarded"


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


class TestEvents:
    """Events that are claimed by one process and looked at by another."""

    def test_one_whose_attempt_outlasts_the_lease_is_sent_once(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        renewed = threading.Semaphore(0)
        renew, send = bench.outbox.renew, ReferralClient.send
        others: list[int] = []

        def note(*args: t.Any) -> list[Entry]:
            lost = renew(*args)
            renewed.release()
            return lost

        def take_long(client: ReferralClient, body: bytes) -> Outcome:
            for _ in range(4):
                bench.clock.time += 0.05  # a third is 0.03, and a lease 0.09
                assert renewed.acquire(timeout=20)
                others.append(bench.new_process().step())
            return send(client, body)

        monkeypatch.setattr(bench.outbox, "renew", note)
        monkeypatch.setattr(ReferralClient, "send", take_long)
        bench.add("7", "registered")
        assert bench.new_process(lease=90).step() == 1
        assert others == [0, 0, 0, 0]
        assert bench.state("7", "registered") == "accepted"
        assert len(bench.site.sandbox.arrivals) == 1

    def test_what_was_not_begun_before_a_pause_is_left_to_who_takes_it_over(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send = ReferralClient.send

        def pause(client: ReferralClient, body: bytes) -> Outcome:
            monkeypatch.setattr(ReferralClient, "send", send)
            bench.clock.time += 60
            assert bench.new_process().drain() == 3
            return send(client, body)  # it was in flight

        monkeypatch.setattr(ReferralClient, "send", pause)
        for player in "789":
            bench.add(player, "registered")
        assert bench.delivery.step() == 1
        outcomes = [arrival.outcome for arrival in bench.site.sandbox.arrivals]
        assert outcomes == ["accepted", "accepted", "accepted", "duplicate"]
        assert {bench.state(each, "registered") for each in "789"} == {"accepted"}

    def test_what_is_settled_while_it_is_renewed_was_not_taken_over(
        self,
        bench: Bench,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        settle = bench.outbox.settle

        def settle_and_renew(*args: t.Any) -> list[Entry]:
            changed = settle(*args)
            assert leases(bench).renew()
            return changed

        monkeypatch.setattr(bench.outbox, "settle", settle_and_renew)
        bench.add("7", "registered")
        bench.delivery.drain()
        assert bench.state("7", "registered") == "accepted"
        assert caplog.text == ""

    def test_a_stop_gives_back_events_and_not_a_reward_that_is_granted(
        self, make_bench: Fixture
    ) -> None:
        class Stopped(Grant):
            def give(self, entry: Entry) -> None:
                made.add("8", "registered")
                (claimed,) = made.outbox.claim("pending", made.delivery.now(), 1000, 1)
                leases(made).hold([claimed])
                made.delivery.stop()
                self.claims = [
                    made.outbox.of(player, False)[event].claim
                    for player, event in (("7", "qualified"), ("8", "registered"))
                ]

        made: Bench = make_bench(grant := Stopped())
        made.add("7", "registered", "qualified")
        made.delivery.drain()
        assert grant.claims[0] is not None
        assert grant.claims[1] is None


def leases(bench: Bench) -> Leases:
    return bench.delivery._granter._leases


def threads_for_leases() -> list[threading.Thread]:
    found = threading.enumerate()
    return [thread for thread in found if thread.name == "flask-mmolove-leases"]
