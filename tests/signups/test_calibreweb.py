"""Calibre-Web: a session of SQLAlchemy's own for the whole process, and one app."""

from __future__ import annotations

import importlib
import sys
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.signups.conftest import need
from tests.signups.conftest import Plug
from tests.signups.conftest import reader

# What it warns of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

CODE = """
from flask_mmolove import MMOLove, new_row

mmolove = MMOLove(app)
mmolove.attach(app, "web.register_post", player=new_row(User))
"""

FORM = {"name": "anna", "email": "anna@example.org"}


@pytest.fixture
def app(
    plug: Plug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[Flask]:
    package = need("calibreweb")
    monkeypatch.syspath_prepend(Path(package.__file__).parent)
    monkeypatch.setenv("CALIBRE_DBPATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["cps.py"])
    # It is made when it is imported, so each test imports it anew.
    for name in [name for name in sys.modules if name.partition(".")[0] == "cps"]:
        monkeypatch.delitem(sys.modules, name)
    cps = importlib.import_module("cps")
    monkeypatch.setattr(cps.web_server, "start", lambda: True)
    monkeypatch.setattr(cps.updater_thread, "start", lambda: None)
    with pytest.raises(SystemExit):
        importlib.import_module("cps.main").main()
    cps.config.db_configured = True
    cps.config.config_public_reg = True
    cps.config.mail_server = "127.0.0.1"
    cps.app.config.update(WTF_CSRF_ENABLED=False, RATELIMIT_ENABLED=False)
    cps.limiter.enabled = False
    cps.ub.session.add(cps.ub.Registration(domain="%.org", allow=1))
    cps.ub.session.commit()
    # Its worker would send mail from a thread that never ends.
    monkeypatch.setattr(sys.modules["cps.helper"].WorkerThread, "add", lambda *_: None)
    plug.run(cps.app, CODE, User=cps.ub.User)
    yield cps.app
    cps.ub.dispose()


def register(
    app: Flask, plug: Plug, **changes: str
) -> tuple[FlaskClient, TestResponse]:
    friend = plug.visit(app)
    return friend, friend.post("/register", data={**FORM, **changes})


def test_a_signup_is_reported(app: Flask, plug: Plug) -> None:
    _, response = register(app, plug)
    assert response.location == "/login"
    assert plug.reported == [("registered", "3")]
    assert plug.accepted == ["3"]


@pytest.mark.parametrize(
    "changes",
    [{"name": "admin"}, {"email": "no address"}, {"email": "a@example.com"}],
    ids=["a name that is taken", "an invalid form", "a domain that is not allowed"],
)
def test_a_form_that_is_shown_again_reports_nobody(
    app: Flask,
    plug: Plug,
    changes: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    friend, response = register(app, plug, **changes)
    assert response.status_code == 200
    assert plug.sandbox.sandbox.arrivals == []
    assert "it committed no row of User" in caplog.text
    friend.post("/register", data=FORM)
    assert plug.reported == [("registered", "3")]


def test_a_commit_that_fails_reports_nobody(
    app: Flask, plug: Plug, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with reader(tmp_path / "app.db"):
        friend, response = register(app, plug)
    assert response.status_code == 200
    assert plug.sandbox.sandbox.arrivals == []
    assert "the row of User that it inserted was not committed" in caplog.text
    friend.post("/register", data=FORM)
    assert plug.reported == [("registered", "3")]


def test_an_account_whose_mail_cannot_be_sent_is_reported(
    app: Flask, plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("no mail server")

    monkeypatch.setattr(sys.modules["cps.helper"].WorkerThread, "add", fail)
    _, response = register(app, plug)
    assert "An unknown error occurred" in response.text
    assert plug.reported == [("registered", "3")]


def test_a_login_is_no_signup(app: Flask, plug: Plug) -> None:
    assert log_in(plug.visit(app)).status_code == 302
    assert plug.sandbox.sandbox.arrivals == []


def test_an_account_that_an_administrator_makes_is_nobodys_referral(
    app: Flask, plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The page wants a library of books besides.
    books = sys.modules["cps.admin"].calibre_db
    monkeypatch.setattr(books, "speaking_language", lambda: [])
    admin = plug.visit(app)
    log_in(admin)
    new = {**FORM, "password": "Will-o-the-wisp1", "default_language": "all"}
    made = admin.post("/admin/user/new", data=new)
    assert "User &#39;anna&#39; created" in made.text
    assert plug.sandbox.sandbox.arrivals == []


def log_in(client: FlaskClient) -> TestResponse:
    return client.post("/login", data={"username": "admin", "password": "admin123"})
