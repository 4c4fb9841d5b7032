"""Faults without a socket."""

from __future__ import annotations

import random

import pytest

from flask_mmolove.sandbox import Faults
from tests.sandbox.site import changes_nothing
from tests.sandbox.site import error
from tests.sandbox.site import Fields
from tests.sandbox.site import Site


def test_a_failure_processes_nothing(site: Site) -> None:
    site.service.faults = Faults(fail=503, retry_after=7)
    fields = site.fields()
    response = site.send(fields)
    assert error(response) == (503, "fault")
    assert response.headers["Retry-After"] == "7"
    assert changes_nothing(site)
    assert "responds with 503" in site.client.get("/").text
    site.service.faults = Faults(retry_after=7)
    response = site.send(fields)
    assert response.status_code == 200
    assert "Retry-After" not in response.headers


def test_a_share_of_the_requests_meets_the_fault_the_same_in_each_run() -> None:
    def statuses() -> list[int]:
        faults = Faults(fail=500, rate=0.5, random=random.Random(7).random)
        site = Site(faults=faults)
        fields = site.fields()
        return [site.send(fields).status_code for _ in range(20)]

    assert statuses() == statuses()
    assert set(statuses()) == {200, 500}


def test_a_rate_of_nothing_is_no_fault() -> None:
    site = Site(faults=Faults(fail=500, rate=0))
    assert site.send(site.fields()).status_code == 200


def test_a_wrong_clock_is_wrong_in_the_date_and_in_the_window(site: Site) -> None:
    site.service.faults = Faults(clock=-3600)
    response = site.send(site.fields())
    assert error(response) == (401, "stale_signature")
    assert response.headers["Date"] == "Fri, 06 Dec 2024 14:46:40 GMT"
    assert "3600 s ahead of" in site.service.arrivals[0].reason


def test_without_a_socket_to_close_a_drop_is_a_502(site: Site) -> None:
    site.service.faults = Faults(drop="response")
    assert site.send(site.fields()).status_code == 502


@pytest.mark.parametrize(
    "options",
    [
        {"fail": 200},
        {"drop": "everything"},
        {"fail": 503, "drop": "response"},
        {"latency": -1},
        {"rate": 1.5},
    ],
)
def test_a_fault_that_makes_no_sense_is_an_error(options: Fields) -> None:
    with pytest.raises(ValueError):
        Faults(**options)


@pytest.mark.parametrize(
    ("faults", "summary"),
    [
        (Faults(), ""),
        (
            Faults(fail=503, rate=0.25),
            "the endpoint responds with 503 for 25% of the requests",
        ),
        (
            Faults(drop="response", latency=2, clock=90),
            "the endpoint loses the response and waits 2 s; the clock is +90 s off",
        ),
        (Faults(clock=-5), "the clock is -5 s off"),
    ],
)
def test_faults_have_a_summary(faults: Faults, summary: str) -> None:
    assert faults.summary == summary
