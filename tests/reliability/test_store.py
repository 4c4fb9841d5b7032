"""Runs the harnesses of the store, the client and the servers briefly.

Each has a process of its own: a harness forks, and this one may have threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests.reliability.damage import KINDS
from tests.reliability.diskfull import LEVELS
from tests.reliability.faultserver import FAULTS
from tests.reliability.recycling import SERVERS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(harness: str, *arguments: str) -> dict[str, t.Any]:
    """The report of a run in which every promise held."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability", harness, *arguments, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report: dict[str, t.Any] = json.loads(done.stdout)
    assert report["broken"] == []
    assert report["counters"]["lost"] == 0
    return report


def test_each_fault_of_a_server_once() -> None:
    report = run("faultserver")
    figures = report["figures"]
    assert figures["kinds_met"] == figures["kinds_of_fault"] == len(FAULTS)
    assert report["counters"]["duplicate_posts"] > 0
    assert figures["rejected_and_sent_again"] > 0


def test_random_faults_of_a_server() -> None:
    report = run("faultserver", "--events", "1000")
    assert report["counters"]["delivered"] == 1000
    assert report["figures"]["faults_met"] > 100


def test_a_disk_that_is_full_at_every_page() -> None:
    report = run("diskfull")
    assert report["counters"]["duplicate_posts"] == 0
    rows = {row["disk"]: row for row in report["rows"]}
    if os.geteuid() == 0:
        assert "full disk" in rows
    for row in rows.values():
        assert row["levels"] == LEVELS
        assert row["through the exit"] > 0
        assert row["steps that could not write"] > 0


def test_damage_to_the_file() -> None:
    report = run("damage", "--rounds", "100")
    assert report["figures"]["kinds"] == len(KINDS)
    assert report["figures"]["rows_that_had_to_survive"] > 1000


def test_eight_processes_that_start_at_once() -> None:
    report = run("startrace", "--rounds", "50")
    assert report["figures"]["rounds_in_which_two_met"] > 25


def test_workers_that_are_recycled_under_load() -> None:
    name = "gunicorn gthread --preload"
    if SERVERS[name].missing():
        (pytest.fail if "CI" in os.environ else pytest.skip)("gunicorn is missing")
    report = run("recycling", "--server", name, "--recycles", "20")
    (row,) = report["rows"]
    assert row["workers"] >= 20
    assert row["kills"] > 0
    assert row["signups"] > 50
