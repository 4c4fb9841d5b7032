"""The client, under the names of MMOLove's own SDK."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import typing as t

import pytest

from flask_mmolove import EventError
from flask_mmolove import Outcome
from flask_mmolove import ReferralClient
from flask_mmolove.protocol.response import Verdict
from flask_mmolove.protocol.signature import Signature
from flask_mmolove.sandbox import Sandbox
from tests.protocol.clients import Clock
from tests.protocol.clients import NOW
from tests.protocol.clients import Reach
from tests.protocol.clients import SECRET
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import response


@pytest.fixture
def sandbox() -> t.Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sdk(sandbox: Sandbox) -> t.Iterator[ReferralClient]:
    client = ReferralClient(
        server_id="demo-server", secret="demo-secret", endpoint=sandbox.endpoint
    )
    yield client
    client.close()


def test_a_referral_goes_the_whole_way_by_hand(
    sdk: ReferralClient, sandbox: Sandbox
) -> None:
    token = sandbox.mint()
    result = sdk.registered(token, referee_identity="7", server_event_id="reg-7")
    assert (result.status, result.ok) == (200, True)
    assert json.loads(result.body)["state"] == "registered"
    assert not result.credited
    result = sdk.qualified(token, server_event_id="qual-7")
    assert (result.status, result.ok, result.credited) == (200, True, True)
    assert result.referral_id == sandbox.referrals[0].id
    again = sdk.qualified(token, server_event_id="qual-7")
    assert (again.ok, again.credited) == (True, True)
    assert [arrival.event for arrival in sandbox.events] == ["registered", "qualified"]


def test_a_dry_run_writes_nothing(sdk: ReferralClient, sandbox: Sandbox) -> None:
    token = sandbox.mint()
    first = sdk.registered(
        token, referee_identity="7", server_event_id="reg-7", test=True
    )
    second = sdk.qualified(token, server_event_id="qual-7", test=True)
    assert first.ok and second.ok
    assert not second.credited
    assert sandbox.referrals[0].state == "clicked"


def test_a_second_referrer_of_one_player_is_ignored(
    sdk: ReferralClient, sandbox: Sandbox
) -> None:
    for ref, key in (("anna", "reg-a"), ("ben", "reg-b")):
        result = sdk.registered(
            sandbox.mint(ref), referee_identity="7", server_event_id=key
        )
    assert (result.ok, result.verdict) == (True, Verdict.IGNORED)


@pytest.mark.parametrize(
    ("server_id", "secret", "status"),
    [("demo-server", "wrong", 401), ("other", "demo-secret", 404)],
)
def test_wrong_keys_are_refused_by_the_sandbox(
    sandbox: Sandbox, server_id: str, secret: str, status: int
) -> None:
    client = ReferralClient(
        server_id=server_id, secret=secret, endpoint=sandbox.endpoint
    )
    result = client.qualified(sandbox.mint(), server_event_id="qual-7")
    client.close()
    assert (result.status, result.verdict) == (status, Verdict.REFUSED)


def test_the_time_of_the_event_is_now_unless_given(reach: Reach, clock: Clock) -> None:
    clock.now = NOW + 0.7
    client = reach("https://mmolove.test/")
    given = client.sign("qualified", "tok", server_event_id="q", ts=NOW - 500)
    taken = client.sign("qualified", "tok", server_event_id="q")
    assert json.loads(given.body)["ts"] == NOW - 500
    assert json.loads(taken.body)["ts"] == NOW


def test_sign_gives_what_would_be_sent_and_sends_nothing(reach: Reach) -> None:
    with RawServer(response()) as server:
        client = reach(server.url, key_id="k2")
        signed = client.sign(
            "registered",
            "tok.demo",
            referee_identity="player-7842",
            server_event_id="reg-7842",
        )
        assert server.connections == 0
        client.registered(
            "tok.demo", referee_identity="player-7842", server_event_id="reg-7842"
        )
    [request] = server.requests
    assert signed.body == request.body
    assert signed.signature == request.header("X-MMOLove-Signature")
    assert signed.signature.endswith(",kid=k2")
    assert Signature.parse(signed.signature).matches(signed.body, SECRET)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("token", lambda c: c.qualified("", server_event_id="q")),
        ("server_event_id", lambda c: c.qualified("tok", server_event_id=" ")),
        (
            "referee_identity",
            lambda c: c.registered("tok", referee_identity="", server_event_id="r"),
        ),
        ("event", lambda c: c.sign("reversed", "tok", server_event_id="r")),
        ("ts", lambda c: c.qualified("tok", server_event_id="q", ts=1.5)),
    ],
)
def test_what_could_only_be_refused_is_an_error_before_anything_is_sent(
    reach: Reach, field: str, call: t.Callable[[ReferralClient], object]
) -> None:
    with RawServer(response()) as server:
        with pytest.raises(EventError) as caught:
            call(reach(server.url))
    assert caught.value.field == field
    assert server.connections == 0


def test_the_default_endpoint_is_mmoloves() -> None:
    client = ReferralClient(server_id="srv-1", secret=SECRET)
    assert client.endpoint == "https://mmolove.com/api/referral/events"
    client.close()  # closing what was never opened is allowed


def test_the_secret_is_in_no_repr() -> None:
    client = ReferralClient(server_id="srv-1", secret=SECRET)
    assert "srv-1" in repr(client)
    assert SECRET not in f"{client!r} {client}"


def test_one_client_serves_several_threads(
    sdk: ReferralClient, sandbox: Sandbox
) -> None:
    results: list[Outcome] = []
    tokens = [sandbox.mint() for _ in range(8)]

    def report(number: int) -> None:
        results.append(
            sdk.registered(
                tokens[number],
                referee_identity=str(number),
                server_event_id=f"reg-{number}",
            )
        )

    threads = [threading.Thread(target=report, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.ok for result in results] == [True] * 8
    assert len(sandbox.events) == 8


def test_a_script_needs_no_app(sandbox: Sandbox) -> None:
    script = """
import sys
from flask_mmolove import ReferralClient, sign_referral_body
endpoint, token = sys.argv[1:]
client = ReferralClient(
    server_id="demo-server", secret="demo-secret", endpoint=endpoint
)
result = client.registered(token, referee_identity="7", server_event_id="reg-7")
print(result.status, result.ok, result.body)
client.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, sandbox.endpoint, sandbox.mint()],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.startswith('200 True {"ok":')
    assert done.stderr == ""


def test_signing_alone_does_not_import_what_only_sending_needs() -> None:
    script = """
import sys
from flask_mmolove import ReferralClient
client = ReferralClient(server_id="srv-1", secret="s")
client.sign("qualified", "tok", server_event_id="q")
assert "requests" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
