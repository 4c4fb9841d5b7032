"""Flask-Dance against a provider on this machine: the account is born in a callback."""

from __future__ import annotations

import json
import threading
import typing as t
from types import SimpleNamespace
from urllib.parse import urlencode

import flask
import pytest
import requests
from flask import Flask
from flask import jsonify
from flask import redirect
from flask import request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from werkzeug.serving import make_server

from tests.signups.conftest import need
from tests.signups.conftest import Plug
from tests.signups.conftest import snippets


def make_provider() -> Flask:
    """What every provider does: a page that leads back with a code, and two answers."""
    provider = Flask("provider")

    @provider.get("/authorize")
    def authorize() -> ResponseReturnValue:
        answer = {"state": request.args["state"], "code": "c"}
        if provider.config.get("DENIES"):
            answer = {"state": request.args["state"], "error": "access_denied"}
        return redirect(f"{request.args['redirect_uri']}?{urlencode(answer)}")

    @provider.post("/token")
    def token() -> ResponseReturnValue:
        return jsonify(access_token="t", token_type="Bearer")

    @provider.get("/me")
    def me() -> ResponseReturnValue:
        return jsonify(name="anna")

    return provider


@pytest.fixture
def provider() -> t.Iterator[SimpleNamespace]:
    app = make_provider()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SimpleNamespace(app=app, url=f"http://127.0.0.1:{server.port}")
    server.shutdown()
    thread.join()
    server.server_close()


class Site:
    """A site whose players come by the provider."""

    def __init__(self, plug: Plug, url: str) -> None:
        need("flask_dance")
        from flask_dance.consumer import OAuth2ConsumerBlueprint

        self.players: dict[str, SimpleNamespace] = {}
        self.fails = False
        self.app = app = Flask(__name__)
        app.config.update(TESTING=True, SECRET_KEY="k", PROPAGATE_EXCEPTIONS=False)
        blueprint = OAuth2ConsumerBlueprint(
            "provider",
            __name__,
            client_id="id",
            client_secret="secret",
            base_url=url,
            authorization_url=f"{url}/authorize",
            token_url=f"{url}/token",
        )
        app.register_blueprint(blueprint, url_prefix="/login")
        code, self.elsewhere = snippets("social")
        self.names = plug.run(
            app,
            code,
            find_player=self.players.get,
            create_player=self._create,
            db=SimpleNamespace(session=self),
            login_user=lambda player: None,
        )

    def _create(self, name: str) -> SimpleNamespace:
        self.players[name] = SimpleNamespace(id=7)
        return self.players[name]

    def commit(self) -> None:
        if self.fails:
            self.players.clear()
            raise OSError("the disk is full")

    def log_in(self, client: FlaskClient) -> int:
        """Through the provider and back; the status of the callback."""
        to_provider = client.get("/login/provider").location
        back = requests.get(to_provider, allow_redirects=False, timeout=5)
        return client.get(back.headers["Location"]).status_code


@pytest.fixture
def site(
    plug: Plug, provider: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Site:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    return Site(plug, provider.url)


def test_who_comes_for_the_first_time_is_reported(site: Site, plug: Plug) -> None:
    assert site.log_in(plug.visit(site.app)) == 302
    assert plug.reported == [("registered", "7")]
    assert plug.accepted == ["7"]


def test_who_comes_again_is_not(site: Site, plug: Plug) -> None:
    site.log_in(site.app.test_client())
    site.log_in(plug.visit(site.app))
    assert plug.sandbox.sandbox.arrivals == []


def test_who_is_denied_is_not(
    site: Site, plug: Plug, provider: SimpleNamespace
) -> None:
    provider.app.config["DENIES"] = True
    friend = plug.visit(site.app)
    site.log_in(friend)
    assert plug.sandbox.sandbox.arrivals == []
    provider.app.config["DENIES"] = False
    site.log_in(friend)
    assert plug.reported == [("registered", "7")]


def test_an_account_whose_commit_fails_is_not(site: Site, plug: Plug) -> None:
    friend = plug.visit(site.app)
    site.fails = True
    assert site.log_in(friend) == 500
    assert plug.sandbox.sandbox.arrivals == []
    site.fails = False
    site.log_in(friend)
    assert plug.reported == [("registered", "7")]


def test_a_sealed_token_comes_back_in_another_browser(site: Site, plug: Plug) -> None:
    names = {
        **site.names,
        "json": json,
        "urlencode": urlencode,
        "request": flask.request,
        "redirect": redirect,
        "remember_nonce": lambda: "n",
        "check_nonce": lambda nonce: None,
    }
    exec(site.elsewhere, names)
    # From here on the browsers are new ones.
    to_provider = plug.visit(site.app).get("/login/elsewhere").location
    state = requests.utils.urlparse(to_provider).query  # type: ignore[attr-defined]
    site.app.test_client().get(f"/login/elsewhere/callback?{state}&code=anna")
    assert plug.reported == [("registered", "7")]
