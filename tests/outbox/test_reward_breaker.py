from __future__ import annotations

from flask_mmolove.outbox.reward_breaker import RewardBreaker


def paused() -> RewardBreaker:
    breaker = RewardBreaker()
    for id in (1, 2, 3):
        breaker = breaker.failure(id, "the game restarts", 1000)
    return breaker


def test_rewards_are_tried_at_least_once_a_minute() -> None:
    breaker, now, waits = paused(), 1000, []
    for _ in range(20):
        waits.append(breaker.wait(now))
        now = breaker.not_before
        breaker = breaker.failure(1, "the game restarts", now)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2_000, 60_000)


def test_it_is_written_down_and_read_again() -> None:
    assert RewardBreaker.from_json(paused().to_json()) == paused()


def test_what_an_earlier_version_wrote_is_read() -> None:
    stored = '[[1,2,3],1000,"the game restarts",7,3000]'
    assert RewardBreaker.from_json(stored) == paused()
