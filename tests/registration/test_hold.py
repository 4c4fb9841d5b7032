"""Accounts that come into being later, or in another browser."""

from __future__ import annotations

import contextlib
import random
import typing as t
import uuid

import pytest
from flask import Flask
from flask import redirect
from flask import request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from itsdangerous import URLSafeTimedSerializer

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.capture.referrer import remember
from flask_mmolove.capture.referrer import remembered
from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.registration.hold import hashed
from flask_mmolove.testing import SiteSandbox
from tests.conftest import Hold
from tests.conftest import MakeApp

pytestmark = pytest.mark.usefixtures("impatient")

SEVEN = [("registered", "7")]


class Site:
    """A site whose signup is a form and, later, a link in a mail."""

    def __init__(self, app: Flask) -> None:
        mmolove = MMOLove()
        self.app = app
        self.sealed: list[str | None] = []

        @app.post("/form/<key>")
        def form(key: str) -> str:
            mmolove.hold(key)
            self.sealed.append(mmolove.seal())
            return "look into your mail"

        @app.post("/api/<key>")
        def api(key: str) -> str:
            token = request.headers.get("X-MMRef")
            mmolove.hold(key, token=token)
            self.sealed.append(mmolove.seal(token=token))
            return "look into your mail"

        @app.get("/activate/<key>/<id>")
        def activate(key: str, id: str) -> str:
            registered(id, held=key)
            return "welcome"

        @app.get("/confirm/<key>/<id>")
        @referral_register
        def confirm(key: str, id: str) -> ResponseReturnValue:
            registered(id, held=key)
            return ("no", 409) if id == "0" else redirect("/")

        @app.get("/callback/<id>")
        def callback(id: str) -> str:
            registered(id, token=mmolove.unseal(request.args.get("state")))
            return "welcome"

        @app.post("/hidden/<id>")
        @referral_register(
            player=lambda response: request.view_args and request.view_args["id"],
            token=lambda: mmolove.unseal(request.form.get("mmolove")),
        )
        def hidden(id: str) -> str:
            return "welcome"

    def visit(self, token: str) -> FlaskClient:
        client = self.app.test_client()
        client.get(f"/?mmref={token}")
        return client


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


@pytest.fixture
def token(mmolove_sandbox: SiteSandbox) -> str:
    return mmolove_sandbox.mint()


# -- a token that is held --------------------------------------------------------------


@pytest.mark.parametrize("page", ["activate", "confirm"])
def test_an_account_that_is_activated_on_another_device_is_reported(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, page: str
) -> None:
    site.visit(token).post("/form/anna")
    assert mmolove_sandbox.reported == []
    site.app.test_client().get(f"/{page}/anna/7")
    assert mmolove_sandbox.reported == SEVEN


@pytest.mark.parametrize("page", ["activate", "confirm"])
def test_a_token_that_was_taken_is_gone(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, page: str
) -> None:
    client = site.visit(token)
    client.post("/form/anna")
    client.get(f"/{page}/anna/7")
    client.get(f"/{page}/anna/8")
    assert mmolove_sandbox.reported == SEVEN
    client.post("/form/ben")  # and the visitor's browser forgot it too
    client.get(f"/{page}/ben/9")
    assert mmolove_sandbox.reported == SEVEN


def test_an_activation_that_fails_can_be_tried_again(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    device = site.app.test_client()
    assert device.get("/confirm/anna/0").status_code == 409
    assert mmolove_sandbox.reported == []
    device.get("/confirm/anna/7")
    assert mmolove_sandbox.reported == SEVEN


@pytest.mark.parametrize("page", ["activate", "confirm"])
def test_who_activates_for_somebody_else_lends_them_no_token(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, page: str
) -> None:
    site.app.test_client().post("/form/anna")  # Anna came without a token
    site.visit(token).get(f"/{page}/anna/7")
    assert mmolove_sandbox.sandbox.arrivals == []


def test_a_device_that_came_by_another_link_keeps_its_own_token(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    device = site.visit(mmolove_sandbox.mint("another"))
    device.get("/activate/anna/7")
    [event] = mmolove_sandbox.sandbox.events
    assert event.token == token
    device.post("/form/ben")
    device.get("/activate/ben/8")
    assert mmolove_sandbox.reported == [*SEVEN, ("registered", "8")]


@pytest.mark.parametrize("carries", ["another token", "none"])
@pytest.mark.parametrize("where", ["outbox", "spool"])
def test_a_later_visitor_who_knows_the_key_changes_nothing(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, carries: str, where: str
) -> None:
    with Hold(site.app) if where == "spool" else contextlib.nullcontext():
        site.visit(token).post("/form/anna")
    later = site.app.test_client()
    if carries != "none":
        later = site.visit(mmolove_sandbox.mint("another"))
    later.post("/form/anna")
    site.app.extensions["mmolove"].make_delivery().drain()
    later.post("/form/anna")
    site.app.test_client().get("/activate/anna/7")
    assert [event.token for event in mmolove_sandbox.sandbox.events] == [token]


def test_a_later_visitor_changes_nothing_by_way_of_the_spool(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    later = site.visit(mmolove_sandbox.mint("another"))
    with Hold(site.app):
        later.post("/form/anna")
    state = site.app.extensions["mmolove"]
    assert len(state.spool.read()) == 1
    state.make_delivery().drain()
    site.app.test_client().get("/activate/anna/7")
    assert [event.token for event in mmolove_sandbox.sandbox.events] == [token]


@pytest.mark.parametrize("imported", [False, True])
def test_of_two_in_the_spool_the_first_is_taken(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, imported: bool
) -> None:
    """Two machines may each spool one, and only the files' order tells."""
    state = site.app.extensions["mmolove"]
    for each in (token, mmolove_sandbox.mint("another")):
        report = state.recorder.report("", Invitation(each))._replace(
            held=hashed("anna")
        )
        state.spool.write(report)
    if imported:
        state.make_delivery().drain()
    site.app.test_client().get("/activate/anna/7")
    assert [event.token for event in mmolove_sandbox.sandbox.events] == [token]


def test_keys_are_kept_as_hashes(site: Site, token: str) -> None:
    site.visit(token).post("/form/anna@example.org")
    path = site.app.extensions["mmolove"].outbox._db.path
    assert b"anna@" not in path.read_bytes()


def test_a_held_token_survives_that_its_file_is_deleted(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    site.visit(mmolove_sandbox.mint())
    site.app.extensions["mmolove"].outbox._db.path.unlink()
    site.visit(mmolove_sandbox.mint()).post("/form/ben")
    site.app.extensions["mmolove"].make_delivery().drain()
    site.app.test_client().get("/activate/anna/7")
    assert mmolove_sandbox.reported == SEVEN


def test_one_of_a_deleted_file_was_the_first(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    state = site.app.extensions["mmolove"]
    state.outbox._db.path.unlink()
    site.visit(mmolove_sandbox.mint("another")).post("/form/anna")
    state.make_delivery().drain()
    site.app.test_client().get("/activate/anna/7")
    assert [event.token for event in mmolove_sandbox.sandbox.events] == [token]


def test_an_activation_while_the_outbox_is_busy_is_reported_later(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    state = site.app.extensions["mmolove"]
    with Hold(site.app):
        assert site.app.test_client().get("/activate/anna/7").text == "welcome"
    assert mmolove_sandbox.reported == []
    state.make_delivery().drain()
    assert mmolove_sandbox.reported == SEVEN
    site.app.test_client().get("/activate/anna/8")
    assert mmolove_sandbox.reported == SEVEN


@pytest.mark.parametrize("imported", [False, True])
def test_a_token_that_the_outbox_cannot_take_is_held_all_the_same(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, imported: bool
) -> None:
    state = site.app.extensions["mmolove"]
    with Hold(site.app):
        assert site.visit(token).post("/form/anna").status_code == 200
    if imported:
        state.make_delivery().drain()
    assert site.app.test_client().get("/activate/anna/7").text == "welcome"
    state.make_delivery().drain()
    assert mmolove_sandbox.reported == SEVEN


@pytest.mark.parametrize("key", [None, "", True, 1.5, b"anna@example.org", object()])
def test_a_key_that_is_none_breaks_nothing_and_is_told(
    app: Flask, token: str, key: t.Any, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/form")
    def form() -> str:
        MMOLove().hold(key)
        return "welcome"

    assert app.test_client().post(f"/form?mmref={token}").text == "welcome"
    assert "db.session.flush()" in caplog.text
    assert "Traceback" not in caplog.text
    assert "anna" not in caplog.text


@pytest.mark.parametrize("key", ["\ud800", "a\0b", "ä" * 100_000, 10**400, -1])
def test_whatever_is_a_text_or_a_number_is_a_key(
    app: Flask, token: str, key: t.Any, mmolove_sandbox: SiteSandbox
) -> None:
    with app.test_request_context(f"/?mmref={token}"):
        app.preprocess_request()
        MMOLove().hold(key)
    with app.test_request_context():
        registered("7", held=key)
    assert mmolove_sandbox.reported == SEVEN


def test_a_number_that_cannot_be_written_out_is_told_in_a_line(
    app: Flask, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with app.test_request_context():
        MMOLove().hold(10**10_000)
        registered("7", held=10**10_000)
    assert "is no key" in caplog.text
    assert "Traceback" not in caplog.text


def test_where_it_is_switched_off_nothing_is_held_or_sealed(
    make_app: MakeApp, token: str
) -> None:
    site = Site(make_app(ENABLED=False))
    client = site.visit(token)
    assert client.post("/form/anna").status_code == 200
    assert client.get("/activate/anna/7").text == "welcome"
    client.post("/api/ben", headers={"X-MMRef": token})
    assert client.get("/activate/ben/7").text == "welcome"
    assert site.sealed == [None, None]


# -- a token that came in a header -----------------------------------------------------


@pytest.mark.parametrize("carries", ["another token", "none"])
@pytest.mark.parametrize("way", ["held", "sealed"])
def test_a_token_in_a_header_goes_before_the_visitors_own(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, way: str, carries: str
) -> None:
    client = site.app.test_client()
    if carries != "none":
        client = site.visit(mmolove_sandbox.mint("another"))
    client.post("/api/anna", headers={"X-MMRef": token})
    device = site.app.test_client()
    if way == "held":
        device.get("/activate/anna/7")
    else:
        device.get("/callback/7", query_string={"state": site.sealed[0]})
    assert [event.token for event in mmolove_sandbox.sandbox.events] == [token]


@pytest.mark.parametrize("header", [None, "", "two words", "x" * 1025])
def test_where_no_token_came_in_the_header_the_visitors_own_is_taken(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, header: str | None
) -> None:
    headers = {} if header is None else {"X-MMRef": header}
    site.visit(token).post("/api/anna", headers=headers)
    site.app.test_client().post("/api/ben", headers=headers)
    assert site.sealed[1] is None
    for key, id in (("anna", 7), ("ben", 8)):
        site.app.test_client().get(f"/activate/{key}/{id}")
    assert mmolove_sandbox.reported == SEVEN


# -- a token that is sealed ------------------------------------------------------------


def test_a_sealed_token_comes_back_in_another_browser(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    [sealed] = site.sealed
    site.app.test_client().get("/callback/7", query_string={"state": sealed})
    assert mmolove_sandbox.reported == SEVEN


def test_a_sealed_token_in_a_hidden_field_serves_a_decorated_view(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    client = site.app.test_client()
    client.post("/hidden/8", data={"mmolove": "junk"})
    client.post("/hidden/9")
    assert mmolove_sandbox.reported == []
    client.post("/hidden/7", data={"mmolove": site.sealed[0]})
    assert mmolove_sandbox.reported == SEVEN


def test_a_visitor_without_a_token_has_nothing_to_seal(site: Site) -> None:
    site.app.test_client().post("/form/anna")
    assert site.sealed == [None]


@pytest.mark.parametrize(
    "change", [lambda text: text[:-2], lambda text: "", lambda text: "x" + text]
)
def test_what_we_did_not_seal_is_not_believed(
    site: Site,
    token: str,
    mmolove_sandbox: SiteSandbox,
    change: t.Callable[[str], str],
) -> None:
    site.visit(token).post("/form/anna")
    sealed = site.sealed[0]
    assert sealed is not None
    client = site.app.test_client()
    client.get("/callback/7", query_string={"state": change(sealed)})
    assert mmolove_sandbox.reported == []


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "\ud800", "\udcff.a.b", "ä.b.c", "\0", "a.b.c", "…" * 9_000),
        *("x" * 10_000_000, ".".join("abc" * 5_000), b"a.b.c", bytearray(b"a.b")),
        *(0, 1.5, float("nan"), True, 10**10_000, [], ["a.b.c"], {"a": "b"}, object()),
    ],
    ids=lambda text: type(text).__name__,
)
def test_what_is_no_sealed_text_is_nobody_and_no_trouble(
    app: Flask, text: t.Any, caplog: pytest.LogCaptureFixture
) -> None:
    with app.test_request_context():
        assert MMOLove().unseal(text) is None
    assert not caplog.records


def test_the_longest_token_and_inviter_can_be_sealed(app: Flask) -> None:
    letters = random.Random(7)
    token = "".join(chr(letters.randrange(0x21, 0x7F)) for _ in range(1024))
    referrer = "".join(chr(letters.randrange(0x10000, 0x1FFFF)) for _ in range(255))
    with app.test_request_context():
        remember(token, referrer)
        request.environ["flask_mmolove.token"] = token
        sealed = MMOLove().seal()
    with app.test_request_context():
        assert MMOLove().unseal(sealed) == token
        assert remembered(token) == referrer


@pytest.mark.parametrize(
    ("key", "server_id"), [("another", "demo-server"), ("not a secret", "another")]
)
def test_a_seal_of_another_site_is_not_believed(
    site: Site,
    make_app: MakeApp,
    token: str,
    mmolove_sandbox: SiteSandbox,
    key: str,
    server_id: str,
) -> None:
    other = make_app(SERVER_ID=server_id)
    other.config["SECRET_KEY"] = key
    elsewhere = Site(other)
    elsewhere.visit(token).post("/form/anna")
    query = {"state": elsewhere.sealed[0]}
    site.app.test_client().get("/callback/7", query_string=query)
    assert mmolove_sandbox.reported == []


def test_a_seal_of_an_earlier_version_is_good(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    key = site.app.config["SECRET_KEY"]
    sealed = URLSafeTimedSerializer(key, salt="flask-mmolove.seal").dumps(token)
    site.app.test_client().get("/callback/7", query_string={"state": sealed})
    assert mmolove_sandbox.reported == SEVEN


def test_a_seal_ends_with_its_token(
    site: Site, token: str, mmolove_sandbox: SiteSandbox, monkeypatch: t.Any
) -> None:
    site.visit(token).post("/form/anna")
    monkeypatch.setattr("flask_mmolove.capture.seal.TOKEN_LIFETIME", -1)
    query = {"state": site.sealed[0]}
    site.app.test_client().get("/callback/7", query_string=query)
    assert mmolove_sandbox.reported == []


def test_a_key_that_was_replaced_still_opens_its_seals(
    site: Site, token: str, mmolove_sandbox: SiteSandbox
) -> None:
    site.visit(token).post("/form/anna")
    site.app.config["SECRET_KEY_FALLBACKS"] = [site.app.config["SECRET_KEY"]]
    site.app.config["SECRET_KEY"] = "the new one"
    query = {"state": site.sealed[0]}
    site.app.test_client().get("/callback/7", query_string=query)
    assert mmolove_sandbox.reported == SEVEN


def test_without_a_secret_key_nothing_is_sealed_and_it_is_told(
    app: Flask, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["SECRET_KEY"] = None
    sealed: list[str | None] = []

    @app.get("/form")
    def form() -> str:
        sealed.append(MMOLove().seal())
        return "welcome"

    assert app.test_client().get(f"/form?mmref={token}").text == "welcome"
    assert sealed == [None]
    assert "app.config['SECRET_KEY']" in caplog.text


def test_a_uuid_is_a_key(app: Flask, client: FlaskClient, token: str) -> None:
    key = uuid.UUID(int=7)
    with app.test_request_context(f"/?mmref={token}"):
        app.preprocess_request()
        MMOLove().hold(key)
    with app.app_context():
        registered(7, held=key)
    with app.app_context():
        assert qualify(7)
