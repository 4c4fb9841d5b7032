"""Nothing of ours breaks a signup, holds it up or loses it."""

from __future__ import annotations

import logging
import time
import typing as t
from types import SimpleNamespace

import pytest
from flask import Flask
from flask import Response
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from flask_mmolove import event_recorded
from flask_mmolove import MMOLove
from flask_mmolove import OutboxError
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.sandbox import Sandbox
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

from .signups import async_view
from .signups import Reported
from .signups import SEVEN
from .signups import sync_view
from .signups import Trouble

View_ = t.Callable[[], ResponseReturnValue]


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
