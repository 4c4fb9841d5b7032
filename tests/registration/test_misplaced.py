"""A view whose decorators are in the wrong order."""

from __future__ import annotations

import gc
import typing as t
from functools import partial
from functools import wraps

import pytest
from flask import Blueprint
from flask import Flask
from flask.typing import ResponseReturnValue
from flask.views import MethodView
from flask.views import View

from flask_mmolove import MMOLove
from flask_mmolove import new_in_json
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

SEVEN = [("registered", "7")]
MADE = ({"id": 7}, 201)

View_ = t.Callable[..., t.Any]
Sign = t.Callable[..., None]

signs_up = referral_register(player=new_in_json("id"))


@pytest.fixture
def sign_up(mmolove_sandbox: SiteSandbox) -> Sign:
    """Have an invited visitor sign up."""

    def sign_up(app: Flask, path: str = "/join") -> None:
        response = app.test_client().post(f"{path}?mmref={mmolove_sandbox.mint()}")
        assert (response.status_code, response.json) == (201, {"id": 7})

    return sign_up


def join() -> View_:
    """A view that no other test knows."""

    def join() -> ResponseReturnValue:
        return MADE

    return join


def logged(view: View_) -> View_:
    """Another decorator, as it is usually written."""

    @wraps(view)
    def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        return view(*args, **kwargs)

    return wrapper


class Method(MethodView):
    def post(self) -> ResponseReturnValue:
        return MADE


class Plain(View):
    methods: t.ClassVar[t.Collection[str] | None] = ["POST"]

    def dispatch_request(self) -> ResponseReturnValue:
        return MADE


async def asynchronous() -> ResponseReturnValue:
    return MADE


class Callable:
    def __call__(self) -> ResponseReturnValue:
        return MADE


VIEWS: dict[str, t.Callable[[], View_]] = {
    "a function": join,
    "asynchronous": lambda: asynchronous,
    "a method": lambda: Method.as_view("join"),
    "a class": lambda: Plain.as_view("join"),
    "an object": Callable,
    "a partial": lambda: partial(join()),
    "decorated by others": lambda: logged(join()),
}


@pytest.mark.parametrize("make_view", VIEWS.values(), ids=VIEWS)
def test_a_view_that_was_registered_first_reports_all_the_same(
    app: Flask,
    mmolove_sandbox: SiteSandbox,
    sign_up: Sign,
    make_view: t.Callable[[], View_],
) -> None:
    view = make_view()
    app.add_url_rule("/join", "join", view, methods=["POST"])
    signs_up(view)
    sign_up(app)
    sign_up(app)
    assert mmolove_sandbox.reported == SEVEN


def test_the_decorators_of_a_site_in_the_wrong_order(
    app: Flask,
    mmolove_sandbox: SiteSandbox,
    sign_up: Sign,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @referral_register
    @app.post("/join")
    def join() -> ResponseReturnValue:
        registered(7)
        return MADE

    @referral_register
    @logged
    @app.post("/other")
    def other() -> ResponseReturnValue:
        return MADE

    for _ in range(2):
        sign_up(app)
    assert mmolove_sandbox.reported == SEVEN
    for endpoint in ("join", "other"):
        words = f"The view {endpoint!r} in {__name__} was registered before"
        assert caplog.text.count(words) == 1


def test_what_wraps_the_registered_view_stays_and_what_does_not_stays_out(
    app: Flask, sign_up: Sign, mmolove_sandbox: SiteSandbox
) -> None:
    calls: list[str] = []

    def noting(name: str) -> t.Callable[[View_], View_]:
        def decorate(view: View_) -> View_:
            @wraps(view)
            def wrapper() -> t.Any:
                calls.append(name)
                return view()

            return wrapper

        return decorate

    view = join()
    # As an extension does that registers a view of its own around the site's.
    app.add_url_rule("/join", "join", noting("inside")(view), methods=["POST"])
    signs_up(noting("outside")(view))
    sign_up(app)
    assert calls == ["inside"]
    assert mmolove_sandbox.reported == SEVEN


def test_an_app_factory_keeps_only_the_route(
    make_app: MakeApp, sign_up: Sign, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app()
    app.add_url_rule("/join", "join", join(), methods=["POST"])
    signs_up(app.view_functions["join"])  # and nobody keeps what it gives
    gc.collect()
    sign_up(app)
    assert mmolove_sandbox.reported == SEVEN


def test_a_blueprint_is_put_right_wherever_it_is_registered(
    make_app: MakeApp, sign_up: Sign, mmolove_sandbox: SiteSandbox
) -> None:
    auth = Blueprint("auth", __name__, url_prefix="/auth")
    game = Blueprint("game", __name__, url_prefix="/game")
    view = join()
    auth.add_url_rule("/join", "join", view, methods=["POST"])
    signs_up(view)
    game.register_blueprint(auth)
    app = make_app()
    app.register_blueprint(game)  # after MMOLove
    sign_up(app, "/game/auth/join")
    assert mmolove_sandbox.reported == SEVEN


def test_a_token_that_came_earlier_is_found_too(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    view = join()
    app.add_url_rule("/join", "join", view, methods=["POST"])
    signs_up(view)
    client = app.test_client()
    client.get(f"/?mmref={mmolove_sandbox.mint()}")
    client.post("/join")
    assert mmolove_sandbox.reported == SEVEN


class TestOnPurpose:
    """A view that is meant to be as it was registered."""

    def test_the_decorated_one_has_a_rule_of_its_own(
        self, app: Flask, sign_up: Sign, mmolove_sandbox: SiteSandbox
    ) -> None:
        view = join()
        app.add_url_rule("/by-hand", "by_hand", view, methods=["POST"])
        app.add_url_rule("/join", "join", logged(signs_up(view)), methods=["POST"])
        sign_up(app, "/by-hand")
        assert app.view_functions["by_hand"] is view
        assert not mmolove_sandbox.reported
        sign_up(app)
        assert mmolove_sandbox.reported == SEVEN

    def test_another_app_uses_the_decorated_one(
        self, make_app: MakeApp, sign_up: Sign, mmolove_sandbox: SiteSandbox
    ) -> None:
        site, admin = make_app(), make_app()
        view = join()
        site.add_url_rule("/join", "join", signs_up(view), methods=["POST"])
        admin.add_url_rule("/join", "join", view, methods=["POST"])
        sign_up(admin)
        assert admin.view_functions["join"] is view
        assert not mmolove_sandbox.reported

    def test_another_app_attached_it(
        self, make_app: MakeApp, sign_up: Sign, mmolove_sandbox: SiteSandbox
    ) -> None:
        site, admin = make_app(), make_app()
        view = join()
        for app in (site, admin):
            app.add_url_rule("/join", "join", view, methods=["POST"])
        MMOLove().attach(site, "join", player=new_in_json("id"))
        del site
        sign_up(admin)
        assert admin.view_functions["join"] is view

    def test_a_view_that_is_attached_is_decorated_once(
        self, app: Flask, sign_up: Sign, mmolove_sandbox: SiteSandbox
    ) -> None:
        view = join()
        app.add_url_rule("/join", "join", view, methods=["POST"])
        signs_up(view)
        MMOLove().attach(app, "join", player=new_in_json("id"))
        attached = app.view_functions["join"]
        sign_up(app)
        assert app.view_functions["join"] is attached
        assert mmolove_sandbox.reported == SEVEN

    def test_a_view_that_calls_a_decorated_function(
        self, app: Flask, sign_up: Sign, mmolove_sandbox: SiteSandbox
    ) -> None:
        make = signs_up(join())

        @app.post("/join")
        def outer() -> ResponseReturnValue:
            return t.cast(ResponseReturnValue, make())

        sign_up(app)
        assert app.view_functions["outer"] is outer
        assert mmolove_sandbox.reported == SEVEN

    def test_a_method_that_is_decorated_in_its_class(
        self, app: Flask, sign_up: Sign, mmolove_sandbox: SiteSandbox
    ) -> None:
        class Decorated(MethodView):
            post = signs_up(lambda self: MADE)

        view = Decorated.as_view("join")
        app.add_url_rule("/join", view_func=view)
        sign_up(app)
        assert app.view_functions["join"] is view
        assert mmolove_sandbox.reported == SEVEN


def test_a_view_that_wraps_itself_breaks_nothing(app: Flask, sign_up: Sign) -> None:
    view = t.cast(t.Any, join())
    view.__wrapped__ = view
    app.add_url_rule("/join", "join", view, methods=["POST"])
    sign_up(app)


def test_where_it_is_switched_off_views_stay_as_they_are(
    make_app: MakeApp, sign_up: Sign
) -> None:
    app = make_app(ENABLED=False)
    view = join()
    app.add_url_rule("/join", "join", view, methods=["POST"])
    signs_up(view)
    sign_up(app)
    assert app.view_functions["join"] is view
