"""Rewards are granted, and how often the callback is called."""

from __future__ import annotations

import typing as t

import pytest

from flask_mmolove import RewardLater
from flask_mmolove.delivery.grant import Promise
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.reward_breaker import RewardBreaker
from tests.delivery.bench import Bench
from tests.delivery.bench import Grant
from tests.delivery.conftest import Fixture

DAY = 86_400.0


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
        told = made.delivery._tell._listener

        def fail(entry: Entry) -> None:
            if entry.state == "rewarded":
                raise OSError("a moment of trouble")

        monkeypatch.setattr(made.delivery._tell, "_listener", fail)
        with pytest.raises(OSError, match="trouble"):
            made.delivery.drain()
        monkeypatch.setattr(made.delivery._tell, "_listener", told)
        made.outbox.erase("7")
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

    def test_it_waits_out_a_restart_of_the_game(
        self, make_bench: Fixture, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = make_bench(grant := Grant(failures=10**9))
        for identity in "abcdefgh":
            bench.add(identity, "registered", "qualified")
        bench.pass_time(2 * 3600, steps=240)
        assert 100 < 10**9 - grant.failures < 140  # one a minute, not one each
        assert bench.outbox.reward_breaker().is_open
        assert bench.outbox.reward_breaker().reason == "RuntimeError: the game is down"
        assert len([each for each in caplog.records if each.exc_info]) == 1
        grant.failures = 0
        bench.pass_time(61, steps=61)
        assert sorted(grant.given) == list("abcdefgh")
        assert bench.outbox.reward_breaker() == RewardBreaker()
        assert caplog.text.count("Rewards are granted again after 7") == 1

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
            "reward_failed",
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
        assert (entry.state, grant.given) == ("reward_unconfirmed", [])
        assert bench.delivery.counts["reward_unconfirmed"] == 1
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
        assert seen == ["reward_unconfirmed"]
        assert made.state("7", "qualified") == "rewarded"
        assert "reward_unconfirmed" not in made.delivery.counts

    def test_without_a_callback_it_is_set_aside(self, make_bench: Fixture) -> None:
        bench = make_bench(None)
        bench.add("7", "registered", "qualified")
        bench.delivery.drain()
        assert bench.state("7", "qualified") == "reward_failed"
