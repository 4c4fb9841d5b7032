"""What a response means."""

from __future__ import annotations

import gzip
import json
import typing as t
from email.utils import formatdate

import pytest

from flask_mmolove.protocol.response import read_response
from flask_mmolove.protocol.response import response_line
from flask_mmolove.protocol.response import RETRY_AFTER_LIMIT
from flask_mmolove.protocol.response import Verdict
from tests.protocol.clients import BODY
from tests.protocol.clients import NOW
from tests.protocol.clients import Reach
from tests.protocol.rawserver import json_response
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import response
from tests.protocol.rawserver import then_close

ACCEPTED = Verdict.ACCEPTED
IGNORED = Verdict.IGNORED
REJECTED = Verdict.REJECTED
REFUSED = Verdict.REFUSED
RETRY = Verdict.RETRY


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


# -- Retry-After -----------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (401, '{"error":"bad_signature"}', "HTTP 401: bad_signature"),
        (200, '{"ok":true,"duplicate":true}', "HTTP 200: duplicate"),
        (200, '{"ok":true,"state":"qualified"}', "HTTP 200: qualified"),
        (200, '{"ok": true}', 'HTTP 200: {"ok": true}'),
        (502, "\n<html><p>Bad gateway", "HTTP 502: a page of HTML"),
        (500, "out of\nmemory", "HTTP 500: out of memory"),
        (500, "", "HTTP 500"),
        (0, "ConnectTimeout: no answer", "ConnectTimeout: no answer"),
        (None, None, ""),
    ],
)
def test_a_line_says_what_the_response_says(
    status: int | None, body: str | None, line: str
) -> None:
    assert response_line(status, body) == line
