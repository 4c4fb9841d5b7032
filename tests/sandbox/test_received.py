"""The form of the body."""

from __future__ import annotations

import json

import pytest

from tests.sandbox.site import changes_nothing
from tests.sandbox.site import error
from tests.sandbox.site import Fields
from tests.sandbox.site import NOW
from tests.sandbox.site import sign
from tests.sandbox.site import Site


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
def test_a_body_that_is_no_json_object_is_a_400(site: Site, body: bytes) -> None:
    assert error(site.post(body, sign(body))) == (400, "malformed_json")


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
    site: Site, name: str, value: object
) -> None:
    fields = site.fields(**{name: value})
    if value is MISSING:
        del fields[name]
    assert error(site.send(fields)) == (400, "invalid_field")
    assert repr(name) in site.service.arrivals[0].reason
    assert changes_nothing(site)


def test_a_time_without_end_is_a_400(site: Site) -> None:
    body = json.dumps(site.fields()).encode().replace(b"1733500000", b"1e999")
    assert error(site.post(body, sign(body))) == (400, "invalid_field")


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
def test_what_the_contract_allows_is_accepted(site: Site, changes: Fields) -> None:
    assert site.send(site.fields(**changes)).status_code == 200


def test_a_time_may_be_left_out(site: Site) -> None:
    fields = site.fields()
    del fields["ts"]
    assert site.send(fields).status_code == 200


def test_later_events_have_their_referee_ignored(site: Site) -> None:
    fields = site.fields()
    site.send(fields)
    qualified = fields | {"event": "qualified", "referee_identity": 5}
    assert site.send(qualified).status_code == 200
    del qualified["referee_identity"]
    assert site.send(qualified | {"server_event_id": "other"}).status_code == 200


def test_texts_are_trimmed(site: Site) -> None:
    token = site.service.mint()
    padded = site.fields(
        token=f" {token} ", server_id=" demo-server\n", server_event_id=" reg-7842"
    )
    assert site.send(padded).status_code == 200
    assert site.send(site.fields(token=token)).json == {"ok": True, "duplicate": True}
