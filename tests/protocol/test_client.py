"""What a response means, and the client under the names of MMOLove's own SDK."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import threading
import typing as t
from contextlib import ExitStack
from email.utils import formatdate

import pytest

from flask_mmolove import ConfigError
from flask_mmolove import EventError
from flask_mmolove import Outcome
from flask_mmolove import ReferralClient
from flask_mmolove.protocol.response import read_response
from flask_mmolove.protocol.response import RETRY_AFTER_LIMIT
from flask_mmolove.protocol.response import Verdict
from flask_mmolove.protocol.wire import Signature
from flask_mmolove.sandbox import Faults
from flask_mmolove.sandbox import Sandbox
from tests.protocol.rawserver import chunked
from tests.protocol.rawserver import drip
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import Reply
from tests.protocol.rawserver import reset
from tests.protocol.rawserver import response
from tests.protocol.rawserver import then_close
from tests.protocol.rawserver import then_hold

SECRET = "hush-hush-7f3a"
NOW = 1733500000
BODY = b'{"event":"qualified"}'

ACCEPTED = Verdict.ACCEPTED
IGNORED = Verdict.IGNORED
REJECTED = Verdict.REJECTED
REFUSED = Verdict.REFUSED
RETRY = Verdict.RETRY


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Reach(t.Protocol):
    def __call__(self, url: str, **options: t.Any) -> ReferralClient: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reach(clock: Clock) -> t.Iterator[Reach]:
    """Makes clients whose connections are closed at the end."""
    with ExitStack() as stack:

        def make(url: str, **options: t.Any) -> ReferralClient:
            client = ReferralClient(
                server_id="srv-1", secret=SECRET, endpoint=url, clock=clock, **options
            )
            stack.callback(client.close)
            return client

        yield make


def json_response(**fields: t.Any) -> bytes:
    return response(body=json.dumps(fields).encode())


# -- the table of responses ------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "verdict", "credited", "referral_id"),
    [
        ({"referral_id": "r-1", "state": "registered"}, ACCEPTED, False, "r-1"),
        ({"referral_id": "r-1", "state": "qualified"}, ACCEPTED, True, "r-1"),
        ({"duplicate": True}, ACCEPTED, True, None),
        ({"ignored": "first_touch_conflict"}, IGNORED, False, None),
        ({"ignored": "first_touch_conflict", "duplicate": True}, IGNORED, False, None),
        ({"test": True}, ACCEPTED, False, None),
        ({"test": True, "state": "qualified"}, ACCEPTED, False, None),
        ({"test": True, "duplicate": True}, ACCEPTED, False, None),
        ({}, ACCEPTED, False, None),
        ({"state": "rejected"}, ACCEPTED, False, None),
        ({"duplicate": "true"}, ACCEPTED, False, None),
        ({"duplicate": False}, ACCEPTED, False, None),
        ({"state": "qualified", "referral_id": 7}, ACCEPTED, True, None),
        ({"state": "qualified", "more": {"x": [1]}}, ACCEPTED, True, None),
    ],
)
def test_a_200_that_says_ok_is_read_to_the_word(
    reach: Reach,
    fields: dict[str, t.Any],
    verdict: Verdict,
    credited: bool,
    referral_id: str | None,
) -> None:
    with RawServer(json_response(ok=True, **fields)) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.ok) == (200, True)
    assert outcome.verdict is verdict
    assert outcome.credited is credited
    assert outcome.referral_id == referral_id
    assert json.loads(outcome.body) == {"ok": True, **fields}


@pytest.mark.parametrize(
    "extra", [{"test": False}, {"ignored": None}, {"ignored": False}, {"test": None}]
)
def test_a_flag_that_is_off_does_not_cost_the_reward(
    reach: Reach, extra: dict[str, t.Any]
) -> None:
    with RawServer(json_response(ok=True, state="qualified", **extra)) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.verdict, outcome.credited) == (ACCEPTED, True)


NOT_MMOLOVE: dict[str, bytes] = {
    "a page": b"<!doctype html><title>Sign in to the Wi-Fi</title>",
    "nothing": b"",
    "cut off": b'{"ok":true,"state":"qual',
    "ok false": b'{"ok":false}',
    "ok a text": b'{"ok":"true"}',
    "ok a number": b'{"ok":1}',
    "ok missing": b'{"state":"qualified"}',
    "a list": b'[{"ok":true}]',
    "a text": b'"ok"',
    "null": b"null",
    "two responses": b'{"ok":true}{"ok":true}',
    "no UTF-8": b'\xff\xfe{"ok":true}',
    "too deep": b'{"ok":true,"a":' + b"[" * 20_000,
    "too long a number": b'{"ok":true,"a":' + b"1" * 5_000 + b"]",
    "10 MB": b'{"ok":true,"a":"' + b"x" * 10_000_000 + b'"}',
    "a gzip bomb": gzip.compress(b'{"ok":true}' + b" " * 20_000_000),
}


@pytest.mark.parametrize("body", NOT_MMOLOVE.values(), ids=NOT_MMOLOVE)
def test_a_200_without_ok_is_not_mmoloves_and_is_sent_again(
    reach: Reach, body: bytes
) -> None:
    with RawServer(then_close(response(body=body))) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.ok, outcome.verdict) == (200, False, RETRY)
    assert not outcome.credited
    assert "proxy" in outcome.hint


@pytest.mark.parametrize("status", [201, 202, 203, 204, 205, 206, 226, 299])
def test_another_2xx_is_not_mmoloves_either(reach: Reach, status: int) -> None:
    body = b"" if status == 204 else b'{"ok":true,"state":"qualified"}'
    with RawServer(response(status, body)) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.ok, outcome.verdict) == (status, False, RETRY)
    assert not outcome.credited


STATUSES = {
    400: REJECTED,
    401: REFUSED,
    402: REJECTED,
    403: REFUSED,
    404: REFUSED,
    405: REFUSED,
    406: REJECTED,
    408: RETRY,
    409: REJECTED,
    410: REFUSED,
    413: REJECTED,
    415: REJECTED,
    418: REJECTED,
    421: REFUSED,
    422: REJECTED,
    425: RETRY,
    426: REJECTED,
    429: RETRY,
    431: REJECTED,
    451: REJECTED,
    499: REJECTED,
    300: REFUSED,
    301: REFUSED,
    302: REFUSED,
    303: REFUSED,
    307: REFUSED,
    308: REFUSED,
    500: RETRY,
    501: RETRY,
    502: RETRY,
    503: RETRY,
    504: RETRY,
    520: RETRY,
    599: RETRY,
    999: RETRY,
}


@pytest.mark.parametrize(("status", "verdict"), STATUSES.items())
def test_every_other_status_has_a_meaning_and_a_hint(
    reach: Reach, status: int, verdict: Verdict
) -> None:
    # What the body says is no matter: only a 200 can be a yes.
    with RawServer(response(status, b'{"ok":true,"state":"qualified"}')) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.ok, outcome.verdict) == (status, False, verdict)
    assert not outcome.credited
    assert outcome.hint.endswith(".")


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (401, "MMOLOVE_REFERRAL_SECRET"),
        (401, "clock"),
        (404, "MMOLOVE_SERVER_ID"),
        (404, "MMOLOVE_ENDPOINT"),
        (302, "MMOLOVE_ENDPOINT"),
        (422, "registered"),
    ],
)
def test_a_hint_names_what_to_mend(status: int, word: str) -> None:
    assert word in read_response(status, {}, b"", NOW).hint


@pytest.mark.parametrize(
    "body", [b'{"error":"bad_signature"}', b"<h1>Oh</h1>", b"", b"\xff\xfe"]
)
def test_the_words_of_a_refusal_are_kept(reach: Reach, body: bytes) -> None:
    with RawServer(response(400, body)) as server:
        assert reach(server.url).send(BODY).body == body.decode("utf-8", "replace")


def test_a_redirect_brings_neither_the_body_nor_the_signature_elsewhere(
    reach: Reach,
) -> None:
    with RawServer(json_response(ok=True)) as other, RawServer() as server:
        server.replies.append(response(307, b"", Location=other.url))
        assert reach(server.url).send(BODY).verdict is REFUSED
    assert other.connections == 0


# -- no response -----------------------------------------------------------------------

NO_RESPONSE: dict[str, Reply] = {
    "reset": reset,
    "closed": then_close(b""),
    "cut in the body": then_close(response(Content_Length="500")),
    "cut in a chunk": then_close(chunked(b'{"ok":true}')[:-12]),
    "no HTTP": then_close(b"220 mail ESMTP\r\n"),
    "silence": then_hold(b""),
    "a byte at a time": drip(json_response(ok=True, padding="x" * 200)),
}


@pytest.mark.parametrize("reply", NO_RESPONSE.values(), ids=NO_RESPONSE)
def test_no_response_is_an_outcome_and_raises_nothing(
    reach: Reach, reply: Reply
) -> None:
    with RawServer(reply) as server:
        outcome = reach(server.url, timeout=0.3).send(BODY)
    assert (outcome.status, outcome.ok, outcome.verdict) == (0, False, RETRY)
    assert outcome.body
    assert "object at 0x" not in outcome.body
    assert SECRET not in repr(outcome)


def test_a_head_that_is_cut_off_is_no_success(reach: Reach) -> None:
    with RawServer(then_close(json_response(ok=True)[:30])) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.ok, outcome.verdict) == (False, RETRY)


def test_a_length_that_is_too_short_is_no_success(reach: Reach) -> None:
    body = b'{"ok":true,"state":"qualified"}'
    with RawServer(response(body=body, Content_Length="12")) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.ok, outcome.verdict) == (False, RETRY)


def test_a_refused_connection_says_so(reach: Reach) -> None:
    with RawServer(reset) as server:
        pass
    outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.verdict) == (0, RETRY)
    assert "Connection refused" in outcome.body


def test_a_host_name_that_does_not_exist_says_so(
    reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    outcome = reach("https://mmolove.invalid/").send(BODY)
    assert (outcome.status, outcome.verdict) == (0, RETRY)
    assert "Name or service not known" in outcome.body


# -- Retry-After ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("-5", 0),
        ("1.5", 0),
        ("", 0),
        ("soon", 0),
        ("٣", 0),
        ("²", 0),
        ("3601", RETRY_AFTER_LIMIT),
        ("9" * 400, RETRY_AFTER_LIMIT),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        (formatdate(NOW + 10**8, usegmt=True), RETRY_AFTER_LIMIT),
        ("Friday, 06-Dec-24 15:46:50 GMT", 10),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_LIMIT),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0),
        ("Fri, 99 Dec 2024 99:99:99 GMT", 0),
        ("Fri, 06 Dec 2024", 0),
        (",,,", 0),
    ],
)
def test_retry_after_in_every_form(value: str, seconds: int) -> None:
    for status in (408, 425, 429, 500, 503):
        outcome = read_response(status, {"Retry-After": value}, b"", NOW)
        assert outcome.retry_after == seconds


def test_retry_after_arrives_over_the_wire(reach: Reach) -> None:
    with RawServer(response(503, Retry_After="42"), response(503)) as server:
        client = reach(server.url)
        assert client.send(BODY).retry_after == 42
        assert client.send(BODY).retry_after == 0


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 422])
def test_what_is_not_sent_again_does_not_wait(status: int) -> None:
    body = b'{"ok":true}' if status == 200 else b""
    headers = {"Retry-After": "120"}
    assert read_response(status, headers, body, NOW).retry_after == 0


# -- the clock -----------------------------------------------------------------------


def dated(status: int, moment: float, **headers: str) -> bytes:
    date = formatdate(moment, usegmt=True)
    return response(status, b'{"ok":true}', Date=date, **headers)


def signed_at(server: RawServer) -> list[int]:
    """When each request was signed, as the receiver reads it."""
    moments = []
    for request in server.requests:
        signature = Signature.parse(request.header("X-MMOLove-Signature") or "")
        signature.verify(request.body, SECRET, signature.timestamp)
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


def test_two_signatures_are_the_most_for_one_attempt(reach: Reach) -> None:
    with RawServer(dated(401, NOW + 900), dated(401, NOW + 1800)) as server:
        outcome = reach(server.url).send(BODY)
    assert (outcome.status, outcome.verdict) == (401, REFUSED)
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
def test_a_wrong_clock_gets_through_to_the_stand_in(off: float) -> None:
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


# -- the names of the SDK ------------------------------------------------------------


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
    assert (result.ok, result.verdict) == (True, IGNORED)


@pytest.mark.parametrize(
    ("server_id", "secret", "status"),
    [("demo-server", "wrong", 401), ("other", "demo-secret", 404)],
)
def test_wrong_keys_are_refused_by_the_stand_in(
    sandbox: Sandbox, server_id: str, secret: str, status: int
) -> None:
    client = ReferralClient(
        server_id=server_id, secret=secret, endpoint=sandbox.endpoint
    )
    result = client.qualified(sandbox.mint(), server_event_id="qual-7")
    client.close()
    assert (result.status, result.verdict) == (status, REFUSED)


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
    Signature.parse(signed.signature).verify(signed.body, SECRET, NOW)


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret", ""),
        ("secret", None),
        ("secret", b"bytes"),
        ("secret", f"{SECRET}\udcff"),
        ("server_id", ""),
        ("server_id", 7),
        ("endpoint", ""),
        ("endpoint", None),
        ("endpoint", "mmolove.com/api"),
        ("endpoint", "ftp://mmolove.com/api"),
        ("endpoint", "https://anna:will-o-the-wisp@mmolove.com/api"),
        # Anyone on the way could read the tokens, and set our clock by a forged Date.
        ("endpoint", "http://mmolove.com/api/referral/events"),
        ("key_id", "a b"),
        ("key_id", "a\r\nX-Evil: 1"),
    ],
)
def test_a_client_that_cannot_work_is_an_error_when_it_is_made(
    name: str, value: t.Any
) -> None:
    arguments = {"server_id": "srv-1", "secret": SECRET} | {name: value}
    with pytest.raises(ConfigError, match=f"'{name}' ") as caught:
        ReferralClient(**arguments)
    assert SECRET not in str(caught.value)
    assert "will-o-the-wisp" not in str(caught.value)


@pytest.mark.parametrize("name", ["secret", "server_id"])
def test_blank_is_as_good_as_empty(name: str) -> None:
    arguments: dict[str, t.Any] = {"server_id": "srv-1", "secret": SECRET}
    with pytest.raises(ConfigError):
        ReferralClient(**arguments | {name: " \n"})


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
