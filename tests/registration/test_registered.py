"""``registered()`` outside of a signup view, and with a token of its own."""

from __future__ import annotations

import typing as t
from types import SimpleNamespace

import pytest
from flask import Flask
from flask import Response
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from flask_mmolove import event_recorded
from flask_mmolove import IdentityError
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox

from .signups import Reported
from .signups import SEVEN
from .signups import token_of
from .signups import Trouble

View_ = t.Callable[[], ResponseReturnValue]


def test_in_a_request_without_the_decorator_it_is_recorded_at_once(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.get("/callback")
    def callback() -> str:
        registered(7)
        assert reported() == SEVEN
        return ""

    visitor.get("/callback")
    assert reported() == SEVEN
    assert token_of(app, visitor) is None


def test_in_a_script_the_token_is_named(
    app: Flask, token: str, reported: Reported
) -> None:
    with app.app_context():
        registered(7, token=token)
    assert reported() == SEVEN


def test_in_a_script_the_players_own_token_is_found(
    app: Flask, token: str, reported: Reported
) -> None:
    with app.app_context():
        registered(SimpleNamespace(id=7, mmref=token))
    assert reported() == SEVEN


@pytest.mark.parametrize("around", ["{} ", "{}\n", "\ufeff{}"])
def test_a_token_that_was_copied_with_blanks_is_taken(
    app: Flask, token: str, around: str, mmolove_sandbox: SiteSandbox
) -> None:
    with app.app_context():
        registered(7, token=around.format(token))
        registered(SimpleNamespace(id=8, mmref=around.format(mmolove_sandbox.mint())))
    assert {event.token for event in mmolove_sandbox.sandbox.events} == {
        referral.token for referral in mmolove_sandbox.sandbox.referrals
    }
    assert len(mmolove_sandbox.reported) == 2


@pytest.mark.parametrize(
    "mmref", [None, "", "a b", "x" * 1025, 7, b"tok", SimpleNamespace()]
)
def test_a_player_without_a_token_was_not_referred(
    app: Flask, mmolove_sandbox: SiteSandbox, mmref: object
) -> None:
    with app.app_context():
        registered(SimpleNamespace(id=7, mmref=mmref))
        registered(8)
    assert mmolove_sandbox.sandbox.arrivals == []


def test_a_player_without_a_token_needs_no_identity(app: Flask) -> None:
    with app.app_context():
        registered(SimpleNamespace(id=None))


def test_in_a_script_a_player_without_an_identity_is_an_error(
    app: Flask, token: str
) -> None:
    with app.app_context(), pytest.raises(IdentityError, match="flush"):
        registered(SimpleNamespace(id=None), token=token)


def test_saying_it_again_changes_nothing(
    app: Flask, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    with app.app_context():
        for _ in range(3):
            registered(7, token=token)
        registered(7, token=mmolove_sandbox.mint("another"))
    assert len(mmolove_sandbox.sandbox.arrivals) == 1


def test_an_event_that_is_recorded_is_told_of_once(app: Flask, token: str) -> None:
    told: list[tuple[object, str, str]] = []

    def listen(sender: object, entry: t.Any, **extra: t.Any) -> None:
        told.append((sender, entry.event, entry.identity))

    with event_recorded.connected_to(listen), app.app_context():
        registered(7, token=token)
        registered(7, token=token)
    assert told == [(app, "registered", "7")]


def test_a_named_token_counts_before_the_visitors(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    named = mmolove_sandbox.mint("named")

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7, token=named)
        return ""

    visitor.post("/join")
    [event] = mmolove_sandbox.sandbox.events
    assert event.token == named


@pytest.mark.parametrize("how", ["error", "exception"])
def test_a_named_token_in_a_decorated_view_waits_for_the_response_too(
    app: Flask, client: FlaskClient, token: str, reported: Reported, how: str
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> ResponseReturnValue:
        registered(7, token=token)
        if how == "exception":
            raise Trouble  # and the site's transaction is rolled back
        return "the name is taken", 409

    client.post("/join")
    assert reported() == []


def test_a_named_token_in_a_decorated_view_waits_for_the_id_too(
    app: Flask, client: FlaskClient, token: str, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        player = SimpleNamespace(id=None)
        registered(player, token=token)
        player.id = 7
        return ""

    client.post("/join")
    assert reported() == SEVEN


def test_a_named_token_that_is_none_is_never_sent(
    app: Flask, visitor: FlaskClient, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7, token="no token at all")
        return ""

    visitor.post("/join")
    sent = {arrival.token for arrival in mmolove_sandbox.sandbox.arrivals}
    assert sent <= {token}


def test_a_visitor_who_signs_up_someone_else_keeps_their_own_token(
    app: Flask, visitor: FlaskClient, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    other = mmolove_sandbox.mint("other")

    @app.post("/import")
    def take_in() -> str:
        registered(7, token=other)
        return ""

    visitor.post("/import")
    assert token_of(app, visitor) == token


def test_a_view_that_names_another_token_leaves_the_visitor_their_own(
    app: Flask, visitor: FlaskClient, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    other = mmolove_sandbox.mint("other")

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7, token=other)
        return ""

    visitor.post("/join")
    assert len(mmolove_sandbox.sandbox.events) == 1
    assert token_of(app, visitor) == token


def test_after_a_decorated_view_a_hook_of_the_app_may_still_name_a_player(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join", endpoint="join_named_by_a_hook")
    @referral_register
    def join() -> str:
        return "welcome"

    @app.after_request
    def name(response: Response) -> Response:
        registered(7)
        return response

    visitor.post("/join")
    assert reported() == SEVEN
