"""The sandbox served on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from flask_mmolove.sandbox import Faults
from flask_mmolove.sandbox import Sandbox
from tests.sandbox.site import Fields
from tests.sandbox.site import sign


def post(sandbox: Sandbox, fields: Fields) -> tuple[int, dict[str, t.Any]]:
    body = json.dumps(fields).encode()
    secret = sandbox.settings["MMOLOVE_REFERRAL_SECRET"]
    headers = {
        "Content-Type": "application/json",
        "X-MMOLove-Signature": sign(body, secret, int(time.time())),
    }
    url = urlsplit(sandbox.endpoint)
    connection = http.client.HTTPConnection(url.netloc, timeout=5)
    try:
        connection.request("POST", url.path, body, headers)
        response = connection.getresponse()
        assert len(response.headers.get_all("Date", [])) == 1
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def event(token: str, **changes: t.Any) -> Fields:
    fields = {
        "event": "registered",
        "token": token,
        "server_id": "demo-server",
        "referee_identity": "player-7842",
        "server_event_id": "reg-7842",
    }
    return fields | changes


def test_a_served_sandbox_takes_events_and_lists_them() -> None:
    with Sandbox(secret="s3cret") as sandbox:
        token = sandbox.mint("anna")
        assert post(sandbox, event(token))[0] == 200
        assert post(sandbox, event(token))[1] == {"ok": True, "duplicate": True}
        assert post(sandbox, event(token, event="qualified"))[0] == 200
        assert [row.event for row in sandbox.events] == ["registered", "qualified"]
        assert len(sandbox.arrivals) == 3
        assert sandbox.referrals[0].state == "qualified"
        assert sandbox.settings == {
            "MMOLOVE_SERVER_ID": "demo-server",
            "MMOLOVE_REFERRAL_SECRET": "s3cret",
            "MMOLOVE_ENDPOINT": f"{sandbox.url}/api/referral/events",
        }
        assert sandbox.share_link("a b") == f"{sandbox.url}/r/demo-server?ref=a+b"


def test_a_lost_request_changes_nothing() -> None:
    with Sandbox(faults=Faults(drop="request")) as sandbox:
        fields = event(sandbox.mint())
        with pytest.raises(http.client.RemoteDisconnected):
            post(sandbox, fields)
        assert sandbox.events == []
        [arrival] = sandbox.arrivals
        assert (arrival.status, arrival.outcome, arrival.lost) == (None, "fault", True)
        sandbox.faults = Faults()
        assert post(sandbox, fields)[1]["state"] == "registered"


def test_a_lost_response_has_done_its_work() -> None:
    with Sandbox(faults=Faults(drop="response")) as sandbox:
        fields = event(sandbox.mint())
        with pytest.raises(http.client.RemoteDisconnected):
            post(sandbox, fields)
        [arrival] = sandbox.events
        assert (arrival.status, arrival.outcome, arrival.lost) == (
            200,
            "accepted",
            True,
        )
        sandbox.faults = Faults()
        assert post(sandbox, fields)[1] == {"ok": True, "duplicate": True}


def test_latency_makes_a_client_wait() -> None:
    with Sandbox(faults=Faults(latency=0.1)) as sandbox:
        begin = time.monotonic()
        assert post(sandbox, event(sandbox.mint()))[0] == 200
        assert time.monotonic() - begin >= 0.1


def test_neither_latency_nor_an_idle_connection_holds_up_the_end() -> None:
    sandbox = Sandbox(faults=Faults(latency=60))
    sandbox.start()
    port = urlsplit(sandbox.url).port or 0
    idle = socket.create_connection(("127.0.0.1", port), timeout=5)
    with ThreadPoolExecutor(1) as pool, idle:
        waiting = pool.submit(post, sandbox, event(sandbox.mint()))
        time.sleep(0.1)
        begin = time.monotonic()
        sandbox.stop()
        assert time.monotonic() - begin < 2
        assert waiting.result()[0] == 200
        assert idle.recv(1) == b""
    assert len(sandbox.events) == 1
    sandbox.close()


def test_an_outage_ends_at_the_same_address_with_everything_stored() -> None:
    with Sandbox() as sandbox:
        endpoint, fields = sandbox.endpoint, event(sandbox.mint())
        sandbox.start()
        post(sandbox, fields)
        sandbox.stop()
        sandbox.stop()
        with pytest.raises(ConnectionRefusedError):
            post(sandbox, fields)
        sandbox.start()
        assert sandbox.endpoint == endpoint
        assert post(sandbox, fields)[1] == {"ok": True, "duplicate": True}


def test_a_sandbox_has_no_address_before_it_is_started() -> None:
    with pytest.raises(RuntimeError, match="before it is started"):
        Sandbox().settings  # noqa: B018 - reading it is the test


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    with Sandbox() as sandbox:
        post(sandbox, event(sandbox.mint()))
    # Those of another test may end meanwhile.
    assert set(threading.enumerate()) <= before
