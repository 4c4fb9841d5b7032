"""The endpoint for the game server."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_wtf.csrf import CSRFProtect

from flask_mmolove import ConfigError
from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.conftest import Hold
from tests.conftest import MakeApp

pytestmark = pytest.mark.usefixtures("impatient")

SECRET = "the game server's own secret, 40 letters"
BEARER = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    mmolove = MMOLove()
    app = make_app(mmolove, DELIVERY="manual")
    app.register_blueprint(mmolove.game(secret=SECRET), url_prefix="/game")
    return app


@pytest.fixture
def state(app: Flask) -> State:
    state: State = app.extensions["mmolove"]
    return state


def post(client: FlaskClient, body: t.Any, **options: t.Any) -> t.Any:
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return client.post("/game/qualified", data=data, **{"headers": BEARER, **options})


def test_each_player_gets_a_word_once_all_are_stored(
    app: Flask, client: FlaskClient, state: State, mmolove_sandbox: SiteSandbox
) -> None:
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
    answer = post(client, {"players": ["7", 8, "7"]})
    assert answer.status_code == 200
    assert answer.json == {"players": {"7": "recorded", "8": "not referred"}}
    assert post(client, {"players": [7]}).json == {"players": {"7": "known"}}
    with app.app_context():
        state.make_delivery().drain()
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        b"\xff",
        "[" * 10_000,
        "[]",
        {},
        {"players": "7"},
        {"players": [True]},
        {"players": [None]},
        {"players": [1.5]},
        {"players": [["7"]]},
        {"players": ["7", ""]},
        {"players": ["7", " 7"]},
        {"players": ["7", "x" * 256]},
        {"players": ["7"] * 501},
    ],
    ids=repr,
)
def test_a_body_that_is_wrong_stores_nothing(
    app: Flask,
    client: FlaskClient,
    state: State,
    mmolove_sandbox: SiteSandbox,
    body: t.Any,
) -> None:
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        answer = post(client, body)
        assert answer.status_code == 400 and answer.json["error"]
        assert set(state.recorder.entries("7")) == {"registered"}


def test_a_body_that_is_too_long_is_not_read_to_its_end(client: FlaskClient) -> None:
    assert post(client, {"players": ["x" * 65536]}).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": "Bearer \xfc\xe4"},
    ],
    ids=repr,
)
def test_without_the_secret_nothing_is_stored(
    app: Flask,
    client: FlaskClient,
    state: State,
    mmolove_sandbox: SiteSandbox,
    headers: dict[str, str],
) -> None:
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        answer = post(client, {"players": ["7"]}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert set(state.recorder.entries("7")) == {"registered"}


def test_who_guesses_the_secret_does_not_fill_the_log(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        post(client, {"players": []}, headers={"Authorization": "Bearer a guess"})
    assert caplog.text.count("had no valid secret") == 1
    assert SECRET not in caplog.text and "a guess" not in caplog.text


def test_it_is_posted_to_and_nothing_else(client: FlaskClient) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = client.open("/game/qualified", method=method, headers=BEARER)
        assert answer.status_code == 405


def test_what_cannot_be_stored_is_to_be_sent_again(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
    with Hold(app):
        answer = post(client, {"players": ["7"]})
    assert answer.status_code == 503 and answer.headers["Retry-After"]
    assert post(client, {"players": ["7"]}).json == {"players": {"7": "recorded"}}


@pytest.mark.parametrize("first", ["csrf", "game"])
def test_the_site_s_csrf_protection_leaves_it_alone(
    make_app: MakeApp, first: str
) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove, DELIVERY="manual")
    if first == "csrf":
        CSRFProtect(app)
    app.register_blueprint(mmolove.game(secret=SECRET), url_prefix="/game")
    if first == "game":
        CSRFProtect(app)
    app.add_url_rule("/form", "form", lambda: "", methods=["POST"])
    client = app.test_client()
    assert client.post("/form").status_code == 400
    assert post(client, {"players": []}).status_code == 200


@pytest.mark.parametrize("secret", ["", "short", "x" * 31, None, " " * 40, "ü" * 40])
def test_a_secret_that_is_too_short_is_refused_at_start(secret: t.Any) -> None:
    with pytest.raises(ConfigError, match="at least 32 ASCII characters"):
        MMOLove().game(secret=secret)


def test_mmolove_s_secret_is_refused_at_start(make_app: MakeApp) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove, REFERRAL_SECRET="s" * 32)
    with pytest.raises(ConfigError, match="must not be MMOLOVE_REFERRAL_SECRET"):
        app.register_blueprint(mmolove.game(secret="s" * 32), url_prefix="/game")


def test_mmolove_s_secret_is_refused_if_it_is_known_only_later(tmp_path: Path) -> None:
    mmolove, app = MMOLove(), Flask(__name__, instance_path=str(tmp_path))
    app.register_blueprint(mmolove.game(secret="s" * 32), url_prefix="/game")
    app.config.update(
        TESTING=True,
        SECRET_KEY="k",
        MMOLOVE_SERVER_ID="srv",
        MMOLOVE_REFERRAL_SECRET="s" * 32,
    )
    mmolove.init_app(app)
    headers = {"Authorization": f"Bearer {'s' * 32}"}
    with pytest.raises(ConfigError, match="must not be MMOLOVE_REFERRAL_SECRET"):
        app.test_client().post("/game/qualified", json={"players": []}, headers=headers)


def test_where_mmolove_is_off_the_game_keeps_what_it_has(make_app: MakeApp) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove, ENABLED=False)
    app.register_blueprint(mmolove.game(secret=SECRET), url_prefix="/game")
    assert post(app.test_client(), {"players": ["7"]}).status_code == 503
