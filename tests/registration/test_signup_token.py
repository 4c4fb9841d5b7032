"""Once a player is reported, the token is used up."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask
from flask import request
from flask.sessions import SecureCookieSession
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from flask_mmolove import OutboxError
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.capture.token import COOKIE
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

from .signups import add_login
from .signups import Reported
from .signups import SEVEN
from .signups import token_of

View_ = t.Callable[[], ResponseReturnValue]


def test_after_the_signup_the_session_and_the_cookies_forget_the_token(
    app: Flask, visitor: FlaskClient, token: str, reported: Reported
) -> None:
    add_login(app)
    visitor.set_cookie("mmref", token)
    response = visitor.post("/login/7")
    gone = [h for h in response.headers.getlist("Set-Cookie") if "Max-Age=0" in h]
    assert {header.partition("=")[0] for header in gone} == {COOKIE.name, "mmref"}
    with visitor.session_transaction() as kept:
        assert "mmref" not in kept
        assert kept["_user_id"] == "7"
    visitor.post("/login/8")
    assert reported() == SEVEN
    assert token_of(app, visitor) is None


def in_a_job(app: Flask, token: str) -> None:
    with app.app_context():
        registered(7, token=token)


def in_a_socket(app: Flask, token: str) -> None:
    """It has the request that opened it, which gets no response any more."""
    with app.test_request_context():
        registered(7, token=token)


@pytest.mark.parametrize("days", [0, 90])
@pytest.mark.parametrize("sign_up", [in_a_job, in_a_socket])
def test_a_signup_without_a_response_uses_the_token_up_at_the_next_one(
    make_app: MakeApp,
    token: str,
    sign_up: t.Callable[[Flask, str], None],
    days: int,
    reported: Reported,
) -> None:
    app = make_app(COOKIE_DAYS=days)
    client = app.test_client()
    client.get(f"/?mmref={token}")
    sign_up(app, token)
    assert reported() == SEVEN
    assert "Set-Cookie" in client.get("/").headers
    assert token_of(app, client) is None
    assert "Set-Cookie" not in client.get("/").headers


@pytest.mark.parametrize("days", [0, 90])
@pytest.mark.parametrize("attribution", ["first-touch", "last-touch"])
def test_a_new_link_takes_the_place_of_a_token_that_is_used_up(
    make_app: MakeApp,
    token: str,
    attribution: str,
    days: int,
    mmolove_sandbox: SiteSandbox,
) -> None:
    app = make_app(ATTRIBUTION=attribution, COOKIE_DAYS=days)
    client = app.test_client()
    client.get(f"/?mmref={token}")
    in_a_job(app, token)
    client.get(f"/?mmref={token}")
    assert token_of(app, client) is None
    client.get(f"/?mmref={token}")
    another = mmolove_sandbox.mint()
    client.get(f"/?mmref={another}")
    assert token_of(app, client) == another


def test_no_page_waits_twice_for_an_outbox_that_cannot_say(
    app: Flask, client: FlaskClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get(f"/?mmref={token}")
    outbox = app.extensions["mmolove"].outbox
    asked: list[str] = []

    def ask(token: str, timeout: float) -> bool:
        asked.append(token)
        raise OutboxError("away")

    monkeypatch.setattr(outbox, "is_used", ask)
    for _ in range(2):
        assert token_of(app, client) == token
    assert asked == [token]


def test_the_same_link_can_be_followed_again_after_a_signup(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    add_login(app)
    visitor.post("/login/7")
    visitor.get(f"/?mmref={mmolove_sandbox.mint()}")
    visitor.post("/login/8")
    assert mmolove_sandbox.reported == [("registered", "7"), ("registered", "8")]


def test_a_form_that_posts_to_the_address_with_the_token_is_one_signup(
    app: Flask, client: FlaskClient, token: str, reported: Reported
) -> None:
    @app.route("/join", methods=["GET", "POST"])
    @referral_register
    def join() -> str:
        if request.method == "POST":
            registered(7)
        return ""

    client.get(f"/join?mmref={token}")
    client.post(f"/join?mmref={token}")
    assert reported() == SEVEN
    assert token_of(app, client) is None


def test_a_signup_page_that_is_only_looked_at_stays_cacheable(
    app: Flask, client: FlaskClient
) -> None:
    @app.route("/join", methods=["GET", "POST"])
    @referral_register
    def join() -> str:
        return "the form"

    reads: list[str] = []

    class Watched(SecureCookieSession):
        def get(self, key: str, default: t.Any = None) -> t.Any:
            reads.append(key)
            return super().get(key, default)

    t.cast(t.Any, app.session_interface).session_class = Watched
    response = client.get("/join")
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers
    assert reads == []  # from Flask 2.3.2 on this adds the "Vary: Cookie"
