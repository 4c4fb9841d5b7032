from __future__ import annotations

import pytest

from flask_mmolove.outbox.breaker import Breaker
from flask_mmolove.outbox.breaker import FAILURES
from flask_mmolove.outbox.breaker import PROBE_MOST
from flask_mmolove.outbox.breaker import REFUSALS
from flask_mmolove.protocol.response import Outcome
from flask_mmolove.protocol.response import Verdict

FINE = Outcome(200, "{}", Verdict.ACCEPTED)
DOWN = Outcome(503, "", Verdict.RETRY)
SLOW = Outcome(429, "", Verdict.RETRY, retry_after=120)
REFUSED = Outcome(401, "bad_signature", Verdict.REFUSED, "Look at the secret.")
BAD = Outcome(400, "", Verdict.REJECTED)


def most(low: float, high: float) -> float:
    return high


def after(
    *outcomes: Outcome, breaker: Breaker | None = None, now: int = 1000
) -> Breaker:
    breaker = breaker or Breaker()
    for outcome in outcomes:
        breaker = breaker.learn(outcome, now, most)
    return breaker


def room(breaker: Breaker, now: int, in_flight: int = 0, limit: int = 100) -> int:
    return breaker.room(now, lambda: in_flight, limit)


def test_it_opens_after_failures_in_a_row_only() -> None:
    almost = [DOWN] * (FAILURES - 1)
    assert after(*almost).open_since is None
    assert after(*almost, FINE, *almost).open_since is None
    assert after(*almost, BAD, *almost).open_since is None
    assert after(*almost, DOWN).open_since == 1000


def test_refusals_of_every_event_open_it_and_say_what_to_mend() -> None:
    assert after(*[REFUSED] * (REFUSALS - 1)).open_since is None
    breaker = after(*[REFUSED] * REFUSALS)
    assert breaker.open_since == 1000
    assert "Look at the secret." in breaker.reason
    assert "401" in breaker.reason


def test_a_host_that_asks_for_patience_is_not_down() -> None:
    breaker = after(*[SLOW] * 20)
    assert breaker.open_since is None
    assert room(breaker, 1000 + 119_999) == 0
    assert room(breaker, 1000 + 120_000) == 100


def test_it_probes_by_itself_with_growing_pauses() -> None:
    breaker = after(*[DOWN] * FAILURES)
    pauses = []
    now = 1000
    for _ in range(14):
        assert room(breaker, breaker.not_before - 1) == 0
        assert room(breaker, breaker.not_before) == 1
        pauses.append(breaker.not_before - now)
        now = breaker.not_before
        breaker = breaker.learn(DOWN, now, most)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 4000
    assert pauses[-1] == PROBE_MOST


def test_only_one_process_probes() -> None:
    breaker = after(*[DOWN] * FAILURES)
    now = breaker.not_before
    assert room(breaker.probing(now, 60_000), now + 59_999) == 0
    assert room(breaker.probing(now, 60_000), now + 60_000) == 1


def test_after_an_outage_it_opens_up_step_by_step() -> None:
    breaker = after(*[DOWN] * FAILURES)
    widths = []
    for _ in range(4):
        breaker = breaker.learn(FINE, 9000, most)
        widths.append(breaker.max_in_flight)
    assert widths == [2, 4, 8, None]


def test_the_ramp_counts_what_is_under_way() -> None:
    breaker = after(*[DOWN] * FAILURES, FINE, FINE)
    assert room(breaker, 9000, in_flight=3) == 1
    assert room(breaker, 9000, in_flight=9) == 0


def test_a_failure_on_the_ramp_closes_the_way_again() -> None:
    assert after(*[DOWN] * FAILURES, FINE, DOWN).open_since is not None


def test_uptime_stands_still_while_it_is_open() -> None:
    breaker = after(*[DOWN] * FAILURES, now=1000)
    assert breaker.uptime(500_000) == 1000
    back = breaker.learn(FINE, 500_000, most)
    assert back.uptime(500_000) == 1000
    assert back.uptime(500_700) == 1700


def test_a_pause_set_by_a_wrong_clock_does_not_last() -> None:
    assert room(Breaker(not_before=10**15), 1000) == 100


@pytest.mark.parametrize("breaker", [Breaker(), after(*[DOWN] * FAILURES), after(SLOW)])
def test_it_is_written_down_and_read_again(breaker: Breaker) -> None:
    assert Breaker.from_json(breaker.to_json()) == breaker


def test_what_an_earlier_version_wrote_is_read() -> None:
    stored = '{"failures":5,"open_since":1000,"probes":4,"width":2}'
    expected = Breaker(failures=5, open_since=1000, max_in_flight=2)
    assert Breaker.from_json(stored) == expected
