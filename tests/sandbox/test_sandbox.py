"""The stand-in, against the contract. Requests are signed here by hand, so that the
wire module is not its own witness.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import random
import socket
import sqlite3
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs
from urllib.parse import urlsplit

import pytest
from werkzeug.test import Client
from werkzeug.test import create_environ
from werkzeug.test import run_wsgi_app
from werkzeug.test import TestResponse

from flask_mmolove.protocol.wire import Event
from flask_mmolove.protocol.wire import is_token
from flask_mmolove.protocol.wire import sign_referral_body
from flask_mmolove.sandbox import create_sandbox
from flask_mmolove.sandbox import Faults
from flask_mmolove.sandbox import Sandbox
from flask_mmolove.sandbox import Server
from flask_mmolove.sandbox import State
from flask_mmolove.sandbox.ledger import Ledger

NOW = 1_733_500_000
DAY = 24 * 60 * 60
EVENTS = "/api/referral/events"

Fields = dict[str, t.Any]


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Desk:
    """A stand-in without a socket, and a site that signs by hand."""

    def __init__(self, **options: t.Any) -> None:
        self.clock = Clock()
        self.app = create_sandbox(now=self.clock, **options)
        self.state: State = self.app.extensions["mmolove_sandbox"]
        self.client: Client = self.app.test_client()

    def fields(self, **changes: t.Any) -> Fields:
        if "token" not in changes:
            changes["token"] = self.state.mint()
        fields: Fields = {
            "event": "registered",
            "server_id": "demo-server",
            "referee_identity": "player-7842",
            "server_event_id": "reg-7842",
            "ts": NOW,
        }
        return fields | changes

    def post(
        self, body: bytes, header: str | None = None, **options: t.Any
    ) -> TestResponse:
        headers = {} if header is None else {"X-MMOLove-Signature": header}
        options.setdefault("content_type", "application/json")
        return self.client.post(EVENTS, data=body, headers=headers, **options)

    def send(self, fields: Fields, **signing: t.Any) -> TestResponse:
        body = json.dumps(fields).encode()
        signing.setdefault("at", int(self.clock.now))
        return self.post(body, sign(body, **signing))


def sign(body: bytes, secret: str = "demo-secret", at: int = NOW) -> str:
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1=sha256={mac.hexdigest()}"


@pytest.fixture
def desk() -> Desk:
    return Desk()


def error(response: TestResponse) -> tuple[int, str]:
    assert response.json is not None
    assert set(response.json) == {"error"}
    return response.status_code, response.json["error"]


def changes_nothing(desk: Desk) -> bool:
    return all(referral.state == "clicked" for referral in desk.state.referrals)


# Who may call


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8765",
        "127.8.9.10",
        "localhost",
        "LOCALHOST:8765",
        "localhost.:8765",
        "[::1]:8765",
        "mmolove.test",
        "MMOLove.Test:80",
    ],
)
def test_it_answers_to_its_own_names(host: str) -> None:
    desk = Desk(host_names=["mmolove.test", "other.test"])
    assert desk.client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "10.0.0.1",
        "0.0.0.0:8765",
        "[::2]",
        "[::1",
        "x:y:z",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/history.json", "/r/demo-server?ref=a", EVENTS])
def test_it_answers_to_no_other_name(desk: Desk, host: str, path: str) -> None:
    environ = create_environ(path) | {"HTTP_HOST": host}
    content, status, _ = run_wsgi_app(desk.app, environ)
    assert status == "403 FORBIDDEN"
    assert b"--host-name" in b"".join(content)
    assert not desk.state.referrals and not desk.state.arrivals


# The journey


def test_a_share_link_leads_to_the_registration_page_with_a_token(desk: Desk) -> None:
    response = desk.client.get("/r/demo-server?ref=anna")
    assert response.status_code == 302
    url = urlsplit(response.headers["Location"])
    assert url._replace(query="").geturl() == "http://127.0.0.1:5000/register"
    token = parse_qs(url.query)["mmref"][0]
    assert is_token(token)
    [referral] = desk.state.referrals
    assert (referral.token, referral.ref, referral.state) == (token, "anna", "clicked")
    assert referral.expires == NOW + 90 * DAY


def test_the_query_of_the_registration_page_is_kept() -> None:
    desk = Desk(registration_url="http://127.0.0.1/join?lang=de&x=%20#form")
    location = desk.client.get("/r/demo-server?ref=anna").headers["Location"]
    assert location.startswith("http://127.0.0.1/join?lang=de&x=%20&mmref=")
    assert location.endswith("#form")


def test_two_clicks_give_two_tokens_even_when_shortened(desk: Desk) -> None:
    tokens = {desk.state.mint("anna") for _ in range(20)}
    assert len(tokens) == 20
    assert len({referral.short_token for referral in desk.state.referrals}) == 20


@pytest.mark.parametrize("ref", ["\x21" * 256, "\\" * 256, "anna"])
def test_every_token_has_the_form_of_one(desk: Desk, ref: str) -> None:
    assert is_token(desk.state.mint(ref))


@pytest.mark.parametrize(
    "query", ["", "?ref=", "?ref=%20", "?ref=%C3%A4", "?ref=a%0A1"]
)
def test_a_share_link_without_a_code_is_a_readable_400(desk: Desk, query: str) -> None:
    response = desk.client.get(f"/r/demo-server{query}")
    assert response.status_code == 400
    assert response.mimetype == "text/html"
    assert "A share link ends in ?ref=" in response.text


@pytest.mark.parametrize(
    ("host", "query"), [("127.0.0.1", "ref=\xed"), ("a" * 64, "ref=anna")]
)
def test_what_no_browser_sends_is_refused_and_is_no_error(
    desk: Desk, host: str, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = {"HTTP_HOST": host, "QUERY_STRING": query}
    response = desk.client.get("/r/demo-server", environ_overrides=raw)
    assert 400 <= response.status_code < 500
    assert "sandbox" in response.text
    assert not caplog.records


def test_a_share_link_of_an_unknown_server_is_a_readable_404(desk: Desk) -> None:
    response = desk.client.get("/r/<b>?ref=anna")
    assert response.status_code == 404
    assert "There is no server" in response.text
    assert "<b>" not in response.text


def test_a_referral_goes_from_clicked_to_registered_to_qualified(desk: Desk) -> None:
    registered = desk.fields()
    answer = desk.send(registered)
    [referral] = desk.state.referrals
    assert answer.status_code == 200
    assert answer.json == {
        "ok": True,
        "referral_id": referral.id,
        "state": "registered",
    }
    qualified = registered | {"event": "qualified", "server_event_id": "qual-7842"}
    answer = desk.send(qualified)
    assert answer.json == {"ok": True, "referral_id": referral.id, "state": "qualified"}
    assert desk.state.referrals == [
        replace(referral, state="qualified", referee_identity="player-7842")
    ]


# The signature


def test_the_published_vector_verifies() -> None:
    body = (
        b'{"event":"registered","token":"tok.demo","server_id":"srv-1",'
        b'"referee_identity":"player-7842","server_event_id":"reg-7842",'
        b'"ts":1733500000}'
    )
    mac = "0b0a83dc9fded9e877853f8b875957a1fab5aa52f828186a51fdf62c55df0812"
    desk = Desk(server_id="srv-1", secret="mmolove-test-secret")
    answer = desk.post(body, f"t=1733500000,v1=sha256={mac}")
    assert error(answer) == (404, "unknown_token")


def test_what_the_wire_module_sends_is_accepted(desk: Desk) -> None:
    event = Event("registered", desk.state.mint(), "demo-server", "reg-1", NOW, "ä-1")
    body = event.encode()
    header = sign_referral_body(body, "demo-secret", timestamp=NOW, key_id="k1")
    assert desk.post(body, header).status_code == 200


def test_the_raw_bytes_are_verified_not_what_they_mean(desk: Desk) -> None:
    fields = desk.fields()
    signed = json.dumps(fields).encode()
    sent = json.dumps(fields, separators=(",", ":")).encode()
    assert error(desk.post(sent, sign(signed))) == (401, "bad_signature")
    assert desk.post(signed, sign(signed)).status_code == 200


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_clock_five_minutes_off_is_accepted(desk: Desk, seconds: int) -> None:
    assert desk.send(desk.fields(), at=NOW + seconds).status_code == 200


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_clock_further_off_is_refused(desk: Desk, seconds: int) -> None:
    answer = desk.send(desk.fields(), at=NOW + seconds)
    assert error(answer) == (401, "stale_signature")
    assert "301 s" in desk.state.arrivals[0].reason


MAC = "0" * 64


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"t={NOW}",
        f"v1=sha256={MAC}",
        f"t={NOW},v1={MAC}",
        f"v1=sha256={MAC},t={NOW}",
        f"t=0,v1=sha256={MAC}",
        f"t=-5,v1=sha256={MAC}",
        f"t={NOW}.5,v1=sha256={MAC}",
        f"t={NOW},v1=sha256={MAC[1:]}",
        f"t={NOW},v1=sha256={'A' * 64}",
        f"t={NOW},v1=sha256={MAC},kid=",
        f"t={NOW},v1=sha256={MAC},t={NOW},v1=sha256={MAC}",
    ],
)
def test_a_malformed_signature_header_is_a_400(desk: Desk, header: str) -> None:
    body = json.dumps(desk.fields()).encode()
    assert error(desk.post(body, header)) == (400, "malformed_signature")


def test_a_missing_signature_header_is_a_400(desk: Desk) -> None:
    body = json.dumps(desk.fields()).encode()
    assert error(desk.post(body)) == (400, "missing_signature")


# The form of the body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"event=registered",
        b"[]",
        b"null",
        b'"registered"',
        b'{"event":"registered"',
        b'{"ts":NaN}',
        b'{"ts":-Infinity}',
        b"\xff\xfe{}",
        '{"event":"registered"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a":' * 10_000,
    ],
    ids=lambda body: body[:16].decode("latin-1"),
)
def test_a_body_that_is_no_json_object_is_a_400(desk: Desk, body: bytes) -> None:
    assert error(desk.post(body, sign(body))) == (400, "malformed_json")


MISSING = object()

TEXTS = ("event", "token", "server_id", "server_event_id", "referee_identity")
NO_TEXTS: list[object] = [MISSING, None, "", " \t", 7842, True, ["x"], {}, "\ud800"]
WRONG_SHAPES: list[tuple[str, object]] = [
    *[(name, value) for name in TEXTS for value in NO_TEXTS],
    *[("event", name) for name in ("Registered", " registered", "clicked")],
    ("ts", None),
    ("ts", "1733500000"),
    ("ts", True),
    ("ts", []),
    ("test", None),
    ("test", 1),
    ("test", 0),
    ("test", "true"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_SHAPES)
def test_a_field_of_the_wrong_shape_is_a_400(
    desk: Desk, name: str, value: object
) -> None:
    fields = desk.fields(**{name: value})
    if value is MISSING:
        del fields[name]
    assert error(desk.send(fields)) == (400, "invalid_field")
    assert repr(name) in desk.state.arrivals[0].reason
    assert changes_nothing(desk)


def test_a_time_without_end_is_a_400(desk: Desk) -> None:
    body = json.dumps(desk.fields()).encode().replace(b"1733500000", b"1e999")
    assert error(desk.post(body, sign(body))) == (400, "invalid_field")


@pytest.mark.parametrize(
    "changes",
    [
        {"ts": NOW + 0.5},
        {"ts": 10**400},
        {"test": False},
        {"colour": "blue", "more": {"deep": [1, None]}},
        {"referee_identity": "<i>Zoë</i> \U0001f409"},
        {"server_event_id": "x" * 5000},
    ],
)
def test_what_the_contract_allows_is_accepted(desk: Desk, changes: Fields) -> None:
    assert desk.send(desk.fields(**changes)).status_code == 200


def test_a_time_may_be_left_out(desk: Desk) -> None:
    fields = desk.fields()
    del fields["ts"]
    assert desk.send(fields).status_code == 200


def test_later_events_have_their_referee_ignored(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields)
    qualified = fields | {"event": "qualified", "referee_identity": 5}
    assert desk.send(qualified).status_code == 200
    del qualified["referee_identity"]
    assert desk.send(qualified | {"server_event_id": "other"}).status_code == 200


def test_texts_are_trimmed(desk: Desk) -> None:
    token = desk.state.mint()
    padded = desk.fields(
        token=f" {token} ", server_id=" demo-server\n", server_event_id=" reg-7842"
    )
    assert desk.send(padded).status_code == 200
    assert desk.send(desk.fields(token=token)).json == {"ok": True, "duplicate": True}


@pytest.mark.parametrize("content_type", ["text/plain", None])
def test_a_body_that_does_not_say_json_is_a_400(
    desk: Desk, content_type: str | None
) -> None:
    body = json.dumps(desk.fields()).encode()
    answer = desk.post(body, sign(body), content_type=content_type)
    assert error(answer) == (400, "wrong_content_type")


def test_a_charset_beside_json_is_accepted(desk: Desk) -> None:
    body = json.dumps(desk.fields()).encode()
    answer = desk.post(body, sign(body), content_type="application/json; charset=utf-8")
    assert answer.status_code == 200


def test_a_body_beyond_64_kib_is_a_400(desk: Desk) -> None:
    answer = desk.send(desk.fields(more="x" * 65536))
    assert error(answer) == (400, "body_too_large")
    assert len(desk.state.arrivals) == 1


# What is looked up


def test_an_unknown_server_is_a_404(desk: Desk) -> None:
    answer = desk.send(desk.fields(server_id="other"))
    assert error(answer) == (404, "unknown_server")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"referrals": False}, "referrals_off"),
        ({"secret": None}, "no_secret"),
        ({"secret": ""}, "no_secret"),
    ],
)
def test_a_server_that_is_not_ready_is_a_404(
    desk: Desk, changes: Fields, expected: str
) -> None:
    servers = desk.state.servers
    servers["demo-server"] = replace(servers["demo-server"], **changes)
    assert error(desk.send(desk.fields())) == (404, expected)


def test_each_server_has_its_own_secret_and_tokens(desk: Desk) -> None:
    desk.state.servers["two"] = Server("two", "secret-2", "http://127.0.0.1/two")
    token = desk.state.mint("anna", "two")
    fields = desk.fields(token=token, server_id="two")
    assert error(desk.send(fields)) == (401, "bad_signature")
    stranger = desk.fields(token=desk.state.mint("anna"), server_id="two")
    assert error(desk.send(stranger, secret="secret-2")) == (404, "unknown_token")
    assert desk.send(fields, secret="secret-2").status_code == 200


def test_one_player_can_be_referred_to_two_servers(desk: Desk) -> None:
    desk.state.servers["two"] = Server("two", "demo-secret", "http://127.0.0.1/two")
    assert desk.send(desk.fields()).status_code == 200
    token = desk.state.mint("bob", "two")
    answer = desk.send(desk.fields(token=token, server_id="two"))
    assert answer.json is not None
    assert answer.json["state"] == "registered"


def test_a_token_that_was_changed_anywhere_is_unknown(desk: Desk) -> None:
    token = desk.state.mint()
    for index, letter in enumerate(token):
        changed = token[:index] + ("A" if letter != "A" else "B") + token[index + 1 :]
        answer = desk.send(desk.fields(token=changed))
        assert error(answer) == (404, "unknown_token"), index


@pytest.mark.parametrize("token", ["tok.demo", "x", "ü.ü", "." * 2000])
def test_a_token_of_elsewhere_is_unknown(desk: Desk, token: str) -> None:
    assert error(desk.send(desk.fields(token=token))) == (404, "unknown_token")


# The order of the checks: what is wrong first is what is answered.

STALE = NOW - 1000


@pytest.mark.parametrize(
    ("changes", "signing", "expected"),
    [
        ({"event": "?"}, {"secret": "wrong"}, (400, "invalid_field")),
        ({"event": "?", "test": True}, {}, (400, "invalid_field")),
        ({"event": "?", "server_id": "other"}, {}, (400, "invalid_field")),
        ({"server_id": "other"}, {"secret": "wrong"}, (404, "unknown_server")),
        ({"server_id": "other"}, {"at": STALE}, (404, "unknown_server")),
        ({"server_id": "other", "test": True}, {}, (404, "unknown_server")),
        ({}, {"secret": "wrong", "at": STALE}, (401, "bad_signature")),
        ({"token": "x"}, {"secret": "wrong"}, (401, "bad_signature")),
        ({"test": True}, {"secret": "wrong"}, (401, "bad_signature")),
        ({"test": True}, {"at": STALE}, (401, "stale_signature")),
        ({"token": "x"}, {"at": STALE}, (401, "stale_signature")),
        ({"token": "x", "event": "qualified"}, {}, (404, "unknown_token")),
        ({"event": "qualified"}, {"at": STALE}, (401, "stale_signature")),
        ({"event": "qualified"}, {}, (422, "not_registered")),
    ],
)
def test_the_earlier_check_wins(
    desk: Desk, changes: Fields, signing: Fields, expected: tuple[int, str]
) -> None:
    assert error(desk.send(desk.fields(**changes), **signing)) == expected
    assert changes_nothing(desk)


def test_a_malformed_header_wins_over_a_malformed_body(desk: Desk) -> None:
    assert error(desk.post(b"{", "garbage")) == (400, "malformed_signature")
    assert error(desk.post(b"{")) == (400, "missing_signature")


def test_a_malformed_body_wins_over_a_bad_signature(desk: Desk) -> None:
    assert error(desk.post(b"{", sign(b"other"))) == (400, "malformed_json")


# Dry runs, duplicates, first touch, transitions


@pytest.mark.parametrize("event", ["registered", "qualified", "reversed"])
@pytest.mark.parametrize("changes", [{}, {"token": "unknown"}])
def test_a_dry_run_is_verified_and_writes_nothing(
    desk: Desk, event: str, changes: Fields
) -> None:
    fields = desk.fields(event=event, test=True, **changes)
    for _ in range(2):
        answer = desk.send(fields)
        assert (answer.status_code, answer.json) == (200, {"ok": True, "test": True})
    assert changes_nothing(desk)
    assert [row.outcome for row in desk.state.arrivals] == ["test", "test"]


def test_a_dry_run_does_not_make_the_event_a_duplicate(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields | {"test": True})
    answer = desk.send(fields)
    assert answer.json is not None
    assert answer.json["state"] == "registered"


def test_the_same_event_again_is_a_duplicate(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields)
    for again in (fields, fields | {"ts": 5, "referee_identity": "someone else"}):
        answer = desk.send(again)
        assert (answer.status_code, answer.json) == (
            200,
            {"ok": True, "duplicate": True},
        )


def test_a_refused_event_is_no_duplicate_later(desk: Desk) -> None:
    registered = desk.fields()
    qualified = registered | {"event": "qualified", "server_event_id": "qual-7842"}
    assert error(desk.send(qualified)) == (422, "not_registered")
    desk.send(registered)
    answer = desk.send(qualified)
    assert answer.json is not None
    assert answer.json["state"] == "qualified"


def test_the_key_of_an_event_is_token_event_and_id_together(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields)
    answers = [
        desk.send(fields | {"event": "qualified"}),
        desk.send(desk.fields(referee_identity="other")),
    ]
    assert all("state" in (answer.json or {}) for answer in answers)


@pytest.mark.parametrize("event", ["registered", "qualified"])
def test_a_state_already_reached_is_answered_with_it(desk: Desk, event: str) -> None:
    fields = desk.fields()
    desk.send(fields)
    desk.send(fields | {"event": "qualified"})
    answer = desk.send(fields | {"event": event, "server_event_id": "new"})
    assert answer.json is not None
    assert (answer.status_code, answer.json["state"]) == (200, "qualified")


CONFLICT = {"ok": True, "ignored": "first_touch_conflict"}


def test_the_first_referrer_to_register_an_account_wins(desk: Desk) -> None:
    first, second = desk.fields(), desk.fields(server_event_id="reg-again")
    desk.send(first)
    for _ in range(2):
        answer = desk.send(second)
        assert (answer.status_code, answer.json) == (200, CONFLICT)
    assert [row.state for row in desk.state.referrals] == ["registered", "ignored"]


def test_a_token_that_lost_is_ignored_for_good(desk: Desk) -> None:
    desk.send(desk.fields())
    loser = desk.fields()
    desk.send(loser)
    qualified = loser | {"event": "qualified", "server_event_id": "qual-7842"}
    # Never `duplicate`, which would tell a site to pay.
    assert [desk.send(qualified).json for _ in range(2)] == [CONFLICT, CONFLICT]
    assert desk.send(loser | {"referee_identity": "new"}).json == CONFLICT


def test_a_winner_keeps_its_referee_whatever_it_claims_next(desk: Desk) -> None:
    desk.send(desk.fields())
    winner = desk.fields(referee_identity="mine")
    desk.send(winner)
    claim = winner | {"referee_identity": "player-7842", "server_event_id": "other"}
    assert desk.send(claim).json == CONFLICT
    answer = desk.send(winner | {"event": "qualified"})
    assert answer.json is not None
    assert answer.json["state"] == "qualified"


def test_a_second_account_on_one_token_is_not_anchored(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields)
    sibling = {"referee_identity": "sibling", "server_event_id": "reg-sibling"}
    desk.send(fields | sibling)
    assert desk.state.referrals[0].referee_identity == "player-7842"
    answer = desk.send(desk.fields(**sibling))
    assert answer.json is not None
    assert answer.json["state"] == "registered"


def test_reversed_is_accepted_and_not_acted_on(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields)
    answer = desk.send(fields | {"event": "reversed"})
    assert answer.json is not None
    assert (answer.status_code, answer.json["state"]) == (200, "registered")


@pytest.mark.parametrize("state", ["reversed", "rejected"])
@pytest.mark.parametrize("event", ["registered", "qualified"])
def test_a_referral_that_was_closed_is_a_422(
    desk: Desk, state: t.Literal["reversed", "rejected"], event: str
) -> None:
    fields = desk.fields()
    desk.send(fields)
    desk.state.close_referral(fields["token"], state)
    answer = desk.send(fields | {"event": event, "server_event_id": "new"})
    assert error(answer) == (422, "referral_closed")


def test_a_token_expires_after_90_days_unless_it_was_registered(desk: Desk) -> None:
    early, late = desk.fields(), desk.fields(referee_identity="late")
    desk.clock.now += 90 * DAY - 1
    assert desk.send(early).status_code == 200
    desk.clock.now += 1
    assert error(desk.send(late)) == (422, "referral_expired")
    assert desk.send(early | {"event": "qualified"}).status_code == 200


def test_of_two_tokens_at_once_exactly_one_wins_the_account() -> None:
    for _ in range(5):
        desk = Desk()
        claims = [desk.fields(server_event_id=f"reg-{n}") for n in range(2)]
        barrier = threading.Barrier(2)

        def claim(fields: Fields, desk: Desk = desk) -> object:
            barrier.wait()  # noqa: B023 - the pool is done before the next round
            return desk.send(fields).json

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(claim, claims))
        assert answers.count(CONFLICT) == 1
        states = sorted(row.state for row in desk.state.referrals)
        assert states == ["ignored", "registered"]


# What is remembered


def test_everything_that_arrived_is_listed_with_what_was_answered(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields)
    desk.send(fields, secret="wrong")
    desk.post(b"{", sign(b"{"))
    good, bad, broken = desk.state.arrivals
    assert (good.status, good.outcome, good.lost) == (200, "accepted", False)
    assert good.body == json.dumps(fields).encode()
    assert good.when == NOW
    assert good.token == fields["token"]
    assert good.short_token == f"{fields['token'][:6]}…"
    assert fields["token"] not in repr(good)
    assert (bad.status, bad.outcome) == (401, "refused")
    assert bad.server_event_id == "reg-7842"
    assert "signature does not match" in bad.reason
    assert "MMOLOVE_REFERRAL_SECRET" in bad.hint
    assert (broken.status, broken.event, broken.body) == (400, None, b"{")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_only_its_user_can_read_what_it_remembers(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    for suffix in ("", "-journal", "-wal", "-shm"):
        file = tmp_path / f"old.db{suffix}"
        file.touch()
        file.chmod(0o644)
    umask = os.umask(0)
    try:
        Ledger(new).close()
        Ledger(old).close()
        desk = Desk(path=new)
        with desk.state.ledger.transaction():
            desk.state.mint()
            modes = {
                file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()
            }
    finally:
        os.umask(umask)
    assert "new.db-journal" in modes
    assert set(modes.values()) == {0o600}


def test_a_restart_forgets_nothing_that_is_in_a_file(tmp_path: Path) -> None:
    before = Desk(path=tmp_path / "sandbox.db")
    fields = before.fields()
    before.send(fields)
    referrals, arrivals = before.state.referrals, before.state.arrivals
    before.state.ledger.close()
    after = Desk(path=tmp_path / "sandbox.db")
    assert after.state.referrals == referrals
    assert after.state.arrivals == arrivals
    assert after.send(fields).json == {"ok": True, "duplicate": True}
    assert after.send(after.fields()).json == CONFLICT


def test_a_token_outlives_a_ledger_in_memory(desk: Desk) -> None:
    fields = Desk().fields()
    assert desk.send(fields).status_code == 200
    [referral] = desk.state.referrals
    assert (referral.ref, referral.state) == ("demo", "registered")


def test_state_and_history_are_written_together_or_not_at_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(desk.state.ledger, "record", fail)
    assert desk.send(desk.fields()).status_code == 500
    assert changes_nothing(desk)


def test_a_ledger_that_was_closed_can_be_closed_again(desk: Desk) -> None:
    desk.state.ledger.close()
    desk.state.ledger.close()


# The pages


def test_the_page_says_what_arrived_and_why_it_was_refused(desk: Desk) -> None:
    fields = desk.fields(referee_identity="<script>alert(1)</script>")
    desk.send(fields)
    desk.send(fields | {"server_event_id": "reg-newest"}, secret="wrong")
    page = desk.client.get("/").text
    assert "not the real service" in page
    assert 'href="http://localhost/r/demo-server?ref=demo"' in page
    assert "The signature does not match the body." in page
    assert "MMOLOVE_REFERRAL_SECRET is not this server" in page
    assert page.index("reg-newest") < page.index("reg-7842")
    assert "&lt;script&gt;alert(1)" in page
    assert fields["token"] not in page
    assert fields["token"][:6] in page


def test_the_page_has_no_script_no_inline_style_and_nothing_from_elsewhere(
    desk: Desk,
) -> None:
    desk.send(desk.fields())
    response = desk.client.get("/")
    assert "<script" not in response.text
    assert "<style" not in response.text
    assert "style=" not in response.text
    assert 'href="/static/sandbox.css"' in response.text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    with desk.client.get("/static/sandbox.css") as style:
        assert style.mimetype == "text/css"
        assert "url(" not in style.get_data(as_text=True)


def test_the_page_is_helpful_before_anything_arrived(desk: Desk) -> None:
    servers = desk.state.servers
    servers["demo-server"] = replace(
        servers["demo-server"], secret=None, referrals=False
    )
    page = desk.client.get("/").text
    assert "Nothing has arrived yet" in page
    assert "Referrals are switched off" in page
    assert "no referral secret yet" in page


def test_the_page_shows_the_last_hundred(desk: Desk) -> None:
    for number in range(101):
        desk.send(desk.fields(token="x", server_event_id=f"reg-{number}."))
    page = desk.client.get("/").text
    assert "The last 100 of 101." in page
    assert "reg-100." in page
    assert "reg-0." not in page


def test_programs_can_read_the_history(desk: Desk) -> None:
    fields = desk.fields()
    desk.send(fields)
    desk.post(b'{"\xff', sign(b""))
    history = desk.client.get("/history.json").json
    assert history is not None
    first, second = history["arrivals"]
    assert (first["token"], first["status"]) == (fields["token"], 200)
    assert json.loads(first["body"]) == fields
    assert second["body"] == '{"\\xff'
    assert history["referrals"][0]["state"] == "registered"


def test_a_lone_surrogate_harms_no_page(desk: Desk) -> None:
    desk.send(desk.fields(server_event_id="a\ud800b"))
    assert "a?b" in desk.client.get("/").text
    assert desk.client.get("/history.json").status_code == 200


def test_programs_get_json_for_a_wrong_method(desk: Desk) -> None:
    response = desk.client.get(EVENTS)
    assert error(response) == (405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


def test_answers_carry_the_date_of_the_injected_clock(desk: Desk) -> None:
    for response in (desk.client.get("/"), desk.send(desk.fields())):
        assert response.headers.getlist("Date") == ["Fri, 06 Dec 2024 15:46:40 GMT"]


# Faults


def test_a_failure_to_order_processes_nothing(desk: Desk) -> None:
    desk.state.faults = Faults(fail=503, retry_after=7)
    fields = desk.fields()
    response = desk.send(fields)
    assert error(response) == (503, "fault")
    assert response.headers["Retry-After"] == "7"
    assert changes_nothing(desk)
    assert "answers 503" in desk.client.get("/").text
    desk.state.faults = Faults(retry_after=7)
    response = desk.send(fields)
    assert response.status_code == 200
    assert "Retry-After" not in response.headers


def test_a_share_of_the_requests_meets_the_fault_the_same_in_each_run() -> None:
    def statuses() -> list[int]:
        faults = Faults(fail=500, rate=0.5, random=random.Random(7).random)
        desk = Desk(faults=faults)
        fields = desk.fields()
        return [desk.send(fields).status_code for _ in range(20)]

    assert statuses() == statuses()
    assert set(statuses()) == {200, 500}


def test_a_rate_of_nothing_is_no_fault() -> None:
    desk = Desk(faults=Faults(fail=500, rate=0))
    assert desk.send(desk.fields()).status_code == 200


def test_a_wrong_clock_is_wrong_in_the_date_and_in_the_window(desk: Desk) -> None:
    desk.state.faults = Faults(clock=-3600)
    response = desk.send(desk.fields())
    assert error(response) == (401, "stale_signature")
    assert response.headers["Date"] == "Fri, 06 Dec 2024 14:46:40 GMT"
    assert "3600 s ahead of" in desk.state.arrivals[0].reason


def test_without_a_socket_to_close_a_drop_is_a_502(desk: Desk) -> None:
    desk.state.faults = Faults(drop="answer")
    assert desk.send(desk.fields()).status_code == 502


@pytest.mark.parametrize(
    "options",
    [
        {"fail": 200},
        {"drop": "everything"},
        {"fail": 503, "drop": "answer"},
        {"latency": -1},
        {"rate": 1.5},
    ],
)
def test_a_fault_that_makes_no_sense_is_an_error(options: Fields) -> None:
    with pytest.raises(ValueError):
        Faults(**options)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (Faults(), ""),
        (
            Faults(fail=503, rate=0.25),
            "the endpoint answers 503 for 25% of the requests",
        ),
        (
            Faults(drop="answer", latency=2, clock=90),
            "the endpoint loses the answer and waits 2 s; the clock is +90 s off",
        ),
        (Faults(clock=-5), "the clock is -5 s off"),
    ],
)
def test_faults_can_be_said_in_words(faults: Faults, words: str) -> None:
    assert faults.words == words


# Served on loopback


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


def test_a_lost_answer_has_done_its_work() -> None:
    with Sandbox(faults=Faults(drop="answer")) as sandbox:
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


def test_an_outage_ends_at_the_same_address_with_everything_remembered() -> None:
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
    before = threading.active_count()
    with Sandbox() as sandbox:
        post(sandbox, event(sandbox.mint()))
    assert threading.active_count() == before
