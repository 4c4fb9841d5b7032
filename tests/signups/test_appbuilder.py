"""Flask-AppBuilder: a form and a link in a mail that is opened elsewhere, or a login
that makes the account.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from signups.conftest import need
from signups.conftest import Plug
from signups.conftest import snippets

FORM = {
    "username": "anna",
    "first_name": "Anna",
    "last_name": "Moor",
    "email": "anna@example.org",
    "password": "will-o-the-wisp",
    "conf_password": "will-o-the-wisp",
}


class Site:
    def __init__(self, plug: Plug, path: Path, **config: t.Any) -> None:
        need("flask_appbuilder")
        from flask_appbuilder import AppBuilder
        from flask_appbuilder.models.sqla import Base
        from flask_mail import Mail
        from flask_sqlalchemy import SQLAlchemy

        self.plug = plug
        self.app = app = Flask(__name__)
        app.config.update(
            TESTING=True,
            SECRET_KEY="k",
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{path}/appbuilder.db",
            FAB_PASSWORD_HASH_METHOD="pbkdf2:sha256:1",
            AUTH_USER_REGISTRATION=True,
            AUTH_USER_REGISTRATION_ROLE="Public",
            RECAPTCHA_PUBLIC_KEY="k",
            RECAPTCHA_PRIVATE_KEY="k",
            MAIL_DEFAULT_SENDER="moor@example.org",
            WTF_CSRF_ENABLED=False,
            **config,
        )
        self.db = db = SQLAlchemy(app, metadata=Base.metadata)
        self.mail = Mail(app)
        [code] = snippets("appbuilder")
        manager = plug.run(app, code)["ReferralSecurityManager"]
        with app.app_context():
            self.builder = AppBuilder(app, db.session, security_manager_class=manager)

    def sign_up(self, client: t.Any, **fields: str) -> str | None:
        """The link in the mail, if one was sent."""
        with self.app.app_context(), self.mail.record_messages() as outbox:
            client.post("/register/form", data={**FORM, **fields})
        if not outbox:
            return None
        found = re.search(r"/register/activation/[\w-]+", outbox[0].html)
        assert found
        return found[0]

    def dispose(self) -> None:
        with self.app.app_context():
            self.db.session.remove()
            self.db.engine.dispose()


@pytest.fixture
def site(plug: Plug, tmp_path: Path) -> t.Iterator[Site]:
    site = Site(plug, tmp_path)
    yield site
    site.dispose()


def test_a_signup_that_is_confirmed_on_another_device_is_reported(
    site: Site, plug: Plug
) -> None:
    link = site.sign_up(plug.visit(site.app))
    assert link is not None
    assert plug.sandbox.sandbox.arrivals == []
    assert site.app.test_client().get(link).status_code == 200
    assert plug.reported == [("registered", "1")]
    assert plug.accepted == ["1"]


def test_a_name_that_is_taken_sends_no_mail_and_reports_nobody(
    site: Site, plug: Plug
) -> None:
    stranger = site.app.test_client()
    link = site.sign_up(stranger)
    assert link is not None
    friend = plug.visit(site.app)
    assert site.sign_up(friend) is None
    assert site.sign_up(friend, conf_password="another", username="ben") is None
    friend.get(link)  # an account that came without a token
    friend.get(link)
    friend.get("/register/activation/no-such-hash")
    assert plug.sandbox.sandbox.arrivals == []


def test_who_sent_the_form_first_in_a_friends_name_holds_no_token_for_them(
    site: Site, plug: Plug
) -> None:
    stranger = site.sign_up(plug.visit(site.app))
    assert stranger is not None
    with site.app.app_context():  # the owner deletes what the stranger asked for
        manager = site.builder.sm
        manager.del_register_user(manager.find_register_user(stranger.split("/")[-1]))
    friend = site.app.test_client()
    friend.get(f"/?mmref={(token := plug.sandbox.mint())}")
    link = site.sign_up(friend)
    assert link is not None
    site.app.test_client().get(link)
    assert [event.token for event in plug.sandbox.sandbox.events] == [token]


def test_an_account_whose_commit_fails_is_not_reported(
    site: Site, plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import event

    link = site.sign_up(plug.visit(site.app))
    assert link is not None
    device = site.app.test_client()

    def fail(*args: object) -> t.NoReturn:
        raise OSError("the disk is full")

    with site.app.app_context():
        event.listen(site.db.session, "before_commit", fail)
    device.get(link)
    assert plug.sandbox.sandbox.arrivals == []
    with site.app.app_context():
        event.remove(site.db.session, "before_commit", fail)
    device.get(link)
    assert plug.reported == [("registered", "1")]


@pytest.fixture
def remote_site(plug: Plug, tmp_path: Path) -> t.Iterator[Site]:
    site = Site(plug, tmp_path, AUTH_TYPE=3)
    yield site
    site.dispose()


def test_the_first_login_by_remote_user_is_a_signup(
    remote_site: Site, plug: Plug
) -> None:
    friend = plug.visit(remote_site.app)
    for _ in range(2):
        friend.get("/login/", environ_overrides={"REMOTE_USER": "anna"})
        friend.get("/logout/")
    assert plug.reported == [("registered", "1")]


def test_a_login_by_remote_user_to_an_account_that_was_there_is_no_signup(
    remote_site: Site, plug: Plug
) -> None:
    remote_site.app.test_client().get(
        "/login/", environ_overrides={"REMOTE_USER": "anna"}
    )
    friend = plug.visit(remote_site.app)
    friend.get("/login/", environ_overrides={"REMOTE_USER": "anna"})
    friend.get("/login/")
    assert plug.sandbox.sandbox.arrivals == []


@pytest.mark.parametrize("way", ["oauth", "saml"])
def test_the_first_login_by_another_site_is_a_signup(
    site: Site, plug: Plug, way: str
) -> None:
    """Their views call what is called here, once the other site has answered."""

    @site.app.get("/answered")
    def answered() -> str:
        user = getattr(site.builder.sm, f"auth_user_{way}")({"username": "anna"})
        return str(user and user.id)

    friend = plug.visit(site.app)
    assert [friend.get("/answered").text for _ in range(2)] == ["1", "1"]
    assert plug.reported == [("registered", "1")]


@pytest.mark.parametrize("way", ["the form", "a view of the site's own"])
def test_an_account_that_an_administrator_makes_is_nobodys_referral(
    site: Site, plug: Plug, way: str
) -> None:
    manager = site.builder.sm

    @site.app.post("/own")
    def own() -> str:
        role = manager.find_role("Public")
        assert manager.add_user("ben", "B", "M", "b@example.org", role, "pw")
        return "made"

    with site.app.app_context():
        role = manager.find_role("Admin")
        assert manager.add_user("moor", "M", "M", "m@example.org", role, "pw")
        role_id = role.id
    administrator = plug.visit(site.app)
    login = {"username": "moor", "password": "pw"}
    assert administrator.post("/login/", data=login).status_code == 302
    if way == "the form":
        form = {**FORM, "active": "y", "roles": str(role_id)}
        assert administrator.post("/users/add", data=form).status_code == 302
    else:
        assert administrator.post("/own").text == "made"
    with site.app.app_context():
        assert manager.count_users() == 2
    assert plug.sandbox.sandbox.arrivals == []
