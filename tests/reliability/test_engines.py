"""Runs each harness of ``tests/reliability/`` briefly.

Each has a process of its own: a harness forks, and this one may have threads.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import typing as t
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.breaker import Breaker
from flask_mmolove.sandbox import Sandbox
from tests.reliability.accounts import Rows
from tests.reliability.database import weigh
from tests.reliability.evidence import Evidence
from tests.reliability.report import Counters
from tests.reliability.report import Findings
from tests.reliability.server import Arrival
from tests.reliability.server import SECRET
from tests.reliability.server import SERVER_ID
from tests.reliability.site import read_diary
from tests.reliability.site import Site

ROOT = Path(__file__).parents[2]


def run(harness: str, *arguments: str, seconds: int = 115) -> dict[str, t.Any]:
    """The report of a run in which every promise held.

    :param seconds: How long it may take.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "tests.reliability",
            harness,
            *arguments,
            "--json",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stderr == ""
    report: dict[str, t.Any] = json.loads(done.stdout)
    assert report["broken"] == []
    return report


@pytest.mark.slow
class TestSoak:
    def test_300_kills_lose_nothing_and_pay_nothing_twice(self) -> None:
        report = run("soak", "--kills", "300")
        assert report["figures"]["kills"] == 300
        counters = report["counters"]
        assert counters["acknowledged"] > 300
        assert report["figures"]["rewards"] > 100
        # The kills hit the moments that matter.
        assert counters["recovered"] > 0
        assert counters["duplicate_posts"] > 0
        assert report["figures"]["faults_met"] > 0

    def test_a_pause_loses_nothing_and_pays_nothing_twice(self) -> None:
        report = run("soak", "--kills", "5", "--pauses", "10")
        assert report["figures"]["pauses"] == 10
        assert report["counters"]["duplicate_posts"] > 0
        assert report["figures"]["rewards"] > 0

    def test_a_killed_process_is_taken_over_within_half_a_minute(self) -> None:
        report = run("takeover", "--store", "file")
        (row,) = report["rows"]
        assert 5 < row["event"] <= 30 and 5 < row["reward"] <= 30

    def test_at_most_once_calls_no_callback_twice(self) -> None:
        report = run("soak", "--kills", "60", "--at-most-once")
        assert report["counters"]["repeated_calls"] == 0
        assert report["figures"]["rewards"] > 0

    def test_milestones_are_found_by_asking_and_numbered_without_a_gap(self) -> None:
        report = run("soak", "--kills", "100", "--milestone")
        assert report["figures"]["rewards"] > 30


@pytest.mark.slow
def test_a_drain_waits_for_what_is_in_flight_on_the_way_back(tmp_path: Path) -> None:
    # The harness's site takes the log of its process for itself.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        counts = pool.submit(drain_on_the_way_back, tmp_path).result(60)
    assert counts == {"accepted": 3}
    assert read_diary(tmp_path, "X") == []


def drain_on_the_way_back(folder: Path) -> dict[str, int]:
    with Sandbox(server_id=SERVER_ID, secret=SECRET) as sandbox:
        site = Site(folder, sandbox.endpoint)
        for player in "abc":
            site.sign_up(player)
        outbox, now = site.state.outbox, milliseconds()
        outbox.claim("pending", now, 3600, 2)  # by those who are killed now
        outbox.settle([], now, lambda breaker: Breaker(max_in_flight=1))
        site.drain(100)
        counts = {
            str(state): n for state, n in outbox.inspector.summary().counts.items()
        }
        site.close()
    return counts


@pytest.mark.slow
def test_the_outbox_does_what_a_dictionary_does() -> None:
    figures = run("statemachine", "--examples", "200")["figures"]
    for event in ("claims_after_a_crash", "settlements_in_vain", "rewarded"):
        assert figures[event] > 0


def left(**changes: t.Any) -> Evidence:
    """What a run leaves in which one player signed up, qualified and was rewarded."""
    keys = {"reg-ada", "qual-ada"}
    evidence: dict[str, t.Any] = {
        "attempted": keys,
        "acknowledged": keys,
        "rewards": [("ada", "key-ada")],
        "at_most_once": False,
        "surprises": [],
        "states": {"reg-ada": "accepted", "qual-ada": "rewarded"},
        "numbers": {"anna": [1]},
        "intact": True,
    }
    return Evidence(**{**evidence, **changes})


HISTORY = [
    Arrival("registered", "reg-ada", "accepted", 200),
    Arrival("qualified", "qual-ada", "accepted", 200),
]


class TestTables:
    """What the harness of the database compares besides."""

    EVENTS: t.ClassVar[set[str]] = {"reg-ada", "qual-ada"}

    @pytest.mark.parametrize(
        ("changes", "broken"),
        [
            ({}, []),
            ({"certain": {*EVENTS, "reg-ben"}}, ["changes without event: 1"]),
            (
                {"made": {"reg-ada"}},
                ["events without change: 1", "acknowledged without change: 1"],
            ),
            ({"gifts": []}, ["missing rewards: 1"]),
            ({"gifts": [("ada", "key-ada")] * 2}, ["double rewards: 1"]),
        ],
    )
    def test_each_promise_can_be_broken(
        self, changes: dict[str, t.Any], broken: list[str]
    ) -> None:
        tables = {"made": self.EVENTS, "certain": self.EVENTS}
        rows = Rows(**{**tables, "gifts": [("ada", "key-ada")], **changes})
        assert weigh(left(), rows, HISTORY).broken == broken

    def test_a_reward_is_never_left_in_doubt(self) -> None:
        evidence = left(
            states={"reg-ada": "accepted", "qual-ada": "reward_unconfirmed"}
        )
        rows = Rows(self.EVENTS, self.EVENTS, [("ada", "key-ada")])
        assert weigh(evidence, rows, HISTORY).broken == ["rewards in doubt: 1"]


class TestCounters:
    def test_all_is_well(self) -> None:
        evidence = left()
        assert evidence.faults() == []
        counters = evidence.weigh(HISTORY)
        assert counters == Counters(attempted=2, acknowledged=2, delivered=2)
        assert Findings("soak", counters).broken == []

    @pytest.mark.parametrize(
        ("evidence", "history", "broken"),
        [
            (left(), HISTORY[:1], ["lost: 1", "double rewards: 1"]),
            (left(attempted={"reg-ada"}), HISTORY, ["unexpected: 1"]),
            (left(rewards=[]), HISTORY, ["missing rewards: 1"]),
            (
                left(rewards=[("ada", "key-ada"), ("ada", "another")]),
                HISTORY,
                ["double rewards: 1"],
            ),
            (
                left(rewards=[("ada", "key-ada")] * 2, at_most_once=True),
                HISTORY,
                ["double rewards: 1"],
            ),
            (left(), HISTORY[::-1], ["order inversions: 1"]),
            (left(numbers={"anna": [1, 1]}), HISTORY, ["wrong numbers: 1"]),
            (left(numbers={"anna": [1, None]}), HISTORY, ["wrong numbers: 1"]),
            (left(numbers={"anna": [3, 1]}), HISTORY, ["wrong numbers: 1"]),
            (left(intact=False), HISTORY, ["the file is damaged"]),
        ],
    )
    def test_each_promise_can_be_broken(
        self, evidence: Evidence, history: list[Arrival], broken: list[str]
    ) -> None:
        assert Findings("soak", evidence.weigh(history)).broken == broken

    def test_a_second_call_counts_for_nothing_where_the_game_honours_the_key(
        self,
    ) -> None:
        counters = left(rewards=[("ada", "key-ada")] * 2).weigh(HISTORY)
        assert (counters.repeated_calls, counters.double_rewards) == (1, 0)

    def test_at_most_once_a_reward_may_be_left_to_a_person(self) -> None:
        states = {"reg-ada": "accepted", "qual-ada": "reward_unconfirmed"}
        evidence = left(rewards=[], at_most_once=True, states=states)
        assert Findings("soak", evidence.weigh(HISTORY)).broken == []

    def test_what_is_left_over_or_not_foreseen_is_a_fault(self) -> None:
        evidence = left(states={"reg-ada": "pending"}, surprises=["KeyError"])
        assert evidence.faults() == ["not foreseen: KeyError", "left over: 1 pending"]
