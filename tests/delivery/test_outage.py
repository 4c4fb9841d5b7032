"""How soon events arrive after MMOLove was away."""

from __future__ import annotations

import pytest

from flask_mmolove.sandbox import Faults
from tests.delivery.bench import Bench

MINUTE, DAY = 60, 86_400

#: It says that it is away, or nobody answers.
AWAY = [Faults(fail=503), Faults(drop="request")]


def first_delivery(bench: Bench, outage: float, faults: Faults) -> float:
    """Seconds from the end of an outage to the first event that is accepted."""
    start = bench.clock.time
    bench.site.sandbox.faults = faults
    while not bench.told:
        bench.delivery.drain()
        due = bench.delivery.next_due()
        assert due is not None
        # The clock that steps is in milliseconds, and a float may fall short of one.
        bench.clock.time = max(bench.clock.time, due / 1000) + 0.001
        if bench.clock.time - start >= outage:
            bench.site.sandbox.faults = Faults()
    return bench.clock.time - start - outage


@pytest.mark.parametrize("faults", AWAY, ids=repr)
@pytest.mark.parametrize("events", [1, 40])
@pytest.mark.parametrize(
    ("outage", "seconds"), [(1, 5), (10, 5), (MINUTE, 32), (20 * MINUTE, MINUTE)]
)
def test_the_first_event_arrives_soon_after_an_outage(
    bench: Bench, faults: Faults, events: int, outage: float, seconds: float
) -> None:
    for number in range(events):
        bench.add(str(number), "registered")
    assert first_delivery(bench, outage, faults) <= seconds


def test_also_after_a_day_of_it(bench: Bench) -> None:
    bench.add("7", "registered")
    assert first_delivery(bench, DAY, Faults(fail=503)) <= MINUTE


def test_also_after_it_refused_every_event_of_the_site(bench: Bench) -> None:
    for number in range(40):
        bench.add(str(number), "registered")
    bench.site.sandbox.faults = Faults(fail=401)
    bench.pass_time(20 * MINUTE, steps=600)
    bench.site.sandbox.faults = Faults()
    bench.pass_time(MINUTE, steps=60)
    states = {bench.state(str(number), "registered") for number in range(40)}
    assert states == {"accepted"}


def test_also_what_is_recorded_at_its_end(bench: Bench) -> None:
    bench.add("7", "registered")
    bench.site.sandbox.faults = Faults(fail=503)
    bench.pass_time(5 * MINUTE, steps=300)
    bench.site.sandbox.faults = Faults()
    bench.add("8", "registered")
    bench.pass_time(MINUTE, steps=60)
    assert bench.state("8", "registered") == "accepted"


def test_what_mmolove_asks_for_is_waited_for(bench: Bench) -> None:
    bench.add("7", "registered")
    faults = Faults(fail=503, retry_after=600)
    assert first_delivery(bench, 20, faults) >= 580
