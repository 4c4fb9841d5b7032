"""The exact bytes, and their signatures, against the contract and against Node."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import shutil
import subprocess
import time
import typing as t

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from flask_mmolove import EventError
from flask_mmolove import sign_referral_body
from flask_mmolove import SignatureError
from flask_mmolove.protocol.signature import Signature
from flask_mmolove.protocol.wire import Event
from flask_mmolove.protocol.wire import is_token
from flask_mmolove.protocol.wire import shorten
from flask_mmolove.protocol.wire import TOKEN_LIMIT

# The test vector of the contract.
SECRET = "mmolove-test-secret"
NOW = 1733500000
BODY = (
    b'{"event":"registered","token":"tok.demo","server_id":"srv-1",'
    b'"referee_identity":"player-7842","server_event_id":"reg-7842","ts":1733500000}'
)
MAC = "0b0a83dc9fded9e877853f8b875957a1fab5aa52f828186a51fdf62c55df0812"
HEADER = f"t={NOW},v1=sha256={MAC}"

MAX_SAFE_INTEGER = 2**53 - 1


def make_event(**changes: t.Any) -> Event:
    fields: dict[str, t.Any] = {
        "event": "registered",
        "token": "tok.demo",
        "server_id": "srv-1",
        "server_event_id": "reg-7842",
        "ts": NOW,
        "referee_identity": "player-7842",
    }
    return Event(**fields | changes)


# -- the body ------------------------------------------------------------------------


def test_the_vector_of_the_contract_byte_for_byte() -> None:
    assert make_event().encode() == BODY


def test_fields_that_are_not_there_are_left_out() -> None:
    event = make_event(event="qualified", referee_identity=None)
    assert list(json.loads(event.encode())) == [
        "event",
        "token",
        "server_id",
        "server_event_id",
        "ts",
    ]


def test_a_dry_run_says_so_last() -> None:
    assert make_event(test=True).encode() == BODY[:-1] + b',"test":true}'


def test_text_goes_out_as_it_is_in_utf_8() -> None:
    body = make_event(referee_identity="Ünïcødé\u2028🐉 </x>").encode()
    assert '"Ünïcødé\u2028🐉 </x>"'.encode() in body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event", "reversed"),
        ("event", ""),
        ("event", None),
        ("token", ""),
        ("token", "  "),
        ("token", None),
        ("token", b"tok"),
        ("token", "\ud800"),
        ("server_id", "\t\n"),
        ("server_id", 7),
        ("server_event_id", ""),
        ("server_event_id", "reg-\udfff"),
        ("referee_identity", None),
        ("referee_identity", " "),
        ("referee_identity", 7842),
        ("referee_identity", "\ud83d"),
        ("ts", 1733500000.0),
        ("ts", True),
        ("ts", 0),
        ("ts", -1),
        ("ts", MAX_SAFE_INTEGER + 1),
        ("ts", "1733500000"),
        ("ts", None),
        ("ts", float("nan")),
    ],
)
def test_what_mmolove_could_only_refuse_is_refused_when_it_is_made(
    field: str, value: object
) -> None:
    with pytest.raises(EventError) as caught:
        make_event(**{field: value})
    assert caught.value.field == field
    assert str(caught.value)


def test_an_identity_on_a_later_event_may_be_missing_but_not_wrong() -> None:
    assert make_event(event="qualified", referee_identity=None).encode()
    with pytest.raises(EventError):
        make_event(event="qualified", referee_identity=" ")


def test_the_largest_whole_second_that_both_sides_hold_exactly_is_sent() -> None:
    body = make_event(ts=MAX_SAFE_INTEGER).encode()
    assert body.endswith(b'"ts":9007199254740991}')


@pytest.mark.parametrize(
    "name", ["token", "server_id", "server_event_id", "referee_identity"]
)
@pytest.mark.parametrize("mark", [" ", "\n", "\xa0", "\u3000", "\ufeff", "\x1c"])
def test_what_mmolove_would_trim_is_refused(name: str, mark: str) -> None:
    for value in (f"bob{mark}", f"{mark}bob"):
        with pytest.raises(EventError, match="white space around it") as caught:
            make_event(**{name: value})
        assert caught.value.field == name
    make_event(**{name: f"bob{mark}moor"})


def test_an_event_shows_no_token() -> None:
    assert "tok.demo" not in repr(make_event())


@pytest.mark.parametrize(
    ("token", "shown"), [("t", "…"), ("123456", "…"), ("1234567", "123456…")]
)
def test_a_shown_token_cannot_be_used(token: str, shown: str) -> None:
    assert shorten(token) == shown


# -- the signature -------------------------------------------------------------------


def test_the_signature_of_the_contracts_vector() -> None:
    assert sign_referral_body(BODY, SECRET, timestamp=NOW) == HEADER


def test_the_signature_is_an_hmac_over_the_time_and_the_raw_bytes() -> None:
    body, secret = b"\xff\x00 not even text", "schlüssel"
    mac = hmac.new(secret.encode(), b"%d." % NOW + body, hashlib.sha256).hexdigest()
    header = sign_referral_body(body, secret, timestamp=NOW)
    assert header == f"t={NOW},v1=sha256={mac}"


def test_a_text_is_signed_as_utf_8() -> None:
    text = '{"a":"ü"}'
    assert sign_referral_body(text, SECRET, timestamp=NOW) == sign_referral_body(
        text.encode(), SECRET, timestamp=NOW
    )


def test_a_key_id_stands_behind_the_signature() -> None:
    header = sign_referral_body(BODY, SECRET, timestamp=NOW, key_id="2024-b")
    assert header == f"{HEADER},kid=2024-b"
    assert Signature.parse(header) == Signature(NOW, MAC, "2024-b")


def test_a_signature_is_of_now_unless_said_otherwise() -> None:
    before = int(time.time())
    moment = Signature.parse(sign_referral_body(BODY, SECRET)).timestamp
    assert before <= moment <= time.time()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=,v1=sha256=" + MAC,
        "t=0,v1=sha256=" + MAC,
        "t=01,v1=sha256=" + MAC,
        "t=-1,v1=sha256=" + MAC,
        "t=1.5,v1=sha256=" + MAC,
        "t=1e9,v1=sha256=" + MAC,
        "t=١٢٣,v1=sha256=" + MAC,
        "t=1٢٣,v1=sha256=" + MAC,
        "t=99999999999999999,v1=sha256=" + MAC,
        f"t={NOW}",
        f"v1=sha256={MAC}",
        f"v1=sha256={MAC},t={NOW}",
        f"t={NOW},v1={MAC}",
        f"t={NOW},v1=sha256={MAC.upper()}",
        f"t={NOW},v1=sha256={MAC[:-1]}",
        f"t={NOW},v1=sha256={MAC}0",
        f"t={NOW},v1=sha1={MAC}",
        f"t={NOW}, v1=sha256={MAC}",
        f"{HEADER},",
        f"{HEADER},kid=",
        f"{HEADER},kid=a,kid=b",
        f"{HEADER},kid=a b",
        f"{HEADER}\nX: y",
        "\x00",
        "é" * 100,
    ],
)
def test_a_malformed_header_is_a_signature_error_and_no_other(header: str) -> None:
    with pytest.raises(SignatureError):
        Signature.parse(header)


def test_space_around_a_header_is_no_matter() -> None:
    assert Signature.parse(f" {HEADER}\t") == Signature(NOW, MAC)


@given(st.text())
@settings(deadline=None)
def test_no_header_whatever_raises_anything_else(header: str) -> None:
    try:
        Signature.parse(header)
    except SignatureError:
        pass


@pytest.mark.parametrize(
    ("body", "secret", "timestamp", "mac"),
    [
        (BODY + b" ", SECRET, NOW, MAC),
        (BODY.replace(b'"srv-1"', b'"srv-2"'), SECRET, NOW, MAC),
        (json.dumps(json.loads(BODY)).encode(), SECRET, NOW, MAC),
        (BODY, SECRET + " ", NOW, MAC),
        (BODY, "", NOW, MAC),
        (BODY, SECRET, NOW + 1, MAC),
        (BODY, SECRET, NOW, "0" * 64),
    ],
)
def test_another_body_secret_or_time_does_not_match(
    body: bytes, secret: str, timestamp: int, mac: str
) -> None:
    assert not Signature(timestamp, mac).matches(body, secret)


@given(st.binary(max_size=64), st.text(st.characters(codec="utf-8"), max_size=16))
@settings(max_examples=50, deadline=None)
def test_what_is_signed_matches(body: bytes, secret: str) -> None:
    header = sign_referral_body(body, secret, timestamp=NOW)
    assert Signature.parse(header).matches(body, secret)


# -- the token -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "token", ["t", "!", "~", "a.b_c-d=/+", "x" * TOKEN_LIMIT, '"\\<>;,%']
)
def test_a_token_is_visible_ascii(token: str) -> None:
    assert is_token(token)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * (TOKEN_LIMIT + 1),
        "a b",
        " a",
        "a\n",
        "\n",
        "a\x00",
        "\x7f",
        "é",
        "１",
        "\ud800",
        None,
        7,
        b"bytes",
        ["t"],
    ],
)
def test_anything_else_is_no_token(value: object) -> None:
    assert not is_token(value)


# -- the other side's own tools ------------------------------------------------------

NODE = shutil.which("node")

# What MMOLove's reference client does, with the tools that it does it with.
SCRIPT = """
const crypto = require("node:crypto");
const cases = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const signed = cases.map(({ fields, secret, t }) => {
  const body = Buffer.from(JSON.stringify(fields));
  const mac = crypto.createHmac("sha256", secret).update(`${t}.`).update(body);
  return [body.toString("hex"), `t=${t},v1=sha256=${mac.digest("hex")}`];
});
process.stdout.write(JSON.stringify(signed));
"""

_ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~",
    "".join(map(chr, range(0x80))),
    "\"\\/<>&'\b\f\n\r\t\x00\x1f\x7f\x80\x9f\xa0\xad",
    "äßéØ\u0301\u200b\u200d\u2028\u2029\ufeff\ufffd\uffff\ud7ff\ue000",
    "汉字日本語한국어עבריתالعربية",
    "🐉👩‍👩‍👧\U00010000\U0010ffff",
]


def random_text(rng: random.Random) -> str:
    alphabet = rng.choice(_ALPHABETS)
    return f"x{''.join(rng.choices(alphabet, k=rng.randrange(40)))}x"


def random_fields(rng: random.Random) -> dict[str, t.Any]:
    fields: dict[str, t.Any] = {"event": rng.choice(["registered", "qualified"])}
    fields["token"] = random_text(rng)
    fields["server_id"] = random_text(rng)
    if fields["event"] == "registered" or rng.random() < 0.3:
        fields["referee_identity"] = random_text(rng)
    fields["server_event_id"] = random_text(rng)
    fields["ts"] = rng.choice([1, NOW, MAX_SAFE_INTEGER, rng.randrange(1, 2**53)])
    if rng.random() < 0.5:
        fields["test"] = True
    return fields


@pytest.mark.skipif(NODE is None, reason="Not installed: Node.js: apt install nodejs")
def test_the_bytes_and_signatures_are_those_of_node() -> None:
    rng = random.Random(7842)
    cases: list[dict[str, t.Any]] = [
        {
            "fields": random_fields(rng),
            "secret": random_text(rng),
            "t": rng.randrange(1, 10**10),
        }
        for _ in range(400)
    ]
    node = subprocess.run(
        [str(NODE), "-e", SCRIPT],
        input=json.dumps(cases).encode(),
        capture_output=True,
        check=True,
        timeout=30,
    )
    signed = json.loads(node.stdout)
    assert len(signed) == len(cases)
    for case, (body, header) in zip(cases, signed, strict=True):
        ours = Event(**case["fields"]).encode()
        assert ours.hex() == body, case
        assert (
            sign_referral_body(ours, case["secret"], timestamp=case["t"]) == header
        ), case
