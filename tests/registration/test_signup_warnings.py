"""What is said of a view that names nobody."""

from __future__ import annotations

import gc
import logging
import typing as t

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from flask_mmolove import MMOLove
from flask_mmolove import referral_register
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

View_ = t.Callable[[], ResponseReturnValue]


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
