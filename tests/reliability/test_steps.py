"""Runs the harnesses that kill at every step, and those faults they have to find."""

from __future__ import annotations

import pytest

from tests.reliability.mutants import SCENES
from tests.reliability.test_engines import run

# They take a minute on an idle machine.
_SECONDS = 500
pytestmark = [pytest.mark.slow, pytest.mark.timeout(_SECONDS + 10)]


def test_a_kill_at_every_step_breaks_nothing() -> None:
    report = run("crashpoints", seconds=_SECONDS)
    assert report["figures"]["fired"] == report["figures"]["points"] > 300
    assert all(row["fired"] == row["tried"] for row in report["rows"])
    counters = report["counters"]
    assert counters["recovered"] > 0
    assert counters["duplicate_posts"] > 0
    assert counters["repeated_calls"] > 0


def test_every_mutant_is_found_and_the_package_passes_the_same_scenes() -> None:
    report = run("mutants", seconds=_SECONDS)
    assert report["figures"]["found"] == report["figures"]["mutants"] >= 8
    sound = {row["trial"] for row in report["rows"] if row["mutant"] == "none"}
    assert sound == {*SCENES}
