"""A signup: who is reported, when, and what never happens to it because of us."""

from __future__ import annotations

import gc
import logging
import time
import typing as t
from types import SimpleNamespace

import pytest
from flask import abort
from flask import Blueprint
from flask import Flask
from flask import jsonify
from flask import make_response
from flask import redirect
from flask import request
from flask import Response
from flask import session
from flask.sessions import SecureCookieSession
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask.views import MethodView
from flask.views import View
from flask_login import current_user
from flask_login import login_user
from flask_login import LoginManager
from flask_login import logout_user
from flask_login import UserMixin
from itsdangerous import URLSafeTimedSerializer
from werkzeug.routing import RequestRedirect

from flask_mmolove import current_mmref
from flask_mmolove import event_recorded
from flask_mmolove import IdentityError
from flask_mmolove import MMOLove
from flask_mmolove import OutboxError
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.capture.hook import COOKIE
from flask_mmolove.sandbox import Sandbox
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

#: The events that MMOLove has when the player 7 was reported and nobody else.
SEVEN = [("registered", "7")]

View_ = t.Callable[[], ResponseReturnValue]


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


class Account:
    """A player whose identity only the site's rule knows."""

    id = 1
    account = "7"

    def __str__(self) -> str:
        return "anna"


@pytest.fixture
def token(mmolove_sandbox: SiteSandbox) -> str:
    return mmolove_sandbox.mint()


@pytest.fixture
def visitor(client: FlaskClient, token: str) -> FlaskClient:
    """A browser that came by a share link, a while ago."""
    with client.session_transaction() as kept:
        kept["mmref"] = token
    salt = "flask-mmolove.token.demo-server"
    serializer = URLSafeTimedSerializer("not a secret", salt=salt)
    client.set_cookie(COOKIE, str(serializer.dumps(token)))
    return client


@pytest.fixture
def reported(mmolove_sandbox: SiteSandbox) -> t.Callable[[], list[tuple[str, str]]]:
    return lambda: t.cast("list[tuple[str, str]]", mmolove_sandbox.reported)


Reported = t.Callable[[], list[tuple[str, str]]]


def add_login(app: Flask) -> None:
    manager = LoginManager(app)
    manager.user_loader(User)

    @app.post("/login/<id>")
    @referral_register
    def log_in(id: str) -> ResponseReturnValue:
        login_user(User(id))
        return redirect("/")


def token_of(app: Flask, client: FlaskClient) -> str | None:
    with client:
        client.get("/any")
        return current_mmref()


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


def sync_view() -> ResponseReturnValue:
    registered(7)
    return "welcome"


async def async_view() -> ResponseReturnValue:
    registered(7)
    return "welcome"


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
    visitor.delete_cookie(COOKIE)

    @app.post("/join")
    @referral_register
    def join() -> str:
        session.clear()
        registered(7)
        return ""

    visitor.post("/join")
    assert reported() == SEVEN


# -- who is not reported ---------------------------------------------------------------


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


class Trouble(Exception):
    pass


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


# -- registered() elsewhere ------------------------------------------------------------


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


# -- the token is used up --------------------------------------------------------------


def test_after_the_signup_the_session_and_the_cookies_forget_the_token(
    app: Flask, visitor: FlaskClient, token: str, reported: Reported
) -> None:
    add_login(app)
    visitor.set_cookie("mmref", token)
    response = visitor.post("/login/7")
    gone = [h for h in response.headers.getlist("Set-Cookie") if "Max-Age=0" in h]
    assert {header.partition("=")[0] for header in gone} == {COOKIE, "mmref"}
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


# -- the warning -----------------------------------------------------------------------


def test_a_view_that_names_nobody_is_warned_of_once_with_two_ways(
    app: Flask, visitor: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/join", endpoint="join_of_the_warning")
    @referral_register
    def join() -> str:
        return "welcome"

    for _ in range(3):
        visitor.post("/join")
    [record] = caplog.records
    assert (record.name, record.levelno) == ("flask_mmolove", logging.WARNING)
    message = record.getMessage()
    assert "'join_of_the_warning'" in message
    assert "registered(player)" in message
    assert "@referral_register(player=" in message
    assert "Flask-Login's user, and this site has none" in message


def test_each_view_and_each_app_has_a_warning_of_its_own(
    make_app: MakeApp, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    sites = [make_app(), make_app()]
    for app in sites:
        for name in ("one", "two"):
            view = referral_register(lambda: "")
            app.add_url_rule(f"/{name}", f"own_{name}", view, methods=["POST"])
    for app in sites * 2:
        client = app.test_client()
        client.post(f"/one?mmref={token}")
        client.post("/two")
    assert len(caplog.records) == 4


@pytest.mark.slow
def test_each_of_many_short_lived_apps_is_warned_of(
    mmolove_sandbox: SiteSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        app = Flask(__name__)
        app.config.update(mmolove_sandbox.config, SECRET_KEY="not a secret")
        MMOLove(app)
        view = referral_register(lambda: "")
        app.add_url_rule("/join", "of_a_short_life", view, methods=["POST"])
        app.test_client().post("/join?mmref=tok")
        app.extensions["mmolove"].outbox.close()
        del app
        gc.collect()
    assert len(caplog.records) == 10


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("POST", 400), ("POST", 500)]
)
def test_nothing_is_warned_of_where_no_signup_can_have_been(
    app: Flask,
    visitor: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    method: str,
    status: int,
) -> None:
    @app.route("/join", methods=["GET", "POST"], endpoint=f"no_{method}_{status}")
    @referral_register
    def join() -> ResponseReturnValue:
        return "", status

    visitor.open("/join", method=method)
    assert caplog.records == []


def test_nothing_is_warned_of_without_a_token(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/join", endpoint="join_without_a_token")
    @referral_register
    def join() -> str:
        return ""

    client.post("/join")
    assert caplog.records == []


# -- nothing of ours breaks a signup ---------------------------------------------------


def test_a_player_without_an_identity_is_logged_with_the_cure(
    app: Flask,
    visitor: FlaskClient,
    mmolove_sandbox: SiteSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(SimpleNamespace(name="anna"))
        return "welcome"

    assert visitor.post("/join").text == "welcome"
    assert mmolove_sandbox.sandbox.arrivals == []
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "@mmolove.identity" in record.getMessage()


def test_a_failing_callable_breaks_nothing(
    app: Flask, visitor: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    def find(response: Response) -> t.NoReturn:
        raise Trouble("no")

    @app.post("/join")
    @referral_register(player=find)
    def join() -> str:
        return "welcome"

    assert visitor.post("/join").text == "welcome"
    assert "Trouble" in caplog.text


def test_a_failing_identity_rule_breaks_nothing(
    make_app: MakeApp, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    mmolove = MMOLove()

    @mmolove.identity
    def identity(player: object) -> t.NoReturn:
        raise Trouble("no")

    app = make_app(mmolove)

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        return "welcome"

    assert app.test_client().post(f"/join?mmref={token}").text == "welcome"
    assert "Trouble" in caplog.text


@pytest.mark.parametrize("decorated", [True, False])
def test_an_identity_that_is_no_text_breaks_nothing(
    app: Flask,
    visitor: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    decorated: bool,
) -> None:
    def join() -> str:
        registered("\ud800")
        return "welcome"

    view = referral_register(join) if decorated else join
    app.add_url_rule("/join", "join", view, methods=["POST"])
    assert visitor.post("/join").text == "welcome"
    assert caplog.records


@pytest.mark.parametrize("decorated", [True, False])
def test_an_outbox_that_fails_breaks_no_signup_and_loses_no_time(
    make_app: MakeApp,
    tmp_path: t.Any,
    token: str,
    caplog: pytest.LogCaptureFixture,
    decorated: bool,
) -> None:
    (tmp_path / "file").write_text("not a folder")
    app = make_app(OUTBOX=tmp_path / "file" / "mmolove.db")

    def join() -> str:
        registered(7)
        return "welcome"

    view = referral_register(join) if decorated else join
    app.add_url_rule("/join", "join", view, methods=["POST"])
    started = time.monotonic()
    response = app.test_client().post(f"/join?mmref={token}")
    assert (response.status_code, response.text) == (200, "welcome")
    assert time.monotonic() - started < 5
    assert any(r.levelno >= logging.ERROR for r in caplog.records)


def test_a_listener_that_fails_breaks_no_signup(
    app: Flask, visitor: FlaskClient, reported: Reported
) -> None:
    def listen(sender: object, **extra: t.Any) -> t.NoReturn:
        raise Trouble("no")

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        return "welcome"

    with event_recorded.connected_to(listen):
        assert visitor.post("/join").text == "welcome"
    assert reported() == SEVEN


def test_an_unreachable_mmolove_holds_up_no_signup_and_the_event_waits(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, token: str
) -> None:
    sandbox: Sandbox = mmolove_sandbox.sandbox
    sandbox.stop()
    app = make_app(DELIVERY="thread")

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        return "welcome"

    started = time.monotonic()
    assert app.test_client().post(f"/join?mmref={token}").text == "welcome"
    assert time.monotonic() - started < 2
    entries = app.extensions["mmolove"].outbox.of("7", False)
    assert entries["registered"].state == "pending"


def test_a_site_without_a_secret_key_reports_its_signups_all_the_same(
    app: Flask, client: FlaskClient, token: str, reported: Reported
) -> None:
    app.config["SECRET_KEY"] = None

    @app.post("/join")
    @referral_register
    def join() -> str:
        registered(7)
        return "welcome"

    assert client.post(f"/join?mmref={token}").text == "welcome"
    assert reported() == SEVEN


def test_a_signup_that_was_reported_is_not_told_as_one_that_was_not(
    app: Flask, client: FlaskClient, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["SECRET_KEY"] = None
    app.add_url_rule("/join", "join", referral_register(sync_view), methods=["POST"])
    client.post(f"/join?mmref={token}")
    assert "could not be reported" not in caplog.text


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_where_it_is_switched_off_the_decorator_does_nothing(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, token: str, kind: str
) -> None:
    app = make_app(ENABLED=False)
    view = referral_register(sync_view if kind == "sync" else async_view)
    app.add_url_rule("/join", "join", view, methods=["POST"])
    response = app.test_client().post(f"/join?mmref={token}")
    assert response.text == "welcome"
    assert "Set-Cookie" not in response.headers
    with app.app_context():
        registered(7, token=token)
        registered(SimpleNamespace(id=None), token=token)
        assert qualify(7) is None
    assert mmolove_sandbox.sandbox.arrivals == []


def test_a_decorated_view_of_an_app_without_mmolove_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Flask(__name__)
    app.add_url_rule("/join", "join", referral_register(sync_view), methods=["POST"])
    assert app.test_client().post("/join").text == "welcome"
    assert "init_app" in caplog.text


def test_outside_a_request_an_outbox_that_fails_is_an_error(
    make_app: MakeApp, tmp_path: t.Any, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    app = make_app(OUTBOX=tmp_path / "file" / "mmolove.db")
    state = app.extensions["mmolove"]

    def closed(*args: object) -> t.NoReturn:
        raise OutboxError("no disk takes it")

    if hasattr(state, "spool"):
        monkeypatch.setattr(type(state.spool), "write", closed)
    with app.app_context(), pytest.raises(OutboxError):
        registered(7, token=token)
