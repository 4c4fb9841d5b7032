"""Who is reported by a signup, and who is not."""

from __future__ import annotations

import typing as t

import pytest
from flask import abort
from flask import Flask
from flask import make_response
from flask import redirect
from flask import request
from flask import request_tearing_down
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_login import login_user
from flask_login import LoginManager
from flask_login import logout_user
from werkzeug.routing import RequestRedirect

from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox

from .signups import add_login
from .signups import Reported
from .signups import SEVEN
from .signups import token_of
from .signups import Trouble
from .signups import User

View_ = t.Callable[[], ResponseReturnValue]


def test_a_visitor_without_a_token_is_not_reported(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    add_login(app)

    @app.post("/join")
    @referral_register(player=lambda response: 8)
    def join() -> str:
        registered(7)
        return ""

    assert client.post("/join").status_code == 200
    assert client.post("/login/7").status_code == 302
    assert mmolove_sandbox.sandbox.arrivals == []
    with app.app_context():
        assert qualify(7) is None


def test_the_same_user_who_logs_in_again_is_nobody_new(
    app: Flask, client: FlaskClient, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    add_login(app)
    client.post("/login/7")
    client.get(f"/?mmref={token}")
    client.post("/login/7")
    assert mmolove_sandbox.sandbox.arrivals == []
    assert token_of(app, client) == token


def test_a_user_who_was_logged_in_before_is_nobody_new(
    app: Flask, client: FlaskClient, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    add_login(app)

    @app.post("/join")
    @referral_register
    def join() -> str:
        return "you have an account"

    client.post("/login/7")
    client.get(f"/?mmref={token}")
    client.post("/join")
    assert mmolove_sandbox.sandbox.arrivals == []


@pytest.mark.parametrize("cookie", [None, "kept_login"])
def test_a_user_who_is_only_remembered_is_nobody_new(
    app: Flask, visitor: FlaskClient, reported: Reported, cookie: str | None
) -> None:
    if cookie:
        app.config["REMEMBER_COOKIE_NAME"] = cookie
    LoginManager(app).user_loader(User)

    @app.post("/login")
    def log_in() -> str:
        login_user(User("7"), remember=True)
        return ""

    @app.route("/join", methods=["GET", "POST"])
    @referral_register
    def join() -> ResponseReturnValue:
        if request.method == "POST":
            login_user(User("8"))
        elif current_user.is_authenticated:
            return redirect("/")
        return ""

    visitor.post("/login")
    with visitor.session_transaction() as kept:  # the browser was closed meanwhile
        del kept["_user_id"]
    assert visitor.get("/join").status_code == 302
    assert reported() == []
    visitor.post("/join")
    assert reported() == [("registered", "8")]


def test_logging_out_makes_nobody_new(
    app: Flask, client: FlaskClient, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    add_login(app)

    @app.post("/leave")
    @referral_register
    def leave() -> str:
        logout_user()
        return ""

    client.post("/login/7")
    client.get(f"/?mmref={token}")
    client.post("/leave")
    assert mmolove_sandbox.sandbox.arrivals == []


@pytest.mark.parametrize("status", [400, 401, 403, 409, 422, 429, 500, 503])
def test_an_error_response_drops_the_report_and_keeps_the_token(
    app: Flask, visitor: FlaskClient, reported: Reported, token: str, status: int
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> ResponseReturnValue:
        registered(7)
        return "no", status

    response = visitor.post("/join")
    assert (response.status_code, response.text) == (status, "no")
    assert reported() == []
    assert token_of(app, visitor) == token


@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exception_passes_untouched_and_its_handler_decides(
    app: Flask, visitor: FlaskClient, reported: Reported, kind: str, status: int
) -> None:
    trouble = Trouble("no")
    seen: list[Exception] = []

    def fail() -> t.NoReturn:
        seen.append(trouble)
        registered(7)
        raise trouble

    async def fail_later() -> t.NoReturn:
        fail()

    @app.errorhandler(Trouble)
    def handle(error: Trouble) -> ResponseReturnValue:
        assert error is trouble
        return "handled", status

    view = referral_register(fail if kind == "sync" else fail_later)
    app.add_url_rule("/join", "join", view, methods=["POST"])
    response = visitor.post("/join")
    assert (response.status_code, response.text) == (status, "handled")
    assert seen == [trouble]  # the view ran once
    assert reported() == (SEVEN if status == 200 else [])


def test_an_error_response_that_drops_a_player_is_warned_of(
    app: Flask, visitor: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> ResponseReturnValue:
        registered(7)
        return "your mail is to be confirmed", 403

    visitor.post("/join")
    assert "who was not reported: the answer was 403" in caplog.text


def test_a_redirect_that_is_raised_counts_like_one_that_is_returned(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        raise RequestRedirect("/hi")

    assert visitor.post("/join").status_code == 308
    assert reported() == SEVEN


def test_a_handler_decides_over_all_whom_the_view_named(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.errorhandler(Trouble)
    def handle(error: Trouble) -> str:
        return "handled"

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        registered(8)
        raise Trouble

    assert visitor.post("/join").text == "handled"
    assert reported() == SEVEN  # and the token is used up


def test_a_handler_of_an_exception_may_name_a_player(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.errorhandler(Trouble)
    def handle(error: Trouble) -> str:
        registered(7)
        return "welcome all the same"

    @app.post("/join")
    @referral_register
    def join() -> str:
        raise Trouble

    visitor.post("/join")
    assert reported() == SEVEN


def test_an_exception_that_nobody_handles_reaches_the_server(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    app.testing = True

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        raise Trouble

    with pytest.raises(Trouble):
        visitor.post("/join")
    assert reported() == []


def test_an_abort_passes_untouched(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        abort(418)

    assert visitor.post("/join").status_code == 418
    assert reported() == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(redirect("/hi"), SEVEN), (("that name is taken", 409), [])],
)
@pytest.mark.parametrize("path", ["/join", "/join-async"])
def test_a_response_that_a_view_aborts_with_counts_like_one_it_returns(
    app: Flask,
    visitor: FlaskClient,
    reported: Reported,
    path: str,
    answer: ResponseReturnValue,
    expected: list[tuple[str, str]],
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        abort(make_response(answer))

    @app.post("/join-async")
    @referral_register
    async def join_async() -> str:
        registered(7)
        abort(make_response(answer))

    assert visitor.post(path).status_code in (302, 409)
    assert reported() == expected


def test_a_view_that_returns_nothing_is_the_error_it_always_was(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> t.Any:
        registered(7)

    assert visitor.post("/join").status_code == 500
    assert reported() == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_view_is_called_exactly_once(
    app: Flask, visitor: FlaskClient, kind: str
) -> None:
    calls: list[str] = []

    def join() -> str:
        calls.append("now")
        registered(7)
        return ""

    async def join_later() -> str:
        return join()

    view = referral_register(join if kind == "sync" else join_later)
    app.add_url_rule("/join", "join", view, methods=["POST"])
    visitor.post("/join")
    assert calls == ["now"]


def test_a_callable_that_finds_nobody_reports_nobody(
    app: Flask,
    visitor: FlaskClient,
    token: str,
    mmolove_sandbox: SiteSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @app.post("/join")
    @referral_register(player=lambda response: None)
    def join() -> str:
        return "check your mail"

    visitor.post("/join")
    assert mmolove_sandbox.sandbox.arrivals == []
    assert token_of(app, visitor) == token
    assert "player= gave None" in caplog.text


def test_other_requests_hear_nothing_of_a_signup_that_is_over(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    kept = []

    @app.post("/join")
    @referral_register
    def join() -> str:
        kept.append(request.environ)
        assert list(request_tearing_down.receivers_for(app))
        registered(7)
        return ""

    visitor.post("/join")
    assert reported() == SEVEN
    assert list(request_tearing_down.receivers_for(app)) == []


def test_a_request_that_ends_meanwhile_does_not_end_a_signup(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> ResponseReturnValue:
        assert app.test_client().get("/any").status_code == 404
        registered(7)
        return "the name is taken", 400

    assert visitor.post("/join").status_code == 400
    assert reported() == []
