"""Sites that are hard on sessions, databases and pages: signups/sessions.md."""

from __future__ import annotations

import typing as t
from types import SimpleNamespace

import pytest
from flask import current_app
from flask import Flask
from flask import g
from flask import redirect
from flask import request
from flask import Response
from flask import session
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from flask_mmolove import MMOLove
from flask_mmolove import new_in_session
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp
from tests.signups.conftest import need

SEVEN = [("registered", "7")]


@pytest.fixture
def bare(mmolove_sandbox: SiteSandbox) -> t.Iterator[Flask]:
    """A site that is extended by its test, when the rest is there."""
    app = Flask(__name__)
    app.config.update(mmolove_sandbox.config, SECRET_KEY="k", TESTING=True)
    yield app
    if "mmolove" in app.extensions:  # it was not skipped
        app.extensions["mmolove"].outbox.close()


def add_signup(app: Flask) -> None:
    @app.route("/join", methods=["GET", "POST"])
    @referral_register(player=new_in_session("user_id"))
    def join() -> ResponseReturnValue:
        if request.method == "POST":
            session.clear()
            session["user_id"] = 7
        return redirect("/")


@pytest.mark.parametrize("first", [True, False])
def test_a_session_on_the_server_holds_the_token(
    bare: Flask, mmolove_sandbox: SiteSandbox, first: bool
) -> None:
    sessions = need("flask_session")
    from cachelib import SimpleCache

    bare.config.update(
        SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache(), MMOLOVE_COOKIE_DAYS=0
    )
    if first:
        MMOLove(bare)
    sessions.Session(bare)
    if not first:
        MMOLove(bare)
    add_signup(bare)
    friend = bare.test_client()
    token = mmolove_sandbox.mint()
    response = friend.get(f"/join?mmref={token}")
    assert token not in str(response.headers)
    friend.post("/join")
    assert mmolove_sandbox.reported == SEVEN
    friend.post("/join")
    assert len(mmolove_sandbox.sandbox.arrivals) == 1


def test_a_content_security_policy_and_https_change_nothing(
    bare: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    talisman = need("flask_talisman")
    talisman.Talisman(bare, content_security_policy={"default-src": "'none'"})
    MMOLove(bare)
    add_signup(bare)
    friend = bare.test_client()
    token = mmolove_sandbox.mint()
    to_https = friend.get(f"/join?mmref={token}")
    assert to_https.location.startswith("https://")
    friend.get(to_https.location)
    response = friend.post("/join", base_url="https://localhost")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert mmolove_sandbox.reported == SEVEN


def test_a_login_wall_before_everything_keeps_no_token_out(
    bare: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    @bare.before_request
    def wall() -> ResponseReturnValue | None:
        return redirect("/join") if request.endpoint != "join" else None

    MMOLove(bare)
    add_signup(bare)
    friend = bare.test_client()
    response = friend.get(f"/anything?mmref={mmolove_sandbox.mint()}")
    assert response.location == "/join"
    friend.post("/join")
    assert mmolove_sandbox.reported == SEVEN


def test_a_login_that_clears_the_session_between_the_form_and_the_signup(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    add_signup(app)

    @app.post("/login")
    def log_in() -> str:
        session.clear()
        return ""

    friend = app.test_client()
    friend.get(f"/join?mmref={mmolove_sandbox.mint()}")
    friend.post("/login")
    friend.post("/join")
    assert mmolove_sandbox.reported == SEVEN


def test_a_player_may_be_named_in_a_nested_app_context(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    @app.post("/join")
    @referral_register
    def join() -> str:
        g.mine = 1
        with current_app.app_context():
            assert "mine" not in g
            registered(7)
            assert mmolove_sandbox.reported == []
        return "welcome"

    app.test_client().post(f"/join?mmref={mmolove_sandbox.mint()}")
    assert mmolove_sandbox.reported == SEVEN


class Base(DeclarativeBase):
    pass


class Player(Base):
    __tablename__ = "player"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize("named", ["before", "after"])
@pytest.mark.parametrize("end", ["close", "remove", "rollback"])
def test_a_database_session_that_the_view_ends(
    make_app: MakeApp,
    mmolove_sandbox: SiteSandbox,
    tmp_path: t.Any,
    named: str,
    end: str,
) -> None:
    app = make_app()
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/site.db"
    db = SQLAlchemy(app, model_class=Base)
    with app.app_context():
        db.create_all()

    @app.post("/join")
    @referral_register
    def join() -> str:
        player = Player(id=7)
        db.session.add(player)
        if named == "before":
            registered(player)
        db.session.commit()
        if named == "after":
            registered(player)
        getattr(db.session, end)()
        return "welcome"

    app.test_client().post(f"/join?mmref={mmolove_sandbox.mint()}")
    assert mmolove_sandbox.reported == SEVEN
    with app.app_context():
        db.engine.dispose()


def test_a_streamed_answer_is_streamed(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    sent: list[int] = []

    def stream() -> t.Iterator[str]:
        for number in range(3):
            sent.append(number)
            yield str(number)

    @app.post("/join")
    @referral_register(player=lambda response: SimpleNamespace(id=7))
    def join() -> ResponseReturnValue:
        return Response(stream())

    @app.after_request
    def look(response: Response) -> Response:
        assert sent == []
        return response

    response = app.test_client().post(f"/join?mmref={mmolove_sandbox.mint()}")
    assert response.text == "012"
    assert mmolove_sandbox.reported == SEVEN
