"""Lines of the docs that no other test runs, as printed."""

from __future__ import annotations

import inspect
import re
import typing as t
from pathlib import Path
from types import SimpleNamespace

import flask
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.capture import referrer
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

FLASK = ("redirect", "render_template_string", "request")

DOCS = Path(__file__).parents[1] / "docs"


def snippets(page: str) -> list[str]:
    """The Python of a page of the docs."""
    text = (DOCS / page).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


class Site:
    """A site that runs lines of a page."""

    def __init__(self, make_app: MakeApp, sandbox: SiteSandbox) -> None:
        self.sandbox = sandbox
        self.mmolove = MMOLove()
        self.app: Flask = make_app(self.mmolove)
        self.names: dict[str, t.Any] = {
            **{name: getattr(flask, name) for name in FLASK},
            **{"app": self.app, "mmolove": self.mmolove},
        }

    def run(self, code: str, **names: t.Any) -> None:
        exec(code, self.names | names)


@pytest.fixture
def site(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Site:
    return Site(make_app, mmolove_sandbox)


def test_the_page_on_links(site: Site) -> None:
    friends, form = snippets("howto/links.md")
    player = SimpleNamespace(id=3, name="Ada")
    find = {"current_player": lambda: player, "find_player": {3: player}.get}
    site.run(friends + form, **find)
    with site.app.test_request_context():
        token = site.sandbox.mint()
        referrer.remember(token, "3")
        registered("8", token=token)
    page = site.app.test_client().get("/friends").text
    assert "Player 8: accepted" in page
    link = re.search(r'value="(http://localhost/invite/\S+)"', page)
    assert link is not None
    friend = site.app.test_client()
    friend.get(link[1])
    query = {"mmref": site.sandbox.mint()}
    assert "Ada invited you." in friend.get("/register", query_string=query).text
    assert friend.get("/register").text == "<p>Ada invited you.</p>"
    assert site.app.test_client().get("/register").text == ""


def test_the_page_on_erasing(site: Site) -> None:
    view, table = snippets("howto/erasing.md")
    done: list[str] = []

    class Player:
        id = "8"

        def _get_current_object(self) -> Player:
            return self

    class Session:
        def delete(self, player: Player) -> None:
            done.append("deleted")

        def commit(self) -> None:
            done.append("committed")

    db = SimpleNamespace(session=Session())
    site.run(view, login_required=lambda view: view, current_user=Player(), db=db)
    with site.app.app_context():
        registered("8", token=site.sandbox.mint())
        outbox = site.app.extensions["mmolove"].outbox
        assert outbox.of("8", False)
        site.app.test_client().post("/delete-account")
        assert done == ["deleted", "committed"]
        assert not outbox.of("8", False)
    assert "sqlite_autoincrement" in table


def test_the_page_on_the_dashboard(site: Site) -> None:
    access, find_names, _ = snippets("howto/dashboard.md")
    site.app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(site.app)

    class User(db.Model):  # type: ignore[name-defined, misc]
        id = db.Column(db.Integer, primary_key=True)
        name = db.Column(db.String(50))

    _, guard, page = access.split("\n\n\n")
    owner = SimpleNamespace(is_authenticated=True, is_owner=False)
    site.names |= {"current_user": owner, "db": db, "User": User}
    site.run(f"{guard}\n\n{find_names}\n{page.splitlines()[-1]}")
    with site.app.app_context():
        db.create_all()
        db.session.add(User(id=8, name="Ada"))
        db.session.commit()
        registered("8", token=site.sandbox.mint())
    browser = site.app.test_client()
    assert browser.get("/mmolove/events").status_code == 404
    owner.is_owner = True
    assert "Ada" in browser.get("/mmolove/events").text


def test_the_factory_on_the_page_on_databases(
    mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, factory, *_ = snippets("howto/database.md")
    for key, value in mmolove_sandbox.config.items():
        monkeypatch.setenv(f"FLASK_{key}", str(value))
    names: dict[str, t.Any] = {"Flask": Flask, "SQLAlchemy": SQLAlchemy}
    names |= {"MMOLove": MMOLove, "invitations": invitations, "__name__": __name__}
    exec(factory, names)
    app = names["create_app"]()
    with app.app_context():
        registered(1, token=mmolove_sandbox.mint())
        names["db"].session.commit()
        assert "mmolove_event" in names["db"].metadata.tables
    with app.test_request_context():
        assert "/invite/" in names["mmolove"].invite(1)
    assert mmolove_sandbox.reported == [("registered", "1")]


def test_the_consent_on_the_page_on_privacy(site: Site) -> None:
    [code] = snippets("explanation/privacy.md")
    site.run(code)
    for answer, kept in (("no", False), ("yes", True)):
        visitor = site.app.test_client()
        visitor.set_cookie("consent", answer)
        visitor.get(f"/?mmref={site.sandbox.mint()}")
        assert (visitor.get_cookie("mmolove_ref") is not None) == kept


def test_the_receiver_on_the_page_on_signals(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    [code] = snippets("reference/signals.md")
    names = {**site.names}
    exec(code, names)
    with site.app.app_context():
        registered("8", token="junk")
        registered("9", token=site.sandbox.mint())
        registered("10", token="junk")
    assert "is rejected: " in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "test_a_friend_signs_up",
        "test_who_invited_a_friend_is_rewarded",
        "test_a_signup_while_mmolove_fails",
    ],
)
def test_the_tests_on_the_page_on_testing(
    site: Site, mmolove_sandbox: SiteSandbox, name: str
) -> None:
    @site.app.route("/register", methods=["GET", "POST"])
    def register() -> t.Any:
        if flask.request.method == "GET":
            return "join"
        registered(1)
        return flask.redirect("/")

    @site.app.post("/level-up")
    def level_up() -> str:
        qualify(1)
        return "level 20"

    site.app.register_blueprint(invitations)
    site.mmolove.reward(lambda referral: None)
    *printed, _ = snippets("howto/testing.md")
    names: dict[str, t.Any] = {"pytest": pytest, "mmolove": site.mmolove}
    exec("".join(printed), names)
    parts = {
        "app": site.app,
        "client": site.app.test_client(),
        "mmolove_sandbox": mmolove_sandbox,
    }
    test = names[name]
    test(**{each: parts[each] for each in inspect.signature(test).parameters})
