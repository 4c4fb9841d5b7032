"""ihatemoney: ids that are texts, no Flask-Login, Talisman's headers."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import current_app
from flask import Flask
from sqlalchemy.exc import OperationalError

from tests.signups.conftest import need
from tests.signups.conftest import Plug
from tests.signups.conftest import reader

# What it warns of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

CODE = """
from flask_mmolove import MMOLove, new_row

mmolove = MMOLove(app)
mmolove.attach(app, "main.create_project", player=new_row(Project))
"""


@pytest.fixture
def app(plug: Plug, tmp_path: Path) -> t.Iterator[Flask]:
    need("ihatemoney")
    from ihatemoney import models
    from ihatemoney.run import create_app
    from ihatemoney.versioning import version_privacy_predicate

    class Config:
        SECRET_KEY = "k"
        SQLALCHEMY_DATABASE_URI = f"sqlite:///{tmp_path}/ihatemoney.db"
        SESSION_COOKIE_SECURE = False
        WTF_CSRF_ENABLED = False
        ACTIVATE_DEMO_PROJECT = False
        MAIL_SUPPRESS_SEND = True
        TESTING = True

    app = t.cast(Flask, create_app(configuration=Config, instance_path=str(tmp_path)))
    # It hears of every session in the process, those of other applications too.
    models.Project.__versioning_manager__.tracking_predicate = lambda: (
        current_app and current_app.name == app.name and version_privacy_predicate()
    )
    plug.run(app, CODE, Project=models.Project)
    yield app
    with app.app_context():
        models.db.engine.dispose()


def form(name: str = "The Moor") -> dict[str, str]:
    return {
        "name": name,
        "password": "will-o-the-wisp",
        "contact_email": "anna@example.org",
        "default_currency": "XXX",
    }


def test_a_signup_is_reported_under_its_text(app: Flask, plug: Plug) -> None:
    friend = plug.visit(app)
    response = friend.post("/create", data=form())
    assert response.status_code == 302
    assert "Content-Security-Policy" in response.headers
    assert plug.reported == [("registered", "the-moor")]
    assert plug.accepted == ["the-moor"]


def test_a_signup_that_fails_is_not_reported(app: Flask, plug: Plug) -> None:
    app.test_client().post("/create", data=form())
    friend = plug.visit(app)
    assert friend.post("/create", data=form()).status_code == 200
    wrong = {**form("Other"), "contact_email": "no address"}
    assert friend.post("/create", data=wrong).status_code == 200
    assert plug.sandbox.sandbox.arrivals == []
    friend.post("/create", data=form("Other"))
    assert plug.reported == [("registered", "other")]


def test_a_commit_that_fails_reports_nothing(
    app: Flask, plug: Plug, tmp_path: Path
) -> None:
    friend = plug.visit(app)
    with reader(tmp_path / "ihatemoney.db"), pytest.raises(OperationalError):
        friend.post("/create", data=form())
    assert plug.sandbox.sandbox.arrivals == []
    # SQLAlchemy pools the connection with the failed transaction still open on it.
    with app.app_context():
        app.extensions["sqlalchemy"].engine.dispose()
    friend.post("/create", data=form())
    assert plug.reported == [("registered", "the-moor")]
