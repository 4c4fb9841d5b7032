"""``@referral_register``: how a view names the new player, and what it may be."""

from __future__ import annotations

import typing as t
from types import SimpleNamespace

import pytest
from flask import Blueprint
from flask import Flask
from flask import jsonify
from flask import make_response
from flask import redirect
from flask import request
from flask import Response
from flask import session
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask.views import MethodView
from flask.views import View
from flask_login import login_user
from flask_login import LoginManager

from flask_mmolove import MMOLove
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.capture.token import COOKIE
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

from .signups import Account
from .signups import add_login
from .signups import async_view
from .signups import Reported
from .signups import SEVEN
from .signups import sync_view
from .signups import User

View_ = t.Callable[[], ResponseReturnValue]


# -- how a view names the new player ---------------------------------------------------


def test_a_player_that_the_view_names_is_reported(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        assert reported() == []  # not before the response leaves
        return "welcome"

    assert visitor.post("/join").text == "welcome"
    assert reported() == SEVEN


def test_a_player_that_is_found_from_the_response_is_reported(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    def find(response: Response) -> SimpleNamespace:
        assert isinstance(response, app.response_class)
        return SimpleNamespace(id=response.headers["X-Player"])

    @app.post("/join")
    @referral_register(player=find)
    def join() -> ResponseReturnValue:
        return "welcome", 201, {"X-Player": "7"}

    assert visitor.post("/join").status_code == 201
    assert reported() == SEVEN


def test_the_user_whom_flask_login_logs_in_is_reported(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    add_login(app)
    visitor.post("/login/7")
    assert reported() == SEVEN


def test_the_view_counts_before_the_callable_and_that_before_the_login(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app()
    LoginManager(app).user_loader(User)

    @app.post("/join/<kind>")
    @referral_register(player=lambda response: "8")
    def join(kind: str) -> str:
        login_user(User("9"))
        if kind == "named":
            registered("7")
        return ""

    for kind in ("named", "found"):
        app.test_client().post(f"/join/{kind}?mmref={mmolove_sandbox.mint()}")
    assert mmolove_sandbox.reported == [("registered", "7"), ("registered", "8")]


def test_a_view_can_name_several(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> ResponseReturnValue:
        registered(7)
        registered(8, token=mmolove_sandbox.mint())
        return ("no", 409) if "fail" in request.args else "welcome"

    visitor.post("/join?fail=1")
    assert mmolove_sandbox.reported == []
    visitor.post("/join")
    assert mmolove_sandbox.reported == [*SEVEN, ("registered", "8")]


@pytest.mark.parametrize("bare", [True, False])
def test_brackets_without_anything_in_them_are_allowed(
    app: Flask, visitor: FlaskClient, reported: Reported, bare: bool
) -> None:
    def join() -> str:
        registered(7)
        return ""

    decorated = referral_register(join) if bare else referral_register()(join)
    app.add_url_rule("/join", view_func=decorated, methods=["POST"])
    visitor.post("/join")
    assert reported() == SEVEN


@pytest.mark.parametrize(
    "rule", [lambda player: player.account, lambda player: f"p-{player}"]
)
@pytest.mark.parametrize("decorated", [True, False])
def test_the_sites_identity_rule_is_asked_once_and_holds(
    make_app: MakeApp,
    mmolove_sandbox: SiteSandbox,
    token: str,
    rule: t.Callable[[t.Any], str],
    decorated: bool,
) -> None:
    mmolove = MMOLove()
    mmolove.identity(rule)
    app = make_app(mmolove)
    player = Account()

    def join() -> str:
        registered(player)
        return ""

    view = referral_register(join) if decorated else join
    app.add_url_rule("/join", "join", view, methods=["POST"])
    app.test_client().post(f"/join?mmref={token}")
    assert mmolove_sandbox.reported == [("registered", rule(player))]


def test_an_id_that_only_comes_with_the_commit_at_the_end_is_in_time(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        player = SimpleNamespace(id=None)
        registered(player)
        player.id = 7
        return ""

    visitor.post("/join")
    assert reported() == SEVEN


def test_an_object_that_is_gone_after_the_view_was_read_in_time(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        player = SimpleNamespace(id=7)
        registered(player)
        del player.id  # as an object whose database session was closed
        return ""

    visitor.post("/join")
    assert reported() == SEVEN


# -- every kind of view ----------------------------------------------------------------


class Method(MethodView):
    decorators: t.ClassVar[list[t.Callable[..., t.Any]]] = [referral_register]
    init_every_request = False

    def post(self) -> ResponseReturnValue:
        registered(7)
        return "welcome"


class AsyncMethod(MethodView):
    decorators: t.ClassVar[list[t.Callable[..., t.Any]]] = [referral_register()]

    async def post(self) -> ResponseReturnValue:
        registered(7)
        return "welcome"


class Plain(View):
    methods: t.ClassVar[t.Collection[str] | None] = ["POST"]
    decorators: t.ClassVar[list[t.Callable[..., t.Any]]] = [referral_register]

    def dispatch_request(self) -> ResponseReturnValue:
        registered(7)
        return "welcome"


VIEWS: dict[str, t.Callable[..., t.Any]] = {
    "sync": referral_register(sync_view),
    "async": referral_register(async_view),
    "a method": Method.as_view("join"),
    "an async method": AsyncMethod.as_view("join"),
    "a class": Plain.as_view("join"),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("blueprint", [False, True])
def test_every_kind_of_view_can_be_decorated(
    app: Flask,
    visitor: FlaskClient,
    reported: Reported,
    view: t.Callable[..., t.Any],
    blueprint: bool,
) -> None:
    place = Blueprint("auth", __name__) if blueprint else app
    place.add_url_rule("/join", "join", view, methods=["POST"])
    if isinstance(place, Blueprint):
        app.register_blueprint(place)
    assert visitor.post("/join").text == "welcome"
    assert reported() == SEVEN


RETURNS: dict[str, View_] = {
    "a text": lambda: "welcome",
    "bytes": lambda: b"welcome",
    "a dict": lambda: {"hello": 7},
    "a list": lambda: [7],
    "a tuple": lambda: ("welcome", 201),
    "a tuple with headers": lambda: ("welcome", {"X-Hello": "7"}),
    "a full tuple": lambda: ("welcome", 201, [("X-Hello", "7")]),
    "a redirect": lambda: redirect("/"),
    "a response": lambda: make_response("welcome", 202),
    "JSON": lambda: jsonify(hello=7),
    "a generator": lambda: (word for word in ["wel", "come"]),
    "a WSGI app": lambda: Response("welcome"),
    "nothing": lambda: ("", 204),
}


@pytest.mark.parametrize("make", RETURNS.values(), ids=RETURNS)
def test_whatever_a_view_may_return_goes_out_as_it_is(
    app: Flask, visitor: FlaskClient, reported: Reported, make: View_
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> ResponseReturnValue:
        registered(7)
        return make()

    @app.post("/bare")
    def bare() -> ResponseReturnValue:
        return make()

    ours, theirs = visitor.post("/join"), visitor.post("/bare")
    assert (ours.status, ours.data) == (theirs.status, theirs.data)
    assert ours.mimetype == theirs.mimetype
    assert ours.headers.get("X-Hello") == theirs.headers.get("X-Hello")
    assert reported() == SEVEN


def test_arguments_reach_the_view(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    @app.post("/join/<realm>/<int:number>")
    @referral_register
    def join(realm: str, number: int) -> str:
        registered(number)
        return realm

    assert visitor.post("/join/north/7").text == "north"
    assert reported() == SEVEN


def test_a_view_that_clears_the_session_loses_no_referral(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    visitor.delete_cookie(COOKIE.name)

    @app.post("/join")
    @referral_register
    def join() -> str:
        session.clear()
        registered(7)
        return ""

    visitor.post("/join")
    assert reported() == SEVEN
