"""A view that somebody else wrote is decorated from outside."""

from __future__ import annotations

import typing as t

import pytest
from blinker import Signal
from flask import Blueprint
from flask import current_app
from flask import Flask
from flask import redirect
from flask import request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask.views import MethodView
from flask.views import View

from flask_mmolove import ConfigError
from flask_mmolove import MMOLove
from flask_mmolove import new_by_signal
from flask_mmolove import new_in_json
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

SEVEN = [("registered", "7")]
MADE = ({"id": 7}, 201)


def sync_view() -> ResponseReturnValue:
    return MADE


async def async_view() -> ResponseReturnValue:
    return MADE


class Method(MethodView):
    def get(self) -> ResponseReturnValue:
        return "the form"

    def post(self) -> ResponseReturnValue:
        return MADE


class AsyncMethod(MethodView):
    async def post(self) -> ResponseReturnValue:
        return MADE


class Plain(View):
    methods: t.ClassVar[t.Collection[str] | None] = ["POST"]

    def dispatch_request(self) -> ResponseReturnValue:
        return MADE


class Callable:
    """A view without a name of its own."""

    def __call__(self) -> ResponseReturnValue:
        return MADE


VIEWS: dict[str, t.Callable[..., t.Any]] = {
    "sync": sync_view,
    "async": async_view,
    "a method": Method.as_view("join"),
    "an async method": AsyncMethod.as_view("join"),
    "a class": Plain.as_view("join"),
    "an object": Callable(),
}


def register(app: Flask, view: t.Callable[..., t.Any]) -> None:
    auth = Blueprint("auth", __name__, url_prefix="/auth")
    auth.add_url_rule("/join", "join", view, methods=["POST"])
    app.register_blueprint(auth)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("late", [False, True])
def test_any_view_can_be_decorated_before_the_first_request_and_after_it(
    app: Flask,
    mmolove_sandbox: SiteSandbox,
    view: t.Callable[..., t.Any],
    late: bool,
) -> None:
    register(app, view)
    client = app.test_client()
    if late:
        assert client.post("/auth/join").status_code == 201
    MMOLove().attach(app, "auth.join", player=new_in_json("id"))
    response = client.post(f"/auth/join?mmref={mmolove_sandbox.mint()}")
    assert (response.status_code, response.json) == (201, {"id": 7})
    assert mmolove_sandbox.reported == SEVEN


def test_the_views_attributes_are_there_for_who_reads_them(app: Flask) -> None:
    view = t.cast(t.Any, Method.as_view("join"))
    view.exempt = True
    register(app, view)
    MMOLove().attach(app, "auth.join")
    seen: list[t.Any] = []

    @app.before_request
    def look() -> None:
        endpoint = request.endpoint
        assert endpoint is not None
        found = t.cast(t.Any, current_app.view_functions[endpoint])
        seen.extend([found.exempt, found.view_class, found.__name__, found.__module__])

    app.test_client().post("/auth/join")
    assert seen == [True, Method, "join", __name__]


def test_an_endpoint_that_is_not_there_is_an_error_that_names_the_nearest(
    app: Flask,
) -> None:
    register(app, sync_view)
    with pytest.raises(ConfigError, match=r"Did you mean 'auth.join'\?"):
        MMOLove().attach(app, "auth.joined")
    with pytest.raises(ConfigError, match="after that was registered"):
        MMOLove().attach(app, "security.register")


@pytest.mark.parametrize("names", [[], ["auth.join", "auth.joined"]])
def test_where_one_of_several_is_not_there_none_is_changed(
    app: Flask, names: list[str]
) -> None:
    register(app, sync_view)
    with pytest.raises(ConfigError, match="flask routes|Did you mean 'auth.join'"):
        MMOLove().attach(app, *names)
    assert app.view_functions["auth.join"] is sync_view


def test_several_views_are_attached_at_once_and_others_are_not(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    for id in (7, 8, 9):
        app.add_url_rule(f"/{id}", str(id), lambda id=id: ({"id": id}, 201))
    MMOLove().attach(app, "7", "9", player=new_in_json("id"))
    for id in (7, 8, 9):
        app.test_client().get(f"/{id}?mmref={mmolove_sandbox.mint(str(id))}")
    assert mmolove_sandbox.reported == [*SEVEN, ("registered", "9")]


# -- a signal of somebody else's -------------------------------------------------------


@pytest.fixture
def signal_site(app: Flask) -> Flask:
    """Both pages make an account, and say so by a signal."""
    made = Signal()

    def make(id: int) -> ResponseReturnValue:
        made.send(app, user=id, form={})
        if request.args.get("fails"):
            raise OSError("the disk is full")
        return redirect("/")

    app.add_url_rule("/register/<int:id>", "join", make, methods=["POST"])
    app.add_url_rule("/admin/<int:id>", "admin", make, methods=["POST"])
    app.extensions["made"] = made
    return app


def test_a_signal_counts_at_the_view_that_it_is_attached_to_and_nowhere_else(
    signal_site: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    made = signal_site.extensions["made"]
    MMOLove().attach(signal_site, "join", player=new_by_signal(made))
    client = signal_site.test_client()
    assert client.post(f"/admin/5?mmref={mmolove_sandbox.mint()}").status_code == 302
    made.send(None, user=6)  # a script's, outside of any request
    assert mmolove_sandbox.sandbox.arrivals == []
    assert client.post("/register/7").status_code == 302
    client.post("/admin/8")
    assert mmolove_sandbox.reported == SEVEN


def test_a_signal_of_a_view_that_fails_reports_nobody(
    signal_site: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    made = signal_site.extensions["made"]
    MMOLove().attach(signal_site, "join", player=new_by_signal(made))
    client = signal_site.test_client()
    client.get(f"/?mmref={mmolove_sandbox.mint()}")
    assert client.post("/register/7?fails=1").status_code == 500
    assert mmolove_sandbox.sandbox.arrivals == []
    client.post("/register/7")
    assert mmolove_sandbox.reported == SEVEN


def test_a_signal_without_that_argument_breaks_nothing_and_is_told(
    signal_site: Flask, mmolove_sandbox: SiteSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    made = signal_site.extensions["made"]
    MMOLove().attach(signal_site, "join", player=new_by_signal(made, "player"))
    client = signal_site.test_client()
    path = f"/register/7?mmref={mmolove_sandbox.mint()}"
    assert client.post(path).status_code == 302
    assert mmolove_sandbox.reported == []
    assert "no argument 'player'; it has ['form', 'user']" in caplog.text


def test_the_views_of_other_apps_are_left_alone(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    sites = [make_app(mmolove), make_app(mmolove)]
    for app in sites:
        register(app, sync_view)
    mmolove.attach(sites[0], "auth.join", player=new_in_json("id"))
    for app in reversed(sites):
        app.test_client().post(f"/auth/join?mmref={mmolove_sandbox.mint()}")
        assert mmolove_sandbox.reported == (SEVEN if app is sites[0] else [])


def test_an_app_factory_attaches_each_time_it_makes_an_app(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()

    def create() -> Flask:
        app = make_app(mmolove)
        register(app, sync_view)
        mmolove.attach(app, "auth.join", player=new_in_json("id"))
        return app

    for _ in range(2):
        app = create()
        app.test_client().post(f"/auth/join?mmref={mmolove_sandbox.mint()}")
    # Both keep their events in one outbox, where a player signs up once.
    assert mmolove_sandbox.reported == SEVEN


def test_a_view_that_is_attached_twice_reports_once(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    register(app, sync_view)
    for _ in range(2):
        MMOLove().attach(app, "auth.join", player=new_in_json("id"))
    client.post(f"/auth/join?mmref={mmolove_sandbox.mint()}")
    assert len(mmolove_sandbox.sandbox.arrivals) == 1


def test_a_signal_that_is_not_sent_is_warned_of(
    app: Flask, mmolove_sandbox: SiteSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    register(app, sync_view)
    by_signal = new_by_signal(Signal())
    MMOLove().attach(app, "auth.join", player=by_signal)
    app.test_client().post(f"/auth/join?mmref={mmolove_sandbox.mint()}")
    assert mmolove_sandbox.reported == []
    assert "the signal was not sent while the view ran" in caplog.text
