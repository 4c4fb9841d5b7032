"""The example site: what a player meets, and that a friend is worth one cape."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
import typing as t
from pathlib import Path
from urllib.parse import parse_qs
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask
from flask.cli import ScriptInfo
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from example_app import create_app
from example_app import keep_settings
from example_app.__main__ import parse_options
from example_app.game import Game
from example_app.models import db
from example_app.models import find_player
from example_app.models import Player
from example_app.referrals import grant
from example_app.referrals import share_link
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.store import Outbox
from flask_mmolove.rewards.milestone import MilestoneAsker
from flask_mmolove.testing import SiteSandbox
from tests.conftest import find_url

PASSWORD = "will-o-the-wisp"
CAPE = "Founder&#39;s cape"
#: By how much the site's clock is ahead when it asks: a round is always due.
_HOURS = itertools.count(1)
POSTS = ["/join", "/login", "/logout", "/character/delete"]


on_each_database = pytest.mark.parametrize(
    "app", ["sqlite", "postgresql"], indirect=True
)


@pytest.fixture
def app(
    request: pytest.FixtureRequest, tmp_path: Path, mmolove_sandbox: SiteSandbox
) -> t.Iterator[Flask]:
    url = find_url(getattr(request, "param", "sqlite"), request)
    app = create_app(
        {
            **mmolove_sandbox.config,
            "TESTING": True,
            "SQLALCHEMY_DATABASE_URI": url.render_as_string(hide_password=False),
            "SECRET_KEY": "for tests",
            "WTF_CSRF_ENABLED": False,
            "PASSWORD_HASH_METHOD": "pbkdf2:sha256:1",
        },
        instance_path=str(tmp_path),
    )
    game_of(app)
    yield app
    app.extensions["mmolove"].outbox.close()
    drop_connections(app)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def join(client: FlaskClient, name: str, password: str = PASSWORD) -> TestResponse:
    return client.post("/join", data={"name": name, "password": password})


def outbox_of(app: Flask) -> Outbox:
    return t.cast(Outbox, app.extensions["mmolove"].outbox)


def game_of(app: Flask) -> Game:
    """The game that the site has, which here lives tick by tick."""
    return Game(Path(app.instance_path, "game.db"))


@contextlib.contextmanager
def away(app: Flask) -> t.Iterator[None]:
    """The game's database is not to be had."""
    path = Path(app.instance_path, "game.db")
    path.rename(path.with_name("away.db"))
    drop_connections(app)
    with app.app_context():
        yield
    drop_connections(app)
    path.with_name("away.db").replace(path)


def drop_connections(app: Flask) -> None:
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


def log_in_again(client: FlaskClient, name: str) -> str:
    """Log in, be let in by the game, and look at the character."""
    client.post("/logout")
    client.post("/login", data={"name": name, "password": PASSWORD})
    game_of(client.application).tick()
    return client.get("/character").text


def player_named(name: str) -> Player:
    player = find_player(name)
    assert player is not None
    return player


# -- the site --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/join", "/login", "/character", "/friends"])
def test_every_page_answers_a_player_and_lets_nothing_foreign_in(
    client: FlaskClient, path: str
) -> None:
    join(client, "Anna")
    response = client.get(path, follow_redirects=True)
    assert response.status_code == 200
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"
    assert "style=" not in response.text
    assert "<script>" not in response.text


@pytest.mark.parametrize("path", ["/character", "/friends"])
def test_a_login_leads_to_where_one_wanted_to_go(
    client: FlaskClient, path: str
) -> None:
    join(client, "Anna")
    client.post("/logout")
    to_login = client.get(path).location
    assert to_login == f"/login?next={path}"
    fields = {"name": "Anna", "password": PASSWORD}
    assert client.post(to_login, data=fields).location == path


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "x",
        "",
    ],
)
def test_a_login_leads_to_no_other_site(client: FlaskClient, elsewhere: str) -> None:
    join(client, "Anna")
    client.post("/logout")
    fields = {"name": "Anna", "password": PASSWORD}
    response = client.post("/login", query_string={"next": elsewhere}, data=fields)
    assert response.location == "/character"


def test_the_journey_is_told_only_beside_a_sandbox(
    app: Flask, client: FlaskClient
) -> None:
    assert "See a referral happen" not in client.get("/").text
    app.config["SANDBOX_URL"] = "http://127.0.0.1:5001"
    assert "See a referral happen" in client.get("/").text


def test_joining_logs_in(client: FlaskClient) -> None:
    assert join(client, "Anna").location == "/character"
    assert "<h1>Anna</h1>" in client.get("/character").text


@pytest.mark.parametrize(
    ("name", "password", "error"),
    [
        ("", PASSWORD, "Your character needs a name."),
        ("An", PASSWORD, "A name has 3 to 20 characters."),
        ("Anna B", PASSWORD, "A name is made of the letters A-Z and digits."),
        ("Anna\n", PASSWORD, "A name is made of the letters A-Z and digits."),
        ("Anna", "short", "A password has at least 8 characters."),
    ],
)
def test_a_sign_up_that_cannot_be_says_why(
    client: FlaskClient, name: str, password: str, error: str
) -> None:
    response = join(client, name, password)
    assert response.status_code == 422
    assert error in response.text


@on_each_database
def test_a_name_is_given_once_whatever_its_case(app: Flask) -> None:
    join(app.test_client(), "Anna")
    response = join(app.test_client(), "ANNA")
    assert response.status_code == 422
    assert "ANNA is taken. Choose another name." in response.text


def test_logging_out_and_in_again(client: FlaskClient) -> None:
    join(client, "Anna")
    assert client.post("/logout").location == "/"
    assert client.get("/character").location == "/login?next=/character"
    response = client.post("/login", data={"name": "anna", "password": PASSWORD})
    assert response.location == "/character"


@pytest.mark.parametrize("name", ["Anna", "Nobody"])
def test_a_wrong_log_in_does_not_say_which_half_was_wrong(
    client: FlaskClient, name: str
) -> None:
    join(client, "Anna")
    client.post("/logout")
    response = client.post("/login", data={"name": name, "password": "wrong-one"})
    assert response.status_code == 422
    assert "This name and password do not belong together." in response.text


def test_a_character_gains_levels_while_its_player_is_away(
    app: Flask, client: FlaskClient
) -> None:
    join(client, "Anna")
    assert "The gatekeeper is opening." in client.get("/character").text
    live(app, 5)
    client.post("/logout")
    live(app, 3)
    assert "11 levels to the gate at level 20." in log_in_again(client, "Anna")
    live(app, 100)
    assert "You passed the gate" in client.get("/character").text


def test_a_player_who_logs_in_is_let_in_at_the_next_tick(
    app: Flask, client: FlaskClient
) -> None:
    join(client, "Anna")
    live(app, 1)
    assert "Your pack" in client.get("/character").text
    client.post("/login", data={"name": "Anna", "password": PASSWORD})
    page = client.get("/character").text
    assert "The gatekeeper is opening." in page
    assert "Your pack" not in page
    live(app, 1)
    assert "Your pack" in client.get("/character").text


def test_a_signup_needs_no_game(app: Flask, client: FlaskClient) -> None:
    with away(app):
        response = client.post(
            "/join", data={"name": "Anna", "password": PASSWORD}, follow_redirects=True
        )
    assert response.status_code == 503
    assert "The game is away. Try again in a minute." in response.text
    assert "The game is away. Log in again when it is back." in response.text
    log_in_again(client, "Anna")
    live(app, 7)
    assert "12 levels to the gate" in client.get("/character").text


@pytest.mark.parametrize("path", POSTS)
def test_a_form_without_its_csrf_token_does_nothing(
    app: Flask, client: FlaskClient, path: str
) -> None:
    join(client, "Anna")
    app.config["WTF_CSRF_ENABLED"] = True
    response = client.post(path, data={"name": "Berengar", "password": PASSWORD})
    assert response.status_code == 400
    assert "The CSRF token is missing." in response.text
    with app.app_context():
        assert player_named("Anna")


def test_whoever_joined_first_has_the_dashboard(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    assert client.get("/mmolove/").status_code == 404
    join(client, "Anna")
    assert client.get("/character").text.count('href="/mmolove/"') == 1
    assert ">Lanternmoor</a>" in client.get("/mmolove/").text
    friend = app.test_client()
    join(friend, "Berengar")
    assert 'href="/mmolove/"' not in friend.get("/character").text
    assert friend.get("/mmolove/").status_code == 404
    # Its forms pass the site's own CSRF check.
    app.config["WTF_CSRF_ENABLED"] = True
    with app.app_context():
        registered(2, token="junk")
        app.extensions["mmolove"].make_delivery().drain()
    page = client.get("/mmolove/retry").text
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page))
    assert fields.keys() == {"token", "csrf_token"}
    response = client.post("/mmolove/retry", data=fields, follow_redirects=True)
    assert "1 rejected event will be sent again." in response.text
    assert (
        client.post("/mmolove/retry", data={"token": fields["token"]}).status_code
        == 400
    )


def test_the_secret_key_is_made_once_and_kept(
    tmp_path: Path, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLASK_SECRET_KEY", raising=False)
    config = {**mmolove_sandbox.config, "SECRET_KEY": None}
    keys = set()
    for _ in range(2):
        app = create_app(config, instance_path=str(tmp_path))
        keys.add(app.config["SECRET_KEY"])
        drop_connections(app)
    assert keys == {(tmp_path / "secret_key").read_text()}


def test_both_commands_use_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["example_app"])
    assert str(parse_options().data) == Flask("example_app").instance_path


def test_the_command_line_looks_at_what_ran_last(
    tmp_path: Path, mmolove_sandbox: SiteSandbox
) -> None:
    keep_settings(tmp_path, mmolove_sandbox.sandbox.settings)
    app = create_app(instance_path=str(tmp_path))
    info = ScriptInfo(create_app=lambda: app)
    shown = app.test_cli_runner().invoke(command, ["status"], obj=info)
    assert shown.exit_code == 0, shown.output
    app.extensions["mmolove"].outbox.close()
    drop_connections(app)


# -- the referral ----------------------------------------------------------------------


def come_by_invitation(app: Flask, referrer: str) -> FlaskClient:
    """A visitor who followed the referrer's link, through MMOLove and back."""
    visitor = app.test_client()
    with app.test_request_context():
        link = share_link(player_named(referrer))
    to_mmolove = visitor.get(urlsplit(link).path).location
    answer = requests.get(to_mmolove, allow_redirects=False, timeout=5)
    back = urlsplit(answer.headers["Location"])
    assert "mmref" in parse_qs(back.query)
    assert visitor.get(f"/join?{back.query}").status_code == 200
    return visitor


def live(app: Flask, ticks: int = 20) -> None:
    """Let the game go on, and the site ask it and deliver."""
    for _ in range(ticks):
        game_of(app).tick()
    state, later = app.extensions["mmolove"], time.time() + next(_HOURS) * 3600
    MilestoneAsker(state, clock=lambda: later).ask()
    state.make_delivery().drain()


@on_each_database
def test_a_friend_at_level_20_is_worth_one_cape(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    join(client, "Anna")
    friend = come_by_invitation(app, "Anna")
    assert "<strong>Anna</strong> invited you." in friend.get("/join").text
    join(friend, "Berengar")

    live(app, 16)
    assert "level 16 of 20" in client.get("/friends").text
    assert mmolove_sandbox.reported == [("registered", "2")]

    friend.post("/logout")
    for _ in range(5):
        game_of(app).tick()
    assert "level 20 reached" in client.get("/friends").text
    live(app, 0)
    assert mmolove_sandbox.reported == [("registered", "2"), ("qualified", "2")]
    assert [referral.identity for referral in mmolove_sandbox.rewarded] == ["2"]
    assert f"{CAPE} for friend 1" in client.get("/friends").text
    assert "Berengar" in client.get("/mmolove/events").text
    # It waits until the referrer logs in.
    assert CAPE not in client.get("/character").text
    assert log_in_again(client, "Anna").count(CAPE) == 1

    live(app)
    assert len(mmolove_sandbox.sandbox.arrivals) == 2
    assert log_in_again(client, "Anna").count(CAPE) == 1
    assert CAPE not in log_in_again(friend, "Berengar")


def test_each_friend_is_worth_what_the_page_promises(
    app: Flask, client: FlaskClient
) -> None:
    join(client, "Anna")
    for name in ("Berengar", "Cato", "Dido"):
        join(come_by_invitation(app, "Anna"), name)
        live(app)
    page = client.get("/friends").text
    for words in (f"{CAPE} for friend 1", "Healing draught for friend 2"):
        assert words in page
    assert "Marsh pony for friend 3" in page
    pack = log_in_again(client, "Anna")
    assert [pack.count(item) for item in (CAPE, "draught", "pony")] == [1, 1, 1]


def test_a_gift_that_is_granted_twice_comes_once(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    join(client, "Anna")
    join(come_by_invitation(app, "Anna"), "Berengar")
    live(app)
    [referral] = mmolove_sandbox.rewarded
    with app.app_context():
        grant(referral)
    assert log_in_again(client, "Anna").count(CAPE) == 1
    with app.app_context():
        grant(referral)
    assert log_in_again(client, "Anna").count(CAPE) == 1


def test_a_gift_waits_while_the_game_is_away(app: Flask, client: FlaskClient) -> None:
    join(client, "Anna")
    join(come_by_invitation(app, "Anna"), "Berengar")
    with away(app):
        qualify(2)
        app.extensions["mmolove"].make_delivery().drain()
    assert outbox_of(app).of("2", False)["qualified"].state == "accepted"
    app.extensions["mmolove"].outbox.resume(milliseconds())
    live(app)
    assert log_in_again(client, "Anna").count(CAPE) == 1


def test_a_sign_up_that_fails_first_still_counts_for_the_referrer(
    app: Flask, client: FlaskClient
) -> None:
    join(client, "Anna")
    friend = come_by_invitation(app, "Anna")
    join(friend, "Anna")
    join(friend, "Berengar")
    live(app)
    assert log_in_again(client, "Anna").count(CAPE) == 1


@on_each_database
def test_a_deleted_account_leaves_nothing_and_its_id_is_not_used_again(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    join(client, "Anna")
    friend = come_by_invitation(app, "Anna")
    join(friend, "Berengar")
    live(app)
    response = friend.post("/character/delete", data={"password": PASSWORD})
    assert "Your account is gone." in friend.get(response.location).text
    assert friend.get("/character").location == "/login?next=/character"
    assert outbox_of(app).of("2", False) == {}
    # The cape stays with who earned it.
    assert log_in_again(client, "Anna").count(CAPE) == 1
    assert "Nobody yet." in client.get("/friends").text

    stranger = app.test_client()
    join(stranger, "Cato")
    with app.app_context():
        assert player_named("Cato").id == 3
    live(app)
    assert len(mmolove_sandbox.rewarded) == 1


def test_an_account_with_loot_and_friends_can_be_deleted(
    app: Flask, client: FlaskClient
) -> None:
    join(client, "Anna")
    friend = come_by_invitation(app, "Anna")
    join(friend, "Berengar")
    live(app)
    assert client.get("/character/delete").status_code == 200
    wrong = client.post("/character/delete", data={"password": "a wrong one"})
    assert "This is not your password." in wrong.text
    assert client.post("/character/delete", data={"password": PASSWORD}).location == "/"
    with app.app_context():
        assert find_player("Anna") is None
        assert player_named("Berengar")
    assert outbox_of(app).of("2", False)["registered"].referrer is None


def test_a_player_without_a_token_earns_nobody_a_cape(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    join(client, "Anna")
    stranger = app.test_client()
    join(stranger, "Cato")
    live(app)
    assert mmolove_sandbox.sandbox.arrivals == []
    assert "Nobody yet." in client.get("/friends").text
    assert CAPE not in client.get("/character").text


def test_a_player_who_is_logged_in_is_not_a_friend(
    app: Flask, client: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    join(client, "Anna")
    token = mmolove_sandbox.mint()
    response = client.get(f"/join?mmref={token}", follow_redirects=True)
    assert "You are logged in as Anna." in response.text


def test_an_unknown_invitation_says_so(client: FlaskClient) -> None:
    response = client.get("/invite/no-such-code")
    assert response.status_code == 404
    assert "This invite link is not complete" in response.text
