"""The rules, against the contract."""

from __future__ import annotations

import json
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from flask_mmolove.protocol.wire import Event
from flask_mmolove.protocol.wire import sign_referral_body
from flask_mmolove.sandbox import Server
from tests.sandbox.site import changes_nothing
from tests.sandbox.site import CONFLICT
from tests.sandbox.site import error
from tests.sandbox.site import Fields
from tests.sandbox.site import NOW
from tests.sandbox.site import sign
from tests.sandbox.site import Site


def test_a_referral_goes_from_clicked_to_registered_to_qualified(site: Site) -> None:
    registered = site.fields()
    response = site.send(registered)
    [referral] = site.service.referrals
    assert response.status_code == 200
    assert response.json == {
        "ok": True,
        "referral_id": referral.id,
        "state": "registered",
    }
    qualified = registered | {"event": "qualified", "server_event_id": "qual-7842"}
    response = site.send(qualified)
    assert response.json == {
        "ok": True,
        "referral_id": referral.id,
        "state": "qualified",
    }
    assert site.service.referrals == [
        replace(referral, state="qualified", referee_identity="player-7842")
    ]


def test_the_published_vector_verifies() -> None:
    body = (
        b'{"event":"registered","token":"tok.demo","server_id":"srv-1",'
        b'"referee_identity":"player-7842","server_event_id":"reg-7842",'
        b'"ts":1733500000}'
    )
    mac = "0b0a83dc9fded9e877853f8b875957a1fab5aa52f828186a51fdf62c55df0812"
    site = Site(server_id="srv-1", secret="mmolove-test-secret")
    response = site.post(body, f"t=1733500000,v1=sha256={mac}")
    assert error(response) == (404, "unknown_token")


def test_what_the_wire_module_sends_is_accepted(site: Site) -> None:
    event = Event("registered", site.service.mint(), "demo-server", "reg-1", NOW, "ä-1")
    body = event.encode()
    header = sign_referral_body(body, "demo-secret", timestamp=NOW, key_id="k1")
    assert site.post(body, header).status_code == 200


def test_the_raw_bytes_are_verified_not_what_they_mean(site: Site) -> None:
    fields = site.fields()
    signed = json.dumps(fields).encode()
    sent = json.dumps(fields, separators=(",", ":")).encode()
    assert error(site.post(sent, sign(signed))) == (401, "bad_signature")
    assert site.post(signed, sign(signed)).status_code == 200


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_clock_five_minutes_off_is_accepted(site: Site, seconds: int) -> None:
    assert site.send(site.fields(), at=NOW + seconds).status_code == 200


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_clock_further_off_is_refused(site: Site, seconds: int) -> None:
    response = site.send(site.fields(), at=NOW + seconds)
    assert error(response) == (401, "stale_signature")
    assert "301 s" in site.service.arrivals[0].reason


def test_a_clock_is_further_off_by_less_than_a_second(site: Site) -> None:
    site.clock.now += 0.5
    response = site.send(site.fields(), at=NOW - 300)
    assert error(response) == (401, "stale_signature")


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
def test_a_malformed_signature_header_is_a_400(site: Site, header: str) -> None:
    body = json.dumps(site.fields()).encode()
    assert error(site.post(body, header)) == (400, "malformed_signature")


def test_a_missing_signature_header_is_a_400(site: Site) -> None:
    body = json.dumps(site.fields()).encode()
    assert error(site.post(body)) == (400, "missing_signature")


@pytest.mark.parametrize("content_type", ["text/plain", None])
def test_a_body_that_does_not_say_json_is_a_400(
    site: Site, content_type: str | None
) -> None:
    body = json.dumps(site.fields()).encode()
    response = site.post(body, sign(body), content_type=content_type)
    assert error(response) == (400, "wrong_content_type")


def test_a_charset_beside_json_is_accepted(site: Site) -> None:
    body = json.dumps(site.fields()).encode()
    response = site.post(
        body, sign(body), content_type="application/json; charset=utf-8"
    )
    assert response.status_code == 200


def test_a_body_beyond_64_kib_is_a_400(site: Site) -> None:
    response = site.send(site.fields(more="x" * 65536))
    assert error(response) == (400, "body_too_large")
    assert len(site.service.arrivals) == 1


# -- what is looked up -----------------------------------------------------------------


def test_an_unknown_server_is_a_404(site: Site) -> None:
    response = site.send(site.fields(server_id="other"))
    assert error(response) == (404, "unknown_server")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"referrals": False}, "referrals_off"),
        ({"secret": None}, "no_secret"),
        ({"secret": ""}, "no_secret"),
    ],
)
def test_a_server_that_is_not_ready_is_a_404(
    site: Site, changes: Fields, expected: str
) -> None:
    servers = site.service.servers
    servers["demo-server"] = replace(servers["demo-server"], **changes)
    assert error(site.send(site.fields())) == (404, expected)


def test_each_server_has_its_own_secret_and_tokens(site: Site) -> None:
    site.service.servers["two"] = Server("two", "secret-2", "http://127.0.0.1/two")
    token = site.service.mint("anna", "two")
    fields = site.fields(token=token, server_id="two")
    assert error(site.send(fields)) == (401, "bad_signature")
    stranger = site.fields(token=site.service.mint("anna"), server_id="two")
    assert error(site.send(stranger, secret="secret-2")) == (404, "unknown_token")
    assert site.send(fields, secret="secret-2").status_code == 200


def test_one_player_can_be_referred_to_two_servers(site: Site) -> None:
    site.service.servers["two"] = Server("two", "demo-secret", "http://127.0.0.1/two")
    assert site.send(site.fields()).status_code == 200
    token = site.service.mint("bob", "two")
    response = site.send(site.fields(token=token, server_id="two"))
    assert response.json is not None
    assert response.json["state"] == "registered"


# -- the order of the rules: the first that fails decides the response -----------------


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
    site: Site, changes: Fields, signing: Fields, expected: tuple[int, str]
) -> None:
    assert error(site.send(site.fields(**changes), **signing)) == expected
    assert changes_nothing(site)


def test_a_malformed_header_wins_over_a_malformed_body(site: Site) -> None:
    assert error(site.post(b"{", "garbage")) == (400, "malformed_signature")
    assert error(site.post(b"{")) == (400, "missing_signature")


def test_a_malformed_body_wins_over_a_bad_signature(site: Site) -> None:
    assert error(site.post(b"{", sign(b"other"))) == (400, "malformed_json")


# -- dry runs, duplicates, first touch, transitions ------------------------------------


@pytest.mark.parametrize("event", ["registered", "qualified", "reversed"])
@pytest.mark.parametrize("changes", [{}, {"token": "unknown"}])
def test_a_dry_run_is_verified_and_writes_nothing(
    site: Site, event: str, changes: Fields
) -> None:
    fields = site.fields(event=event, test=True, **changes)
    for _ in range(2):
        response = site.send(fields)
        assert (response.status_code, response.json) == (
            200,
            {"ok": True, "test": True},
        )
    assert changes_nothing(site)
    assert [row.outcome for row in site.service.arrivals] == ["test", "test"]


def test_a_dry_run_does_not_make_the_event_a_duplicate(site: Site) -> None:
    fields = site.fields()
    site.send(fields | {"test": True})
    response = site.send(fields)
    assert response.json is not None
    assert response.json["state"] == "registered"


def test_the_same_event_again_is_a_duplicate(site: Site) -> None:
    fields = site.fields()
    site.send(fields)
    for again in (fields, fields | {"ts": 5, "referee_identity": "someone else"}):
        response = site.send(again)
        assert (response.status_code, response.json) == (
            200,
            {"ok": True, "duplicate": True},
        )


def test_a_refused_event_is_no_duplicate_later(site: Site) -> None:
    registered = site.fields()
    qualified = registered | {"event": "qualified", "server_event_id": "qual-7842"}
    assert error(site.send(qualified)) == (422, "not_registered")
    site.send(registered)
    response = site.send(qualified)
    assert response.json is not None
    assert response.json["state"] == "qualified"


def test_the_key_of_an_event_is_token_event_and_id_together(site: Site) -> None:
    fields = site.fields()
    site.send(fields)
    responses = [
        site.send(fields | {"event": "qualified"}),
        site.send(site.fields(referee_identity="other")),
    ]
    assert all("state" in (response.json or {}) for response in responses)


@pytest.mark.parametrize("event", ["registered", "qualified"])
def test_the_response_has_a_state_that_was_already_reached(
    site: Site, event: str
) -> None:
    fields = site.fields()
    site.send(fields)
    site.send(fields | {"event": "qualified"})
    response = site.send(fields | {"event": event, "server_event_id": "new"})
    assert response.json is not None
    assert (response.status_code, response.json["state"]) == (200, "qualified")


def test_the_first_referrer_to_register_an_account_wins(site: Site) -> None:
    first, second = site.fields(), site.fields(server_event_id="reg-again")
    site.send(first)
    for _ in range(2):
        response = site.send(second)
        assert (response.status_code, response.json) == (200, CONFLICT)
    assert [row.state for row in site.service.referrals] == ["registered", "ignored"]


def test_a_token_that_lost_is_ignored_for_good(site: Site) -> None:
    site.send(site.fields())
    loser = site.fields()
    site.send(loser)
    qualified = loser | {"event": "qualified", "server_event_id": "qual-7842"}
    # Never `duplicate`, which would tell a site to grant the reward.
    assert [site.send(qualified).json for _ in range(2)] == [CONFLICT, CONFLICT]
    assert site.send(loser | {"referee_identity": "new"}).json == CONFLICT


def test_a_winner_keeps_its_referee_whatever_it_claims_next(site: Site) -> None:
    site.send(site.fields())
    winner = site.fields(referee_identity="mine")
    site.send(winner)
    claim = winner | {"referee_identity": "player-7842", "server_event_id": "other"}
    assert site.send(claim).json == CONFLICT
    response = site.send(winner | {"event": "qualified"})
    assert response.json is not None
    assert response.json["state"] == "qualified"


def test_a_second_account_on_one_token_is_not_anchored(site: Site) -> None:
    fields = site.fields()
    site.send(fields)
    sibling = {"referee_identity": "sibling", "server_event_id": "reg-sibling"}
    site.send(fields | sibling)
    assert site.service.referrals[0].referee_identity == "player-7842"
    response = site.send(site.fields(**sibling))
    assert response.json is not None
    assert response.json["state"] == "registered"


def test_reversed_is_accepted_and_not_acted_on(site: Site) -> None:
    fields = site.fields()
    site.send(fields)
    response = site.send(fields | {"event": "reversed"})
    assert response.json is not None
    assert (response.status_code, response.json["state"]) == (200, "registered")


@pytest.mark.parametrize("state", ["reversed", "rejected"])
@pytest.mark.parametrize("event", ["registered", "qualified"])
def test_a_referral_that_was_closed_is_a_422(
    site: Site, state: t.Literal["reversed", "rejected"], event: str
) -> None:
    fields = site.fields()
    site.send(fields)
    site.service.close_referral(fields["token"], state)
    response = site.send(fields | {"event": event, "server_event_id": "new"})
    assert error(response) == (422, "referral_closed")


def test_of_two_tokens_at_once_exactly_one_wins_the_account() -> None:
    for _ in range(5):
        site = Site()
        claims = [site.fields(server_event_id=f"reg-{n}") for n in range(2)]
        barrier = threading.Barrier(2)

        def claim(fields: Fields, site: Site = site) -> object:
            barrier.wait()  # noqa: B023 - the pool is done before the next round
            return site.send(fields).json

        with ThreadPoolExecutor(2) as pool:
            responses = list(pool.map(claim, claims))
        assert responses.count(CONFLICT) == 1
        states = sorted(row.state for row in site.service.referrals)
        assert states == ["ignored", "registered"]
