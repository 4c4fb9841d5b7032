"""Signatures are made by MMOLove's clock where ours is wrong."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from flask_mmolove import ReferralClient
from flask_mmolove.protocol.response import Verdict
from flask_mmolove.protocol.signature import Signature
from flask_mmolove.sandbox import Faults
from flask_mmolove.sandbox import Sandbox
from tests.protocol.clients import BODY
from tests.protocol.clients import Clock
from tests.protocol.clients import NOW
from tests.protocol.clients import Reach
from tests.protocol.clients import SECRET
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import response


def dated(status: int, moment: float, **headers: str) -> bytes:
    date = formatdate(moment, usegmt=True)
    return response(status, b'{"ok":true}', Date=date, **headers)


def signed_at(server: RawServer) -> list[int]:
    """When each request was signed, as the receiver reads it."""
    moments = []
    for request in server.requests:
        signature = Signature.parse(request.header("X-MMOLove-Signature") or "")
        assert signature.matches(request.body, SECRET)
        moments.append(signature.timestamp)
    return moments


IMPOSSIBLE = [
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 01 Jan 2100 00:00:00 GMT",
    "Tue, 31 Dec 2019 23:59:59 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 01 Jan 1960 00:00:00 GMT",
    "Mon, 01 Jan 0001 00:00:00 GMT",
]


@pytest.mark.parametrize("off", [-90_000, -301, 301, 86_400, 10**8])
def test_a_wrong_clock_is_corrected_by_the_responses_date(
    reach: Reach, caplog: pytest.LogCaptureFixture, off: int
) -> None:
    with RawServer(dated(401, NOW + off), dated(200, NOW + off)) as server:
        client = reach(server.url)
        assert client.send(BODY).ok
        assert client.send(BODY).ok
    assert signed_at(server) == [NOW, NOW + off, NOW + off]
    [record] = caplog.records
    side = "behind" if off > 0 else "ahead of"
    assert f" s {side} MMOLove's" in record.getMessage()


@pytest.mark.parametrize("ours", [86_400.0, 10.0**10], ids=["1970", "2286"])
def test_our_own_clock_may_show_any_time(
    reach: Reach, clock: Clock, ours: float
) -> None:
    clock.now = ours
    with RawServer(dated(401, NOW), dated(200, NOW)) as server:
        assert reach(server.url).send(BODY).ok
    assert signed_at(server)[1] == NOW


def test_a_corrected_clock_that_is_put_right_is_corrected_back(
    reach: Reach, clock: Clock
) -> None:
    with RawServer(dated(401, NOW + 900), dated(200, NOW + 900)) as server:
        client = reach(server.url)
        assert client.send(BODY).ok
        clock.now = NOW + 900
        server.replies[:] = [dated(401, NOW + 900), dated(200, NOW + 900)]
        assert client.send(BODY).ok
    assert signed_at(server) == [NOW, NOW + 900, NOW + 1800, NOW + 900]


def test_a_thread_that_signed_before_another_corrected_the_clock_signs_again(
    reach: Reach,
) -> None:
    both = threading.Barrier(2)

    def refuse(server: RawServer, connection: socket.socket) -> None:
        both.wait(5)
        connection.sendall(dated(401, NOW + 900, Connection="close"))

    with RawServer(refuse, refuse, dated(200, NOW + 900)) as server:
        client = reach(server.url)
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(client.send, [BODY, BODY]))
    assert [outcome.ok for outcome in outcomes] == [True, True]


def test_two_signatures_are_the_most_for_one_attempt(reach: Reach) -> None:
    with RawServer(dated(401, NOW + 900), dated(401, NOW + 1800)) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.verdict) == (401, Verdict.REFUSED)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        dated(401, NOW + 55),
        dated(401, NOW - 55),
        dated(401, NOW + 900, Age="0"),
        response(401),
        response(401, Date="yesterday"),
        response(401, Date=""),
        *(response(401, Date=date) for date in IMPOSSIBLE),
        dated(400, NOW + 900),
        dated(403, NOW + 900),
        dated(500, NOW + 900),
        dated(302, NOW + 900),
    ],
    ids=[
        "a little ahead",
        "a little behind",
        "from a cache",
        "no date",
        "junk",
        "blank",
        *IMPOSSIBLE,
        "400",
        "403",
        "500",
        "302",
    ],
)
def test_nothing_else_corrects_the_clock(reach: Reach, reply: bytes) -> None:
    with RawServer(reply) as server:
        client = reach(server.url)
        client.send(BODY)
        client.send(BODY)
    assert signed_at(server) == [NOW, NOW]


@pytest.mark.parametrize("off", [-7200, 7200])
def test_a_wrong_clock_gets_through_to_the_sandbox(off: float) -> None:
    with Sandbox(faults=Faults(clock=off)) as sandbox:
        client = ReferralClient(
            server_id="demo-server", secret="demo-secret", endpoint=sandbox.endpoint
        )
        outcome = client.registered(
            sandbox.mint(), referee_identity="7", server_event_id="reg-7"
        )
        client.close()
    assert outcome.ok
    assert outcome.clock == pytest.approx(off, abs=5)


def test_each_attempt_is_signed_at_its_own_moment(reach: Reach, clock: Clock) -> None:
    with RawServer(response(503)) as server:
        client = reach(server.url)
        for clock.now in (NOW, NOW + 0.9, NOW + 1, NOW + 4000):
            client.send(BODY)
    assert signed_at(server) == [NOW, NOW, NOW + 1, NOW + 4000]
    assert {request.body for request in server.requests} == {BODY}
