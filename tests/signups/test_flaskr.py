"""flaskr, the site of Flask's tutorial: it does not log in who signs up."""

from __future__ import annotations

import sqlite3
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from tests.signups.conftest import need
from tests.signups.conftest import Plug
from tests.signups.conftest import reader
from tests.signups.conftest import snippets


@pytest.fixture
def app(plug: Plug, tmp_path: Path) -> Flask:
    flaskr = need("flaskr", "Flask's own source; .ci/run shows how")
    from flaskr import db

    app = t.cast(
        Flask,
        flaskr.create_app(
            {"TESTING": True, "SECRET_KEY": "k", "DATABASE": str(tmp_path / "flaskr")}
        ),
    )
    with app.app_context():
        db.init_db()
    [code] = snippets("outside")
    plug.run(app, code, get_db=db.get_db)
    return app


def test_a_signup_is_reported(app: Flask, plug: Plug) -> None:
    friend = plug.visit(app)
    assert friend.get("/auth/register").status_code == 200
    form = {"username": "anna", "password": "x"}
    assert friend.post("/auth/register", data=form).status_code == 302
    assert plug.reported == [("registered", "1")]
    assert plug.accepted == ["1"]


@pytest.mark.parametrize(
    "form",
    [
        {"username": "anna", "password": "x"},
        {"username": "ben", "password": ""},
        {"username": "", "password": "x"},
    ],
)
def test_a_signup_that_fails_is_not_and_the_next_one_is(
    app: Flask, plug: Plug, form: dict[str, str]
) -> None:
    app.test_client().post("/auth/register", data={"username": "anna", "password": "x"})
    friend = plug.visit(app)
    assert friend.post("/auth/register", data=form).status_code == 200
    assert plug.sandbox.sandbox.arrivals == []
    friend.post("/auth/register", data={"username": "cato", "password": "x"})
    assert plug.reported == [("registered", "2")]


def test_a_commit_that_fails_reports_nothing(
    app: Flask, plug: Plug, tmp_path: Path
) -> None:
    friend = plug.visit(app)
    form = {"username": "anna", "password": "x"}
    with reader(tmp_path / "flaskr"), pytest.raises(sqlite3.OperationalError):
        friend.post("/auth/register", data=form)
    assert plug.sandbox.sandbox.arrivals == []
    friend.post("/auth/register", data=form)
    assert plug.reported == [("registered", "1")]


def test_a_login_that_clears_the_session_loses_no_token(app: Flask, plug: Plug) -> None:
    app.test_client().post("/auth/register", data={"username": "anna", "password": "x"})
    friend = plug.visit(app)
    friend.post("/auth/login", data={"username": "anna", "password": "x"})
    friend.get("/auth/logout")
    friend.post("/auth/register", data={"username": "ben", "password": "x"})
    assert plug.reported == [("registered", "2")]
