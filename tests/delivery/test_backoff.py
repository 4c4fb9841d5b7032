"""Pauses between attempts."""

from __future__ import annotations

from flask_mmolove.delivery.backoff import pause


def test_backoff_grows_with_full_jitter_and_is_bounded() -> None:
    lows, highs = [], []
    for attempts in (0, 1, 2, 5, 12, 40, 10_000):
        lows.append(pause(attempts, lambda low, high: low))
        highs.append(pause(attempts, lambda low, high: high))
    assert lows == [1000] * 7
    assert highs == [2000, 2000, 4000, 32_000, 4_096_000, 14_400_000, 14_400_000]
