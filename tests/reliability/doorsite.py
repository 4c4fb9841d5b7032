"""A site with every door that a stranger can knock at, and the sandbox beside it."""

from __future__ import annotations

import itertools
import re
import sqlite3
import typing as t
from pathlib import Path

from flask import abort
from flask import Flask
from flask import redirect
from flask import render_template
from flask import request
from flask import session
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from jinja2 import DictLoader

from flask_mmolove import IdentityError
from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import new_by_field
from flask_mmolove import new_in_json
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.sandbox import Sandbox
from flask_mmolove.state import State

from .server import SECRET
from .server import SERVER_ID

#: What the site calls its own, and what the game shows when it calls.
HOST = "site.example"
GAME_KEY = "the game"

#: Bytes that a body may have.
BODY_LIMIT = 32 * 1024

_TEMPLATES = {
    "home.html": "<p>{{ current_mmref() and 'Welcome' }} {{ current_referrer() }}</p>",
    "seal.html": "{{ sealed }}",
    # Names that the site does not define are empty here; another's must not be seen.
    "404.html": "<p>There is no such page. {{ health }}{{ word }}</p>",
}

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]+)"')


class Owner(t.NamedTuple):
    """An owner's session, and a form that was made for it.

    :param cookie: The value of the session cookie.
    :param field: The form's hidden field.
    :param token: What it holds.
    """

    cookie: str
    field: str
    token: str


class DoorSite:
    """The site, called without a network.

    It has players in every state, and holds what a visitor may have in hand: tokens,
    codes, cookies, sealed texts and the tokens of forms.

    :param folder: For its outbox.
    """

    def __init__(self, folder: Path) -> None:
        self.sandbox = Sandbox(server_id=SERVER_ID, secret=SECRET)
        self._players = itertools.count(1)
        self._names: dict[str, int] = {}
        self.sandbox.start()
        self.app = self._make_app(folder)
        self.players = [str(next(self._players)) for _ in range(24)]
        self._populate()
        self._state.make_delivery().drain()
        self.sandbox.stop()
        entries = self._state.outbox.inspector.page()
        self.ids = [entry.id for entry in entries]
        #: Those that may wait for a person, by the page that is for them.
        self.stuck = {
            "retry": [each.id for each in entries if each.state == "rejected"],
            "reward": [each.id for each in entries if each.event == "qualified"],
        }
        self.tokens = [self.sandbox.mint() for _ in range(8)]
        self._hand_out()
        self._watcher = sqlite3.connect(self._state.settings.outbox)
        self._version = 0
        self.has_changed()

    def has_changed(self) -> bool:
        """Whether anything was written to the outbox since this was asked last."""
        before = self._version
        (self._version,) = self._watcher.execute("PRAGMA data_version").fetchone()
        return self._version != before

    def close(self) -> None:
        """Let go of the files."""
        self._watcher.close()
        self.sandbox.close()
        self._state.outbox.close()

    @property
    def _state(self) -> State:
        return t.cast(State, self.app.extensions["mmolove"])

    def _make_app(self, folder: Path) -> Flask:
        app = Flask("site", instance_path=str(folder))
        app.config.update(
            self.sandbox.settings,
            SECRET_KEY="for sessions",
            MAX_CONTENT_LENGTH=BODY_LIMIT,
            MMOLOVE_OUTBOX=folder / "outbox.db",
            MMOLOVE_DELIVERY="manual",
        )
        app.jinja_loader = DictLoader(_TEMPLATES)
        self.mmolove = MMOLove(app)
        self.mmolove.reward(at_most_once=True)(self._reward)
        app.register_blueprint(invitations)
        dashboard = self.mmolove.dashboard(access=lambda: session.get("owner"))
        app.register_blueprint(dashboard, url_prefix="/mmolove")
        # As Flask-Login does for each page that greets the player.
        app.before_request(lambda: session.get("player") and None)
        app.register_error_handler(404, _not_found)
        self._add_views(app)
        return app

    def _add_views(self, app: Flask) -> None:
        app.get("/")(_home)
        app.get("/login")(_login)
        app.get("/seal")(self._seal)
        both = ["GET", "POST"]
        app.route("/register", methods=both)(referral_register(self._register))
        by_field = referral_register(player=new_by_field("name", self._names.get))
        app.route("/join", methods=both)(by_field(self._join))
        in_json = referral_register(
            player=new_in_json("id"), token=lambda: read_text("mmref")
        )
        app.post("/api/join")(in_json(self._join_by_json))
        app.route("/hold", methods=both)(self._hold)
        app.route("/confirm", methods=both)(self._confirm)
        app.route("/unseal", methods=both)(self._unseal)
        app.route("/game", methods=both)(_qualify)

    def _register(self) -> ResponseReturnValue:
        if request.method == "POST":
            registered(next(self._players))
            return redirect("/", 303)
        return "a form"

    def _join(self) -> ResponseReturnValue:
        name = request.form.get("name")
        if request.method != "POST" or not name or name in self._names:
            return "a form"
        self._names[name] = next(self._players)
        return redirect("/", 303)

    def _join_by_json(self) -> ResponseReturnValue:
        return {"id": next(self._players), "name": read_text("name")}, 201

    def _hold(self) -> ResponseReturnValue:
        key = read_text("key")
        if not isinstance(key, str) or not key:
            abort(400)
        if request.method == "POST":
            self.mmolove.hold(key)
        return "Look into your mail."

    def _confirm(self) -> ResponseReturnValue:
        key = read_text("key")
        if not isinstance(key, str) or not key:
            abort(400)
        if request.method == "POST":
            registered(next(self._players), held=key)
        return "Welcome."

    def _seal(self) -> ResponseReturnValue:
        return render_template("seal.html", sealed=self.mmolove.seal())

    def _unseal(self) -> ResponseReturnValue:
        token = self.mmolove.unseal(read_text("state"))
        if token is not None and request.method == "POST":
            registered(next(self._players), token=token)
        return "unsealed" if token else "nothing"

    def _reward(self, referral: Referral) -> None:
        if int(referral.identity) % 2:
            raise RuntimeError("The game is down.")

    def _populate(self) -> None:
        """Sign players up, half of them with a token that MMOLove refuses."""
        with self.app.app_context():
            for number, player in enumerate(self.players):
                known = number < len(self.players) / 2
                token = self.sandbox.mint() if known else f"unknown-{number}"
                registered(player, token=token)
                if known and number % 4 < 2:
                    qualify(player)

    def _hand_out(self) -> None:
        """Fill a visitor's hands."""
        with self.app.test_request_context("/", base_url=f"http://{HOST}"):
            names = [*self.players[:6], "a b", "ä/ö", "<script>x"]
            links = [self.mmolove.invite(name, external=False) for name in names]
        self.codes = [link.rpartition("/")[2] for link in links]
        self.sealed: list[str] = []
        self.cookies: list[str] = []
        for token, code in zip(self.tokens, self.codes, strict=False):
            visitor = self.app.test_client()
            self._collect(visitor.get(f"/invite/{code}").headers.getlist("Set-Cookie"))
            arrival = visitor.get(f"/?mmref={token}")
            self._collect(arrival.headers.getlist("Set-Cookie"))
            self.sealed.append(visitor.get("/seal").text)
        self.owners = [self._log_in_owner() for _ in range(3)]
        player = self.app.test_client()
        player.get("/login")
        self._collect([f"session={_session(player)}"])

    def _collect(self, cookies: list[str]) -> None:
        for cookie in cookies:
            value = cookie.partition(";")[0]
            if not value.endswith("="):  # a deleted one
                self.cookies.append(value)

    def _log_in_owner(self) -> Owner:
        client = self.app.test_client()
        client.get("/login?owner=1")
        found = _HIDDEN.search(client.get("/mmolove/retry").text)
        if found is None:
            raise RuntimeError("The dashboard shows no form.")
        return Owner(_session(client), found[1], found[2])


def read_text(name: str) -> t.Any:
    """What a visitor wrote, in a form, a query or JSON, where it may be anything."""
    content = request.get_json(silent=True)
    if isinstance(content, dict):
        return content.get(name)
    try:
        return request.values.get(name)
    except UnicodeDecodeError:  # Werkzeug does not bear raw bytes in a query
        abort(400)


def _home() -> ResponseReturnValue:
    return render_template("home.html")


def _login() -> ResponseReturnValue:
    session["player"] = 1
    session["owner"] = request.args.get("owner") == "1"
    return "logged in"


def _qualify() -> ResponseReturnValue:
    if request.headers.get("X-Game-Key") != GAME_KEY:
        abort(403)
    player = read_text("player")
    if request.method != "POST" or not isinstance(player, str):
        abort(400)
    try:
        referral = qualify(player)
    except IdentityError:
        abort(400)
    return {"state": referral and referral.state}


def _not_found(error: Exception) -> ResponseReturnValue:
    return render_template("404.html"), 404


def _session(client: FlaskClient) -> str:
    cookie = client.get_cookie("session")
    if cookie is None:
        raise RuntimeError("The site has no session.")
    return cookie.value
