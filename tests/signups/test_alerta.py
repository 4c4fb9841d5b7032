"""alerta: a JSON API without sessions, an ORM or Flask-Login, on PostgreSQL."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import find_url
from tests.signups.conftest import need
from tests.signups.conftest import Plug

# What it warns of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

CODE = """
from alerta.utils.audit import auth_audit_trail
from flask_mmolove import MMOLove, new_by_signal

mmolove = MMOLove(app)
signed_up = new_by_signal(auth_audit_trail, "resource_id")
mmolove.attach(app, "auth.signup", "auth.verify_email", player=signed_up)
"""


@pytest.fixture
def make_site(
    plug: Plug, request: pytest.FixtureRequest
) -> t.Iterator[t.Callable[..., Flask]]:
    need("alerta")
    from alerta.app import create_app
    from alerta.app import db

    url = find_url("postgresql", request).set(drivername="postgresql")

    def make(**settings: t.Any) -> Flask:
        config = {
            "TESTING": True,
            "SECRET_KEY": "k" * 32,
            "AUTH_REQUIRED": True,
            "SIGNUP_ENABLED": True,
            "ADMIN_USERS": ["moor@example.org"],
            "MAIL_FROM": "moor@example.org",
            "DATABASE_URL": url.render_as_string(False),
            **settings,
        }
        app = t.cast(Flask, create_app(config))
        plug.run(app, CODE)
        return app

    yield make
    db.destroy()


def sign_up(client: FlaskClient, name: str = "anna", **fields: str) -> t.Any:
    email = f"{name}@example.org"
    form = {"name": name, "email": email, "password": "will-o-the-wisp", "text": ""}
    return client.post("/auth/signup", json={**form, **fields})


def test_a_signup_is_reported(make_site: t.Callable[..., Flask], plug: Plug) -> None:
    app = make_site()
    answer = sign_up(plug.visit(app))
    assert answer.status_code == 200, answer.text
    [(event, player)] = plug.reported
    assert event == "registered"
    from alerta.models.user import User

    with app.app_context():
        assert User.find_by_id(player).email == "anna@example.org"


def test_no_other_answer_is_a_signup(
    make_site: t.Callable[..., Flask], plug: Plug
) -> None:
    app = make_site(ALLOWED_EMAIL_DOMAINS=["example.org"])
    assert sign_up(app.test_client()).status_code == 200
    friend = plug.visit(app)
    assert sign_up(friend).status_code == 409
    assert sign_up(friend, "ben", email="ben@moor.example").status_code == 403
    assert friend.post("/auth/signup", json={"name": "ben"}).status_code == 400
    form = {"username": "anna@example.org", "password": "will-o-the-wisp"}
    assert friend.post("/auth/login", json=form).status_code == 200
    assert plug.sandbox.sandbox.arrivals == []


def test_an_account_that_an_administrator_makes_is_nobodys_referral(
    make_site: t.Callable[..., Flask], plug: Plug
) -> None:
    app = make_site()
    answer = sign_up(app.test_client(), "moor")
    headers = {"Authorization": f"Bearer {answer.json['token']}"}
    form = {"name": "ben", "email": "b@example.org", "password": "pw", "roles": []}
    made = plug.visit(app).post("/user", json=form, headers=headers)
    assert made.status_code == 201, made.text
    assert plug.sandbox.sandbox.arrivals == []


def test_where_addresses_are_confirmed_a_confirmation_is_the_signup(
    make_site: t.Callable[..., Flask], plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_site(EMAIL_VERIFICATION=True)
    from alerta.models import user as users

    codes: list[str] = []
    monkeypatch.setattr(
        users.utils, "send_confirmation", lambda user, code: codes.append(code)
    )
    friend = plug.visit(app)
    assert sign_up(friend).status_code == 403
    assert plug.sandbox.sandbox.arrivals == []
    link = f"/auth/confirm/{codes[0]}"
    assert friend.post(link, json={}).status_code == 200
    assert friend.post(link, json={}).status_code >= 400
    assert [event for event, _ in plug.reported] == ["registered"]
