"""Flask-Security: a signal before the commit, answers that tell nothing, JSON."""

from __future__ import annotations

import typing as t
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask

from tests.signups.conftest import need
from tests.signups.conftest import Plug
from tests.signups.conftest import snippets

FORM = {
    "email": "anna@example.org",
    "password": "will-o-the-wisp",
    "password_confirm": "will-o-the-wisp",
}


class Site:
    """A site of Flask-Security's own quick start."""

    def __init__(self, plug: Plug, path: Path, **settings: t.Any) -> None:
        need("flask_security")
        from flask_security import Security
        from flask_security import SQLAlchemyUserDatastore
        from flask_security.models import fsqla_v3
        from flask_sqlalchemy import SQLAlchemy

        self.plug = plug
        self.app = app = Flask(__name__)
        app.config.update(
            TESTING=True,
            SECRET_KEY="k",
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}/security.db",
            SECURITY_PASSWORD_SALT="1",
            SECURITY_PASSWORD_HASH="plaintext",
            SECURITY_PASSWORD_SCHEMES=["plaintext"],
            SECURITY_REGISTERABLE=True,
            SECURITY_SEND_REGISTER_EMAIL=False,
            SECURITY_EMAIL_VALIDATOR_ARGS={"check_deliverability": False},
            SECURITY_USE_REGISTER_V2=True,
            WTF_CSRF_ENABLED=False,
            **settings,
        )
        self.db = db = SQLAlchemy(app)
        fsqla_v3.FsModels.set_db_info(db)

        class Role(db.Model, fsqla_v3.FsRoleMixin):  # type: ignore[misc, name-defined]
            pass

        class User(db.Model, fsqla_v3.FsUserMixin):  # type: ignore[misc, name-defined]
            pass

        Security(app, SQLAlchemyUserDatastore(db, User, Role))
        with app.app_context():
            db.create_all()
        [code] = snippets("security")
        plug.run(app, code)

    def dispose(self) -> None:
        with self.app.app_context():
            self.db.engine.dispose()


@pytest.fixture
def make_site(plug: Plug, tmp_path: Path) -> t.Iterator[t.Callable[..., Site]]:
    made: list[Site] = []

    def make(**settings: t.Any) -> Site:
        made.append(Site(plug, tmp_path, **settings))
        return made[-1]

    yield make
    for site in made:
        site.dispose()


Make = t.Callable[..., Site]
GENERIC = {"SECURITY_RETURN_GENERIC_RESPONSES": True}
CONFIRMED = {"SECURITY_CONFIRMABLE": True, "MAIL_SUPPRESS_SEND": True}


@pytest.mark.parametrize("settings", [{}, GENERIC, CONFIRMED])
def test_a_signup_is_reported(
    make_site: Make, plug: Plug, settings: dict[str, t.Any]
) -> None:
    site = make_site(**settings)
    assert plug.visit(site.app).post("/register", data=FORM).status_code == 302
    assert plug.reported == [("registered", "1")]
    assert plug.accepted == ["1"]


def test_a_signup_by_json_is_reported(make_site: Make, plug: Plug) -> None:
    friend = plug.visit(make_site().app)
    assert friend.post("/register", json=FORM).status_code == 200
    assert plug.reported == [("registered", "1")]


@pytest.mark.parametrize("settings", [{}, GENERIC])
@pytest.mark.parametrize("kind", ["data", "json"])
def test_an_account_that_was_there_is_not(
    make_site: Make, plug: Plug, settings: dict[str, t.Any], kind: str
) -> None:
    site = make_site(**settings)
    site.app.test_client().post("/register", data=FORM)
    friend = plug.visit(site.app)
    friend.post("/register", **{kind: FORM})
    friend.post("/register", **{kind: {**FORM, "password_confirm": "another"}})
    assert plug.sandbox.sandbox.arrivals == []
    friend.post("/register", data={**FORM, "email": "ben@example.org"})
    assert plug.reported == [("registered", "2")]


def test_an_account_whose_commit_fails_is_not(make_site: Make, plug: Plug) -> None:
    from sqlalchemy import event

    site = make_site(PROPAGATE_EXCEPTIONS=False)
    friend = plug.visit(site.app)

    def fail(*args: object) -> t.NoReturn:
        raise OSError("the disk is full")

    with site.app.app_context():
        event.listen(site.db.session, "before_commit", fail)
    assert friend.post("/register", data=FORM).status_code == 500
    assert plug.sandbox.sandbox.arrivals == []
    with site.app.app_context():
        event.remove(site.db.session, "before_commit", fail)
    assert friend.post("/register", data=FORM).status_code == 302
    assert plug.reported == [("registered", "1")]


def test_a_login_is_no_signup(make_site: Make, plug: Plug) -> None:
    site = make_site()
    site.app.test_client().post("/register", data=FORM)
    friend = plug.visit(site.app)
    assert friend.post("/login", data=FORM).status_code == 302
    assert plug.sandbox.sandbox.arrivals == []


@pytest.mark.parametrize("how", ["a view", "a command"])
def test_an_account_that_an_administrator_makes_is_nobodys_referral(
    make_site: Make, plug: Plug, how: str
) -> None:
    site = make_site()
    register_user = need("flask_security.registerable").register_user
    new = {"email": "ben@example.org", "password": "will-o-the-wisp"}

    @site.app.get("/make-ben")
    def make() -> str:
        user = register_user(SimpleNamespace(to_dict=lambda only_user: new))
        return str(user.email)

    if how == "a view":  # which sends the signal too
        assert plug.visit(site.app).get("/make-ben").text == new["email"]
    else:
        command = ["users", "create", new["email"], "--password", new["password"]]
        done = site.app.test_cli_runner().invoke(args=command)
        assert done.exit_code == 0, done.output
    assert plug.sandbox.sandbox.arrivals == []
