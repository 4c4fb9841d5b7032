"""Pauses between attempts."""

from __future__ import annotations

import random
import typing as t

import pytest

from flask_mmolove.outbox.backoff import MOST
from flask_mmolove.outbox.backoff import pause

SECOND, HOUR = 1_000, 3_600_000


def test_a_pause_is_at_most_half_as_long_as_the_failure() -> None:
    ages = (-5, 0, 10 * SECOND, HOUR, 8 * HOUR, 800 * HOUR)
    lows = [pause(age, lambda low, high: low) for age in ages]
    highs = [pause(age, lambda low, high: high) for age in ages]
    assert lows == [1_000, 1_000, 2_500, HOUR // 4, 2 * HOUR, 2 * HOUR]
    assert highs == [2_000, 2_000, 5_000, HOUR // 2, 4 * HOUR, 4 * HOUR]


def test_a_caller_may_want_to_wait_less_long() -> None:
    assert pause(HOUR, max, 60_000) == 60_000


@pytest.mark.parametrize("uniform", [min, max, random.uniform])
def test_a_week_of_failures_takes_few_attempts(
    uniform: t.Callable[[float, float], float],
) -> None:
    age, attempts = 0, 0
    while age < 168 * HOUR:
        age += pause(age, uniform)
        attempts += 1
    assert MOST // HOUR == 4
    assert 40 <= attempts <= 130
