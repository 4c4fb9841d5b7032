"""Flask-AppBuilder: a form, and a link in a mail that is opened elsewhere; and accounts
that a first login makes.
"""

from __future__ import annotations

import contextlib
import re
import sys
import typing as t
from pathlib import Path
from types import ModuleType

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.signups.conftest import need
from tests.signups.conftest import Plug
from tests.signups.conftest import snippets
from tests.signups.directory import directory
from tests.signups.directory import PASSWORD
from tests.signups.directory import PLAYERS
from tests.signups.directory import SOURCE

# What it warns of, short keys of its own, is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

FORM = {
    "username": "anna",
    "first_name": "Anna",
    "last_name": "Moor",
    "email": "anna@example.org",
    "password": "will-o-the-wisp",
    "conf_password": "will-o-the-wisp",
}


class Site:
    def __init__(self, plug: Plug, path: Path, **settings: t.Any) -> None:
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
            **settings,
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

    @property
    def manager(self) -> t.Any:
        return self.builder.sm

    @contextlib.contextmanager
    def commits_fail(self) -> t.Iterator[None]:
        from sqlalchemy import event

        def fail(*args: object) -> t.NoReturn:
            raise OSError("the disk is full")

        with self.app.app_context():
            event.listen(self.db.session, "before_commit", fail)
        yield
        with self.app.app_context():
            event.remove(self.db.session, "before_commit", fail)

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
        manager = site.manager
        manager.del_register_user(manager.find_register_user(stranger.split("/")[-1]))
    friend = site.app.test_client()
    friend.get(f"/?mmref={(token := plug.sandbox.mint())}")
    link = site.sign_up(friend)
    assert link is not None
    site.app.test_client().get(link)
    assert [event.token for event in plug.sandbox.sandbox.events] == [token]


def test_an_account_whose_commit_fails_is_not_reported(site: Site, plug: Plug) -> None:
    link = site.sign_up(plug.visit(site.app))
    assert link is not None
    device = site.app.test_client()
    with site.commits_fail():
        device.get(link)
    assert plug.sandbox.sandbox.arrivals == []
    device.get(link)
    assert plug.reported == [("registered", "1")]


# -- a first login ---------------------------------------------------------------------


class Way:
    """A way in where the first login makes the account.

    :ivar auth_type: AppBuilder's name for it.
    """

    auth_type: str
    settings: t.ClassVar[dict[str, t.Any]] = {}

    def prepare(self, site: Site, patch: pytest.MonkeyPatch) -> None:
        """Have the other side of it in place."""

    def open(self, site: Site, folder: Path) -> t.ContextManager[None]:
        """Run what has to run while the site is used."""
        return contextlib.nullcontext()

    def log_in(self, browser: FlaskClient, name: str) -> TestResponse:
        raise NotImplementedError


class RemoteUser(Way):
    auth_type = "AUTH_REMOTE_USER"

    def log_in(self, browser: FlaskClient, name: str) -> TestResponse:
        return browser.get("/login/", environ_base={"REMOTE_USER": name})


class OAuth(Way):
    auth_type = "AUTH_OAUTH"
    settings: t.ClassVar[dict[str, t.Any]] = {
        "OAUTH_PROVIDERS": [
            {
                "name": "github",
                "token_key": "access_token",
                "remote_app": {
                    "client_id": "id",
                    "client_secret": "secret",
                    "authorize_url": "http://127.0.0.1:1/authorize",
                },
            }
        ]
    }

    def prepare(self, site: Site, patch: pytest.MonkeyPatch) -> None:
        remote = site.manager.oauth_remotes["github"]
        patch.setattr(remote, "authorize_access_token", lambda: {"access_token": "t"})
        patch.setattr(
            site.manager, "oauth_user_info", lambda *_: {"username": self.who}
        )

    def log_in(self, browser: FlaskClient, name: str) -> TestResponse:
        self.who = name
        away = browser.get("/login/github")
        state = re.search(r"state=([^&]+)", away.location)
        assert state
        return browser.get(f"/oauth-authorized/github?state={state[1]}&code=c")


class LDAP(Way):
    auth_type = "AUTH_LDAP"
    settings: t.ClassVar[dict[str, t.Any]] = {
        "AUTH_LDAP_SERVER": "ldap://127.0.0.1",
        "AUTH_LDAP_SEARCH": PLAYERS,
        "AUTH_LDAP_USERNAME_FORMAT": f"uid=%s,{PLAYERS}",
        "AUTH_LDAP_USE_TLS": False,
    }

    @contextlib.contextmanager
    def open(self, site: Site, folder: Path) -> t.Iterator[None]:
        with directory(folder) as url:
            site.app.config["AUTH_LDAP_SERVER"] = url
            yield

    def log_in(self, browser: FlaskClient, name: str) -> TestResponse:
        form = {"username": name, "password": PASSWORD}
        return browser.post("/login/", data=form)


class LDAPByAPI(LDAP):
    def log_in(self, browser: FlaskClient, name: str) -> TestResponse:
        form = {"username": name, "password": PASSWORD, "provider": "ldap"}
        return browser.post("/api/v1/security/login", json=form)


class SAML(Way):
    auth_type = "AUTH_SAML"
    settings: t.ClassVar[dict[str, t.Any]] = {
        "SAML_PROVIDERS": [{"name": "moor"}],
        "SAML_CONFIG": {},
    }

    def prepare(self, site: Site, patch: pytest.MonkeyPatch) -> None:
        errors = t.cast(t.Any, ModuleType("onelogin.saml2.errors"))
        errors.OneLogin_Saml2_Error = type("Error", (Exception,), {})
        errors.OneLogin_Saml2_ValidationError = type("Invalid", (Exception,), {})
        for name in ("onelogin", "onelogin.saml2"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, "onelogin.saml2.errors", errors)
        patch.setattr(
            site.manager, "get_saml_userinfo", lambda _: {"username": self.who}
        )

    def log_in(self, browser: FlaskClient, name: str) -> TestResponse:
        self.who = name
        return browser.post("/saml/acs/")


@pytest.fixture(params=[RemoteUser, OAuth, LDAP, LDAPByAPI, SAML])
def way(request: pytest.FixtureRequest) -> Way:
    return t.cast(Way, request.param())


@pytest.fixture
def open_site(
    way: Way, plug: Plug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[Site]:
    """A site where a login makes an account."""
    const = need("flask_appbuilder.const")
    if not hasattr(const, way.auth_type):
        pytest.skip(f"this Flask-AppBuilder knows no {way.auth_type}")
    if way.auth_type == "AUTH_OAUTH":
        need("authlib")
    if way.auth_type == "AUTH_LDAP":
        need("ldap", SOURCE)
    settings = {**way.settings, "AUTH_TYPE": getattr(const, way.auth_type)}
    site = Site(plug, tmp_path, **settings)
    way.prepare(site, monkeypatch)
    with way.open(site, tmp_path):
        yield site
    site.dispose()


def test_who_logs_in_for_the_first_time_is_reported_and_never_again(
    way: Way, open_site: Site, plug: Plug
) -> None:
    friend = plug.visit(open_site.app)
    assert way.log_in(friend, "anna").status_code < 400
    assert plug.reported == [("registered", "1")]
    assert plug.accepted == ["1"]
    assert way.log_in(plug.visit(open_site.app), "anna").status_code < 400
    assert len(plug.sandbox.sandbox.arrivals) == 1


def test_who_had_an_account_is_not_reported(
    way: Way, open_site: Site, plug: Plug
) -> None:
    way.log_in(open_site.app.test_client(), "anna")
    friend = plug.visit(open_site.app)
    way.log_in(friend, "anna")
    assert plug.sandbox.sandbox.arrivals == []


def test_a_first_login_whose_commit_fails_is_not_reported(
    way: Way, open_site: Site, plug: Plug
) -> None:
    friend = plug.visit(open_site.app)
    with open_site.commits_fail():
        if isinstance(way, RemoteUser):  # which does not expect that
            with pytest.raises(AttributeError):
                way.log_in(friend, "anna")
        else:
            way.log_in(friend, "anna")
    assert plug.sandbox.sandbox.arrivals == []
    way.log_in(friend, "anna")
    assert plug.reported == [("registered", "1")]


# -- an administrator ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["page", "manager"])
def test_an_account_that_an_administrator_makes_is_nobodys_referral(
    site: Site, plug: Plug, how: str
) -> None:
    @site.app.get("/make-ben")
    def make() -> str:
        role = site.manager.find_role("Public")
        return str(
            site.manager.add_user("ben", "B", "M", "b@example.org", role, "pw").id
        )

    with site.app.app_context():
        admin = site.manager.find_role("Admin")
        site.manager.add_user("root", "R", "M", "r@example.org", admin, "pw")
    browser = plug.visit(site.app)
    browser.post("/login/", data={"username": "root", "password": "pw"})
    if how == "page":
        roles = {"roles": ["2"], "active": "y"}
        browser.post("/users/add", data={**FORM, **roles})
    else:
        assert browser.get("/make-ben").text == "2"
    with site.app.app_context():
        assert site.manager.count_users() == 2
    assert plug.sandbox.sandbox.arrivals == []


def test_an_account_that_a_command_makes_is_nobodys_referral(
    site: Site, plug: Plug
) -> None:
    with site.app.app_context():
        role = site.manager.find_role("Public")
        assert site.manager.add_user("ben", "B", "M", "b@example.org", role, "pw")
    assert plug.sandbox.sandbox.arrivals == []
