"""A visitor comes with ``?mmref=``: what is kept, for whom, and what is left alone."""

from __future__ import annotations

import itertools
import logging
import random
import string
import time
import typing as t
from http.cookies import SimpleCookie
from urllib.parse import quote

import pytest
from flask import after_this_request
from flask import Flask
from flask import redirect
from flask import render_template_string
from flask import Request
from flask import Response
from flask import session
from flask.sessions import SecureCookieSession
from flask.sessions import SecureCookieSessionInterface
from flask.sessions import SessionInterface
from flask.sessions import SessionMixin
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from itsdangerous import TimestampSigner
from itsdangerous import URLSafeTimedSerializer
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response as BaseResponse

from flask_mmolove import current_mmref
from flask_mmolove import MMOLove
from flask_mmolove import MMOLoveError
from flask_mmolove import referral_captured
from flask_mmolove.capture import cookies as signed
from flask_mmolove.capture.hook import COOKIE
from flask_mmolove.capture.hook import forget
from flask_mmolove.outbox import Invitation
from tests.conftest import MakeApp

TOKEN = "tok.first-1"
OTHER = "tok.other-2"
SALT = "flask-mmolove.token.demo-server"
EVERYWHERE = {"SameSite=None", "Secure", "HttpOnly", "Path=/"}
NINETY_DAYS = 90 * 24 * 60 * 60

#: Values that are no token, as they stand in a query.
JUNK = {
    "empty": "",
    "10 KB": "x" * 10_240,
    "one too long": "x" * 1025,
    "a space": "a%20b",
    "a plus": "a+b",
    "a line break": "a%0d%0aSet-Cookie:%20evil=1",
    "a NUL": "a%00b",
    "an escape": "%1b[2J",
    "a DEL": "a%7f",
    "an umlaut": "%C3%A4",
    "an emoji": "%F0%9F%90%89",
    "1 MB": "x" * 1_000_000,
}


def add_pages(app: Flask) -> None:
    """The pages of a small site; ``/who`` tells the visitor's token."""

    @app.get("/")
    def index() -> ResponseReturnValue:
        return "a page"

    @app.get("/who")
    def who() -> ResponseReturnValue:
        return current_mmref() or "nobody"

    @app.get("/visits")
    def visits() -> ResponseReturnValue:
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    @app.get("/session")
    def show() -> ResponseReturnValue:
        return str(session.get("mmref"))

    @app.get("/login")
    def login() -> ResponseReturnValue:
        session.clear()
        session["user"] = "anna"
        return redirect("/")

    @app.post("/leave")
    def leave() -> ResponseReturnValue:
        after_this_request(forget)
        return "gone"


@pytest.fixture
def make_site(make_app: MakeApp) -> MakeApp:
    def make(mmolove: MMOLove | None = None, **settings: t.Any) -> Flask:
        app = make_app(mmolove, **settings)
        add_pages(app)
        return app

    return make


@pytest.fixture
def app(make_site: MakeApp) -> Flask:
    return make_site()


def token_of(client: FlaskClient) -> str:
    return client.get("/who").text


def send(app: Flask, cookies: str) -> TestResponse:
    """Ask for the token with a ``Cookie`` header, byte for byte."""
    # A client that keeps cookies of its own would replace the header.
    client = Client(app, use_cookies=False)
    return client.get("/who", headers={"Cookie": cookies})


def cookies_of(response: TestResponse) -> dict[str, str]:
    """The ``Set-Cookie`` headers by name."""
    headers = response.headers.getlist("Set-Cookie")
    return {header.partition("=")[0]: header for header in headers}


def is_untouched(response: TestResponse) -> bool:
    caching = response.headers.get("Cache-Control", "")
    return not (
        cookies_of(response) or "Vary" in response.headers or "private" in caching
    )


def sign(token: t.Any, secret: str = "not a secret", salt: str = SALT) -> str:
    return str(URLSafeTimedSerializer(secret, salt=salt).dumps(token))


# -- a visitor with a token ------------------------------------------------------------


def test_a_token_is_there_in_its_own_request_and_in_the_next(
    client: FlaskClient,
) -> None:
    assert client.get(f"/who?mmref={TOKEN}").text == TOKEN
    assert token_of(client) == TOKEN
    assert client.get("/session").text == "None"


def test_templates_can_ask_for_the_token(app: Flask, client: FlaskClient) -> None:
    @app.get("/page")
    def page() -> str:
        return render_template_string("{{ current_mmref() }}")

    assert client.get(f"/page?mmref={TOKEN}").text == TOKEN


def test_the_token_goes_into_a_cookie_of_the_sites_own(client: FlaskClient) -> None:
    header = cookies_of(client.get(f"/?mmref={TOKEN}"))[COOKIE]
    morsel = SimpleCookie(header)[COOKIE]
    assert morsel["httponly"]
    assert morsel["samesite"] == "Lax"
    assert morsel["max-age"] == str(NINETY_DAYS)
    assert morsel["path"] == "/"
    assert not morsel["secure"]
    assert not morsel["domain"]
    assert TOKEN not in header  # it is signed, and encoded for its journey


@pytest.mark.parametrize(
    "path", [f"/nowhere?mmref={TOKEN}", f"/?a=%ff&mmref={TOKEN}&b", f"/?mmref={TOKEN}&"]
)
def test_a_token_is_captured_wherever_it_arrives(
    client: FlaskClient, path: str
) -> None:
    client.get(path)
    assert token_of(client) == TOKEN


@pytest.mark.parametrize(
    "query",
    [
        f"mmref={TOKEN}%20",
        f"mmref=%20{TOKEN}",
        f"mmref={TOKEN}+",
        f"mmref={TOKEN}%0A",
        f"mmref=%0d%0a%09{TOKEN}%0d%0a",
        f"mmref={TOKEN}%C2%A0",
        f"mmref=%E2%80%8B{TOKEN}%EF%BB%BF%20",
        f"a=1&amp;mmref={TOKEN}",
        f"a=1&amp;amp;mmref={TOKEN}%20",
        f"mmref=&mmref=a%20b&mmref={TOKEN}",
    ],
)
def test_a_token_survives_how_it_was_copied(client: FlaskClient, query: str) -> None:
    assert client.get(f"/who?{query}").text == TOKEN
    assert token_of(client) == TOKEN


@pytest.mark.parametrize("query", [f"xmmref={TOKEN}", f"a=mmref={TOKEN}", "mmref=%20"])
def test_another_parameter_is_no_token(client: FlaskClient, query: str) -> None:
    assert client.get(f"/who?{query}").text == "nobody"


def test_a_token_that_arrives_by_post_or_head_is_captured(client: FlaskClient) -> None:
    client.head(f"/?mmref={TOKEN}")
    assert token_of(client) == TOKEN
    client.post(f"/leave?mmref={OTHER}")
    assert client.get(f"/who?mmref={TOKEN}").text == TOKEN


def test_the_first_of_two_in_one_address_counts(client: FlaskClient) -> None:
    client.get(f"/?mmref={TOKEN}&mmref={OTHER}")
    assert token_of(client) == TOKEN


@pytest.mark.parametrize("length", [1, 1024])
def test_a_token_may_have_1_to_1024_characters(
    client: FlaskClient, length: int
) -> None:
    # Of characters that no compression makes shorter.
    visible = [chr(code) for code in range(0x21, 0x7F)]
    token = "".join(random.Random(length).choices(visible, k=length))
    response = client.get(f"/who?mmref={quote(token, safe='')}")
    assert response.text == token
    assert all(len(header) < 4000 for header in cookies_of(response).values())
    assert token_of(client) == token


def test_a_token_outlives_the_browsers_session(client: FlaskClient) -> None:
    client.get(f"/?mmref={TOKEN}")
    client.delete_cookie("session")
    assert token_of(client) == TOKEN


def test_a_login_that_clears_the_session_does_not_lose_the_token(
    client: FlaskClient,
) -> None:
    client.get(f"/?mmref={TOKEN}")
    client.get("/login")
    assert client.get("/session").text == "None"
    assert token_of(client) == TOKEN


def test_a_login_wall_that_was_there_before_does_not_lose_the_token(
    make_site: MakeApp, mmolove_sandbox: t.Any, tmp_path: t.Any
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(mmolove_sandbox.config, SECRET_KEY="not a secret")

    @app.before_request
    def wall() -> ResponseReturnValue | None:
        return None if "user" in session else ("log in first", 401)

    MMOLove(app)
    add_pages(app)
    client = app.test_client()
    assert client.get(f"/?mmref={TOKEN}").status_code == 401
    with client.session_transaction() as kept:
        kept["user"] = "anna"
    assert token_of(client) == TOKEN


def test_a_redirect_for_a_missing_slash_does_not_lose_the_token(
    app: Flask, client: FlaskClient
) -> None:
    @app.get("/join/")
    def join() -> str:
        return current_mmref() or "nobody"

    response = client.get(f"/join?mmref={TOKEN}", follow_redirects=True)
    assert response.history
    assert response.text == TOKEN


def test_a_capture_is_told_of_once(app: Flask, client: FlaskClient) -> None:
    told: list[tuple[object, str]] = []

    def listen(sender: object, token: str, **extra: t.Any) -> None:
        told.append((sender, token))

    with referral_captured.connected_to(listen):
        for _ in range(3):
            client.get(f"/?mmref={TOKEN}")
    assert told == [(app, TOKEN)]


def test_a_listener_that_raises_costs_neither_the_page_nor_the_token(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(sender: object, **extra: t.Any) -> None:
        raise RuntimeError("no")

    with referral_captured.connected_to(listen):
        assert client.get(f"/?mmref={TOKEN}").status_code == 200
    assert token_of(client) == TOKEN
    assert "referral-captured" in caplog.text


# -- which token counts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribution", "counts"), [("last-touch", OTHER), ("first-touch", TOKEN)]
)
def test_of_two_links_the_one_that_the_site_chose_counts(
    make_site: MakeApp, attribution: str, counts: str
) -> None:
    client = make_site(ATTRIBUTION=attribution).test_client()
    client.get(f"/?mmref={TOKEN}")
    assert client.get(f"/who?mmref={OTHER}").text == counts
    client.delete_cookie("session")
    assert token_of(client) == counts


@pytest.mark.parametrize("attribution", ["last-touch", "first-touch"])
def test_junk_never_wipes_a_good_token(make_site: MakeApp, attribution: str) -> None:
    client = make_site(ATTRIBUTION=attribution).test_client()
    client.get(f"/?mmref={TOKEN}")
    for value in JUNK.values():
        assert client.get(f"/who?mmref={value}").text == TOKEN


def test_the_same_link_again_writes_nothing(client: FlaskClient) -> None:
    client.get(f"/?mmref={TOKEN}")
    assert not cookies_of(client.get(f"/?mmref={TOKEN}"))


# -- requests that are none of our business --------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/visits", "/login", "/nowhere", "/?ref=mmref", "/?xmmref=1", "/?mmref="],
)
@pytest.mark.parametrize("cookie", [None, "a=b", "xmmref=1", "mmref=", "session=junk"])
def test_an_unrelated_request_is_answered_byte_for_byte_as_without_us(
    app: Flask, monkeypatch: pytest.MonkeyPatch, path: str, cookie: str | None
) -> None:
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: 1733500000)
    bare = Flask(__name__)
    bare.config["SECRET_KEY"] = "not a secret"
    add_pages(bare)
    headers = {"Cookie": cookie} if cookie else {}
    ours, theirs = (
        Client(site, use_cookies=False).get(path, headers=headers)
        for site in (app, bare)
    )
    assert ours.status == theirs.status
    assert ours.data == theirs.data
    assert list(ours.headers) == list(theirs.headers)


def test_a_visitor_who_has_a_token_gets_plain_pages_as_without_us(
    client: FlaskClient,
) -> None:
    client.get(f"/?mmref={TOKEN}")
    assert is_untouched(client.get("/"))


def test_static_files_carry_no_cookie(app: Flask, tmp_path: t.Any) -> None:
    (tmp_path / "x.css").write_text("a {}")
    app.static_folder = str(tmp_path)
    client = app.test_client()
    client.set_cookie("mmref", TOKEN)
    for path in (f"/static/x.css?mmref={OTHER}", "/static/x.css"):
        response = client.get(path)
        assert response.data == b"a {}"
        assert is_untouched(response)
        response.close()
    client.delete_cookie("mmref")
    assert token_of(client) == "nobody"


# -- junk ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", JUNK.values(), ids=JUNK)
def test_what_is_no_token_is_ignored(client: FlaskClient, value: str) -> None:
    response = client.get(f"/?mmref={value}")
    assert response.status_code == 200
    assert not cookies_of(response)
    assert token_of(client) == "nobody"


def test_junk_is_warned_of_now_and_then_and_never_quoted(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        client.get("/?mmref=" + "evil%0a" * 500)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "2500 characters" in record.getMessage()
    assert "evil" not in record.getMessage()


@pytest.mark.parametrize(
    "cookie",
    [
        "mmref=",
        "mmref=a b",
        "mmref=" + "x" * 1025,
        'mmref="a\\012b"',
        "mmref=\xff\xfe",
        "mmref",
        ";;;mmref=;=;",
        f"{COOKIE}=",
        f"{COOKIE}=junk",
        f"{COOKIE}=a.b.c",
        f"{COOKIE}={'x' * 3000}",
        f"{COOKIE}=.eJw.x.y",
        f"{COOKIE}=\xff",
        f"{COOKIE}=\xed\xa0\x80.a.b",
        f"{COOKIE}={'x.' * 30_000}",
        f"{COOKIE}=...............",
        f"session=junk; {COOKIE}=junk; mmref=a\x7f",
    ],
)
def test_a_junk_cookie_is_never_an_error(app: Flask, cookie: str) -> None:
    response = send(app, cookie)
    assert (response.status_code, response.text) == (200, "nobody")


@pytest.mark.parametrize(
    "kept", [7, None, "", "a b", "x" * 1025, ["t"], {"t": 1}, True]
)
def test_junk_in_the_session_is_no_token_and_gives_way_to_one(
    client: FlaskClient, kept: object
) -> None:
    with client.session_transaction() as stored:
        stored["mmref"] = kept
    assert token_of(client) == "nobody"
    assert client.get(f"/who?mmref={TOKEN}").text == TOKEN


# -- our cookie ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        sign(TOKEN, secret="of another site"),
        sign(TOKEN, salt="cookie-session"),
        sign(TOKEN, salt="flask-mmolove.token.another-server"),
        sign(TOKEN, salt="flask-mmolove.seal"),
        sign(TOKEN)[:-1],
        "x" + sign(TOKEN),
        sign(["t"]),
        sign({"mmref": TOKEN}),
        sign("a b"),
        sign("x" * 1025),
        TOKEN,
    ],
    ids=[
        "another site's",
        "another salt",
        "another server's",
        "sealed",
        "cut",
        "changed",
        "a list",
        "a dict",
        "a space",
        "too long",
        "not signed",
    ],
)
def test_a_cookie_that_we_did_not_sign_is_not_believed(
    client: FlaskClient, value: str
) -> None:
    client.set_cookie(COOKIE, value)
    assert token_of(client) == "nobody"


@pytest.mark.parametrize(
    ("age", "token"), [(0, TOKEN), (NINETY_DAYS - 60, TOKEN), (NINETY_DAYS + 60, None)]
)
def test_a_cookie_expires_although_the_browser_keeps_it(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, age: int, token: str | None
) -> None:
    now = 1733500000
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: now - age)
    client.set_cookie(COOKIE, sign(TOKEN))
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: now)
    assert token_of(client) == (token or "nobody")


def test_a_cookie_signed_with_an_earlier_key_is_good(app: Flask) -> None:
    app.config["SECRET_KEY"] = "new"
    app.config["SECRET_KEY_FALLBACKS"] = ["older", "not a secret"]
    client = app.test_client()
    client.set_cookie(COOKIE, sign(TOKEN))
    assert token_of(client) == TOKEN
    header = cookies_of(client.get(f"/?mmref={OTHER}"))[COOKIE]
    value = SimpleCookie(header)[COOKIE].value
    serializer = URLSafeTimedSerializer("new", salt=SALT)
    assert serializer.loads(value) == OTHER


def test_a_cookie_of_an_earlier_version_is_good_for_its_lifetime(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1733500000
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: now)
    client.set_cookie(COOKIE, sign(TOKEN, salt="flask-mmolove.token"))
    assert token_of(client) == TOKEN
    now += NINETY_DAYS + 1
    assert token_of(client) == "nobody"


def test_without_days_there_is_no_cookie_of_ours(make_site: MakeApp) -> None:
    client = make_site(COOKIE_DAYS=0).test_client()
    assert set(cookies_of(client.get(f"/?mmref={TOKEN}"))) == {"session"}
    assert token_of(client) == TOKEN
    client.delete_cookie("session")
    client.set_cookie(COOKIE, sign(TOKEN))
    assert token_of(client) == "nobody"


def test_fewer_days_are_a_shorter_life(make_site: MakeApp) -> None:
    client = make_site(COOKIE_DAYS=7).test_client()
    assert "Max-Age=604800" in cookies_of(client.get(f"/?mmref={TOKEN}"))[COOKIE]


#: What a site says of its session's cookie, and how ours is set then.
ATTRIBUTES: list[tuple[dict[str, t.Any], set[str]]] = [
    ({"SESSION_COOKIE_SECURE": True}, {"Secure", "SameSite=Lax"}),
    ({"SESSION_COOKIE_DOMAIN": "site.test"}, {"Domain=site.test"}),
    ({"SESSION_COOKIE_PATH": "/game"}, {"Path=/game"}),
    ({"APPLICATION_ROOT": "/app"}, {"Path=/app"}),
    ({"SESSION_COOKIE_SAMESITE": "Lax"}, {"SameSite=Lax"}),
    ({"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True}, EVERYWHERE),
    ({"SESSION_COOKIE_SAMESITE": "none", "SESSION_COOKIE_SECURE": True}, EVERYWHERE),
]
if hasattr(SecureCookieSessionInterface, "get_cookie_partitioned"):  # Flask 3.1
    partitioned = {"SESSION_COOKIE_PARTITIONED": True, "SESSION_COOKIE_SECURE": True}
    ATTRIBUTES.append((partitioned, {"Partitioned", "Secure"}))


def attributes_of(header: str) -> set[str]:
    """Those of a ``Set-Cookie`` header but for its value and its life."""
    _, *attributes = header.split("; ")
    return {each for each in attributes if not each.startswith(("Expires=", "Max-"))}


@pytest.mark.parametrize(("settings", "expected"), ATTRIBUTES)
def test_our_cookie_goes_wherever_the_sites_session_goes(
    app: Flask, settings: dict[str, t.Any], expected: set[str]
) -> None:
    app.config.update(settings)
    cookies = cookies_of(app.test_client().get(f"/visits?mmref={TOKEN}"))
    assert set(cookies) == {"session", COOKIE}
    ours, session = (attributes_of(cookies[name]) for name in (COOKIE, "session"))
    assert expected <= ours
    assert ours == session | {"SameSite=Lax"} if expected != EVERYWHERE else session


@pytest.mark.parametrize(("settings", "expected"), ATTRIBUTES)
def test_our_cookie_is_deleted_as_it_was_set(
    app: Flask, settings: dict[str, t.Any], expected: set[str]
) -> None:
    app.config.update(settings)
    kept = Client(app, use_cookies=False).get(f"/?mmref={TOKEN}")
    headers = {"Cookie": f"{COOKIE}=x; mmref=y"}
    left = Client(app, use_cookies=False).post("/leave", headers=headers)
    deleted = left.headers.getlist("Set-Cookie")
    for name in (COOKIE, "mmref"):
        [first, *_] = [each for each in deleted if each.startswith(f"{name}=;")]
        assert "Max-Age=0" in first
        assert attributes_of(first) == attributes_of(cookies_of(kept)[COOKIE])


def test_one_from_before_the_site_set_a_domain_is_deleted_too(app: Flask) -> None:
    client = app.test_client()
    client.get(f"/?mmref={TOKEN}", base_url="http://www.site.test")
    assert client.get_cookie(COOKIE, "www.site.test") is not None
    app.config["SESSION_COOKIE_DOMAIN"] = "site.test"
    client.get(f"/?mmref={OTHER}", base_url="http://www.site.test")
    client.post("/leave", base_url="http://www.site.test")
    assert client.get_cookie(COOKIE, "www.site.test") is None
    assert client.get_cookie(COOKIE, "site.test") is None


def test_a_strict_session_is_not_replaced_by_a_visit_from_mmolove(
    app: Flask, client: FlaskClient
) -> None:
    app.config["SESSION_COOKIE_SAMESITE"] = "Strict"
    client.get("/login")
    # Led there by another site, a browser sends no strict cookie, and a lax one.
    led = app.test_client()
    arrival = led.get(f"/who?mmref={TOKEN}")
    assert arrival.text == TOKEN
    assert set(cookies_of(arrival)) == {COOKIE}
    assert "SameSite=Lax" in cookies_of(arrival)[COOKIE]
    client.set_cookie(COOKIE, SimpleCookie(cookies_of(arrival)[COOKIE])[COOKIE].value)
    assert token_of(client) == TOKEN
    with client.session_transaction() as kept:
        assert kept["user"] == "anna"


def test_the_first_of_two_links_counts_with_a_strict_session_too(
    make_site: MakeApp,
) -> None:
    app = make_site(ATTRIBUTION="first-touch")
    app.config["SESSION_COOKIE_SAMESITE"] = "Strict"
    client = app.test_client()
    client.get(f"/?mmref={TOKEN}")
    client.delete_cookie("session")
    assert client.get(f"/who?mmref={OTHER}").text == TOKEN


def test_our_cookie_is_secure_where_browsers_ask_for_it(app: Flask) -> None:
    app.config["SESSION_COOKIE_SAMESITE"] = "None"
    cookies = cookies_of(app.test_client().get(f"/?mmref={TOKEN}"))
    assert attributes_of(cookies[COOKIE]) >= EVERYWHERE


def test_a_session_interface_from_before_flask_3_1_is_as_good(app: Flask) -> None:
    class Earlier(SecureCookieSessionInterface):
        get_cookie_partitioned = None  # type: ignore[assignment]

        def save_session(self, *args: t.Any) -> None:
            pass

    app.session_interface = Earlier()
    header = cookies_of(app.test_client().get(f"/?mmref={TOKEN}"))[COOKIE]
    assert attributes_of(header) == {"HttpOnly", "Path=/", "SameSite=Lax"}


def at(moment: int, token: t.Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cookie of ours, signed then."""
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda self: moment)
        return f"{COOKIE}={sign(token)}"


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_of_several_cookies_of_one_name_the_newest_of_ours_counts(
    app: Flask, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    now = int(time.time())
    cookies = [
        at(now - 60, TOKEN, monkeypatch),
        at(now - 7200, OTHER, monkeypatch),
        f"{COOKIE}={sign('tok.parent', secret='of the parent domain')}",
        f"{COOKIE}=junk",
    ]
    header = "; ".join(cookies[index] for index in order)
    response = send(app, header)
    assert response.text == TOKEN


def test_a_cookie_that_has_expired_does_not_hide_one_that_has_not(
    make_site: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    app = make_site(COOKIE_DAYS=7)
    old = at(now - 8 * 86400, OTHER, monkeypatch)
    header = f"{old}; {at(now - 60, TOKEN, monkeypatch)}"
    assert send(app, header).text == TOKEN


def test_cookies_beyond_what_a_browser_keeps_are_not_looked_at(app: Flask) -> None:
    header = f"{COOKIE}=a.b.c; " * 200 + f"{COOKIE}={sign(TOKEN)}"
    assert send(app, header).text == "nobody"


@pytest.mark.parametrize(
    "cookie", [f"mmref=; mmref={TOKEN}", f"mmref=a b; mmref={TOKEN}; mmref={OTHER}"]
)
def test_of_several_mmref_cookies_the_first_token_counts(
    app: Flask, cookie: str
) -> None:
    assert send(app, cookie).text == TOKEN


# -- caches ----------------------------------------------------------------------------


def caching_of(response: TestResponse) -> tuple[set[str], list[str]]:
    """What a response says to caches: ``Cache-Control``, and ``Vary``."""
    directives = response.headers.get("Cache-Control", "").split(", ")
    return set(directives), sorted(response.headers.get("Vary", "").split(", "))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"private"}),
        ({"Cache-Control": "public, max-age=60"}, {"private", "max-age=60"}),
        ({"Cache-Control": "s-maxage=9, max-age=60"}, {"private", "max-age=60"}),
        ({"Cache-Control": "no-store"}, {"no-store"}),
        ({"Cache-Control": "no-cache"}, {"private", "no-cache"}),
        ({"Cache-Control": "private"}, {"private"}),
    ],
)
@pytest.mark.parametrize("vary", [None, "Cookie", "cookie", "Accept-Encoding"])
def test_no_shared_cache_hands_a_token_to_another_visitor(
    app: Flask, before: dict[str, str], after: set[str], vary: str | None
) -> None:
    @app.get("/cached")
    def cached() -> ResponseReturnValue:
        headers = before | ({"Vary": vary} if vary else {})
        return (part for part in ("a ", "page")), headers

    response = app.test_client().get(f"/cached?mmref={TOKEN}")
    assert response.text == "a page"
    directives, varies = caching_of(response)
    assert directives == after
    assert [each.lower() for each in varies].count("cookie") == 1
    assert vary is None or vary in varies
    plain = app.test_client().get("/cached")
    assert plain.headers.get("Cache-Control") == before.get("Cache-Control")


def capture_by_query(app: Flask) -> TestResponse:
    return app.test_client().get(f"/nowhere?mmref={TOKEN}")


def capture_by_cookie(app: Flask) -> TestResponse:
    client = app.test_client()
    client.set_cookie("mmref", TOKEN)
    return client.get("/")


def forget_all(app: Flask) -> TestResponse:
    client = app.test_client()
    client.get(f"/?mmref={TOKEN}")
    return client.post("/leave")


@pytest.mark.parametrize("days", [0, 90])
@pytest.mark.parametrize("act", [capture_by_query, capture_by_cookie, forget_all])
def test_a_page_that_keeps_or_forgets_a_token_is_its_visitors_alone(
    make_site: MakeApp, act: t.Callable[[Flask], TestResponse], days: int
) -> None:
    response = act(make_site(COOKIE_DAYS=days))
    assert "Set-Cookie" in response.headers
    assert caching_of(response) == ({"private"}, ["Cookie"])


# -- the session -----------------------------------------------------------------------


@pytest.fixture
def full() -> str:
    """What fills a session to within 200 bytes of what browsers take."""
    letters = string.ascii_letters + string.digits + "-_"
    return "".join(random.Random(1).choices(letters, k=3800))


LONG = "".join(random.Random(2).choices(string.ascii_letters + string.digits, k=300))


def fill(app: Flask, text: str) -> FlaskClient:
    @app.get("/fill")
    def fill() -> ResponseReturnValue:
        session["text"] = text
        return "full"

    @app.get("/text")
    def text_of() -> ResponseReturnValue:
        return str(session.get("text"))

    return app.test_client()


@pytest.mark.parametrize("days", [0, 90])
@pytest.mark.parametrize("paths", [["/?mmref={}", "/fill"], ["/fill", "/?mmref={}"]])
def test_a_session_that_is_nearly_full_is_never_lost(
    make_site: MakeApp, full: str, days: int, paths: list[str]
) -> None:
    client = fill(make_site(COOKIE_DAYS=days), full)
    for path in paths:
        headers = client.get(path.format(LONG)).headers.getlist("Set-Cookie")
        assert all(len(header) <= 4093 for header in headers)
    assert client.get("/text").text == full
    assert token_of(client) == (LONG if days else "nobody")


def test_a_token_without_room_serves_its_own_request_and_is_told_of_once(
    make_site: MakeApp, full: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_site(COOKIE_DAYS=0)
    client = fill(app, full)
    client.get("/fill")
    for _ in range(2):
        assert client.get(f"/who?mmref={LONG}").text == LONG
    assert caplog.text.count("MMOLOVE_COOKIE_DAYS") == 1
    assert LONG not in caplog.text


def test_a_session_with_room_keeps_a_token_where_we_have_no_cookie(
    make_site: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_site(COOKIE_DAYS=0).test_client()
    client.get(f"/?mmref={TOKEN}")
    client.get("/visits")
    assert token_of(client) == TOKEN
    assert caplog.text == ""


def test_strangers_get_plain_pages_where_we_have_no_cookie(make_site: MakeApp) -> None:
    assert is_untouched(make_site(COOKIE_DAYS=0).test_client().get("/"))


class OnServer(SessionInterface):
    """Sessions that are kept on the server, of any size."""

    def __init__(self) -> None:
        self.kept: dict[str, t.Any] = {}

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession:
        key = request.cookies.get("session", "")
        return SecureCookieSession(self.kept.get(key, {}))

    def save_session(
        self, app: Flask, session: SessionMixin, response: BaseResponse
    ) -> None:
        if session.modified:
            self.kept["key"] = dict(session)
            response.set_cookie("session", "key")


@pytest.mark.parametrize("days", [0, 90])
def test_a_session_on_the_server_has_room(
    make_site: MakeApp, full: str, days: int
) -> None:
    app = make_site(COOKIE_DAYS=days)
    app.session_interface = interface = OnServer()
    client = fill(app, full)
    client.get("/fill")
    client.get(f"/?mmref={LONG}")
    assert token_of(client) == LONG
    assert ("mmref" in interface.kept["key"]) is (days == 0)
    client.get("/login")
    assert token_of(client) == (LONG if days else "nobody")
    client.post("/leave")
    assert token_of(client) == "nobody"


def test_without_a_key_a_session_on_the_server_keeps_the_token(
    make_site: MakeApp,
) -> None:
    app = make_site()
    app.secret_key = None
    app.session_interface = OnServer()
    client = app.test_client()
    assert set(cookies_of(client.get(f"/?mmref={TOKEN}"))) == {"session"}
    assert token_of(client) == TOKEN


@pytest.mark.parametrize(
    ("attribution", "expected"), [("last-touch", OTHER), ("first-touch", TOKEN)]
)
def test_a_token_in_the_session_gives_way_as_one_in_our_cookie_does(
    make_site: MakeApp, attribution: str, expected: str
) -> None:
    client = make_site(ATTRIBUTION=attribution).test_client()
    with client.session_transaction() as kept:
        kept["mmref"] = TOKEN
    client.get(f"/?mmref={OTHER}")
    assert token_of(client) == expected


def test_our_cookie_is_never_too_large_for_a_browser(app: Flask) -> None:
    with app.test_request_context():
        token = "".join(random.Random(1).choices(string.printable[:94], k=1024))
        referrer = "".join(
            map(chr, random.Random(1).choices(range(0x4E00, 0x9FFF), k=255))
        )
        response = Response()
        value = signed.sign(
            app.extensions["mmolove"], "token", Invitation(token, referrer).pack()
        )
        signed.Cookie(COOKIE, "token").keep(app, response, value, NINETY_DAYS)
        assert len(response.headers["Set-Cookie"]) <= 4093


# -- the cookie of a hand-made integration ---------------------------------------------


def test_an_mmref_cookie_is_the_fallback(client: FlaskClient) -> None:
    client.set_cookie("mmref", TOKEN)
    assert token_of(client) == TOKEN
    client.delete_cookie("mmref")
    assert token_of(client) == TOKEN


def test_the_query_comes_before_the_cookie(client: FlaskClient) -> None:
    client.set_cookie("mmref", TOKEN)
    assert client.get(f"/who?mmref={OTHER}").text == OTHER
    assert token_of(client) == OTHER


def test_junk_in_the_query_falls_back_on_the_cookie(client: FlaskClient) -> None:
    client.set_cookie("mmref", TOKEN)
    assert client.get("/who?mmref=a%20b").text == TOKEN


def test_an_mmref_cookie_is_kept_for_as_long_as_the_browser_runs(
    client: FlaskClient,
) -> None:
    client.set_cookie("mmref", TOKEN)
    header = cookies_of(client.get("/"))[COOKIE].lower()
    assert "max-age" not in header and "expires" not in header
    assert not cookies_of(client.get("/"))


def test_a_token_that_is_used_up_is_forgotten_everywhere(client: FlaskClient) -> None:
    client.set_cookie("mmref", TOKEN)
    client.get(f"/?mmref={TOKEN}")
    client.get(f"/?mmref={OTHER}")
    response = client.post("/leave")
    assert {COOKIE, "mmref"} == set(cookies_of(response))
    assert token_of(client) == "nobody"


def test_a_token_that_is_used_up_in_its_first_request_is_forgotten_too(
    client: FlaskClient,
) -> None:
    client.post(f"/leave?mmref={TOKEN}")
    assert token_of(client) == "nobody"


# -- who followed a link ---------------------------------------------------------------

SITES = ["same-origin", "same-site", "cross-site", "none"]
EMBEDDED = ["image", "iframe", "frame", "embed", "object", "script", "style", "video"]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("dest", [*EMBEDDED, "report", "Document", ""])
def test_what_is_embedded_captures_nothing_wherever_it_is_embedded(
    client: FlaskClient, dest: str, site: str
) -> None:
    headers = {"Sec-Fetch-Dest": dest, "Sec-Fetch-Site": site}
    response = client.get(f"/?mmref={TOKEN}", headers=headers)
    assert response.status_code == 200
    assert not cookies_of(response)
    assert client.get(f"/who?mmref={TOKEN}", headers=headers).text == "nobody"
    assert token_of(client) == "nobody"


def test_what_is_embedded_takes_no_earlier_token_away(client: FlaskClient) -> None:
    client.get(f"/?mmref={TOKEN}")
    client.get(f"/?mmref={OTHER}", headers={"Sec-Fetch-Dest": "image"})
    assert token_of(client) == TOKEN


@pytest.mark.parametrize(
    ("site", "token"),
    [
        ("same-origin", TOKEN),
        ("same-site", TOKEN),
        ("cross-site", "nobody"),
        ("none", "nobody"),
        (None, "nobody"),
    ],
)
def test_what_a_script_fetches_is_captured_for_the_sites_own_scripts_only(
    client: FlaskClient, site: str | None, token: str
) -> None:
    headers = {"Sec-Fetch-Dest": "empty"}
    if site is not None:
        headers["Sec-Fetch-Site"] = site
    client.get(f"/?mmref={TOKEN}", headers=headers)
    assert token_of(client) == token


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    "purpose",
    [
        {},
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
    ],
)
def test_a_page_is_a_visit_and_so_is_one_that_is_loaded_before_the_click(
    client: FlaskClient, purpose: dict[str, str], site: str
) -> None:
    headers = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Site": site, **purpose}
    client.get(f"/?mmref={TOKEN}", headers=headers)
    assert token_of(client) == TOKEN


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Purpose": "prefetch"}, {"Sec-Purpose": ""}],
)
def test_a_browser_that_does_not_say_what_it_loads_is_believed(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    client.get(f"/?mmref={TOKEN}", headers=headers)
    assert token_of(client) == TOKEN


def test_a_page_that_was_embedded_is_asked_for_again_when_it_is_visited(
    client: FlaskClient,
) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "image"}
    response = client.get(f"/?mmref={TOKEN}", headers=headers)
    assert response.cache_control.no_store


def test_bytes_that_are_no_text_are_no_token(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    raw = {"QUERY_STRING": "mmref=x\xff"}
    response = client.get("/", environ_overrides=raw)
    assert is_untouched(response)
    assert "Traceback" not in caplog.text


# -- consent ---------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [False, None, 0, ""])
def test_without_consent_a_token_serves_its_own_request_only(
    make_site: MakeApp, answer: object
) -> None:
    mmolove = MMOLove()
    mmolove.consent(lambda: answer)
    client = make_site(mmolove).test_client()
    assert is_untouched(client.get(f"/?mmref={TOKEN}"))
    assert client.get(f"/who?mmref={TOKEN}").text == TOKEN
    assert token_of(client) == "nobody"
    client.set_cookie("mmref", OTHER)
    assert token_of(client) == OTHER
    assert client.get("/session").text == "None"


def test_with_consent_a_token_is_kept(make_site: MakeApp) -> None:
    mmolove = MMOLove()

    @mmolove.consent
    def agreed() -> bool:
        return session.get("cookies") == "yes"

    client = make_site(mmolove).test_client()
    with client.session_transaction() as stored:
        stored["cookies"] = "yes"
    client.get(f"/?mmref={TOKEN}")
    assert token_of(client) == TOKEN


def test_consent_is_asked_only_when_there_is_a_token(make_site: MakeApp) -> None:
    mmolove = MMOLove()
    asked: list[bool] = []

    @mmolove.consent
    def agreed() -> bool:
        asked.append(True)
        return True

    client = make_site(mmolove).test_client()
    client.get("/")
    client.get("/?mmref=a%20b")
    assert not asked
    client.get(f"/?mmref={TOKEN}")
    assert asked


def test_a_consent_rule_that_raises_keeps_nothing_and_breaks_nothing(
    make_site: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    mmolove = MMOLove()

    @mmolove.consent
    def agreed() -> bool:
        raise RuntimeError("no")

    client = make_site(mmolove).test_client()
    response = client.get(f"/?mmref={TOKEN}")
    assert response.status_code == 200
    assert not cookies_of(response)
    assert token_of(client) == "nobody"
    assert caplog.records


# -- sites that are unlike others ------------------------------------------------------


@pytest.fixture
def keyless(app: Flask) -> FlaskClient:
    app.config["SECRET_KEY"] = None
    return app.test_client()


def test_a_site_without_a_secret_key_is_never_a_500(
    keyless: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert keyless.get(f"/who?mmref={TOKEN}").text == TOKEN
    assert token_of(keyless) == "nobody"
    keyless.set_cookie("mmref", TOKEN)
    keyless.set_cookie(COOKIE, sign(TOKEN))
    assert token_of(keyless) == TOKEN
    assert "SECRET_KEY" in caplog.text


def test_a_site_without_a_secret_key_does_not_fill_its_log(
    keyless: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        keyless.get(f"/?mmref={TOKEN}{number}")
    assert len(caplog.records) == 1


def test_a_session_that_cannot_be_opened_is_never_a_500(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SecureCookieSessionInterface):
        def open_session(self, *args: t.Any, **kwargs: t.Any) -> None:
            return None

    app.session_interface = Broken()
    assert app.test_client().get(f"/?mmref={TOKEN}").status_code == 200


def test_a_site_that_switched_it_off_keeps_nothing(make_site: MakeApp) -> None:
    client = make_site(ENABLED=False).test_client()
    assert is_untouched(client.get(f"/?mmref={TOKEN}"))
    with client.session_transaction() as stored:
        stored["mmref"] = TOKEN
    assert client.get(f"/who?mmref={TOKEN}").text == "nobody"


def test_two_apps_with_one_object_do_not_leak_into_each_other(
    make_site: MakeApp,
) -> None:
    mmolove = MMOLove()
    one = make_site(mmolove)
    two = make_site(mmolove, COOKIE_DAYS=0, ATTRIBUTION="first-touch")
    one.config["SECRET_KEY"] = "of the first"
    two.config["SECRET_KEY"] = "of the second"
    first, second = one.test_client(), two.test_client()
    header = cookies_of(first.get(f"/?mmref={TOKEN}"))[COOKIE]
    second.set_cookie(COOKIE, SimpleCookie(header)[COOKIE].value)
    assert token_of(second) == "nobody"
    assert COOKIE not in cookies_of(second.get(f"/?mmref={OTHER}"))
    second.get(f"/?mmref={TOKEN}")
    assert (token_of(first), token_of(second)) == (TOKEN, OTHER)


def test_an_app_inside_another_ones_request_keeps_its_token_to_itself(
    make_site: MakeApp,
) -> None:
    outer, inner = make_site(), make_site()

    @outer.get("/nested")
    def nested() -> str:
        with inner.test_request_context("/who"):
            seen = current_mmref()
        return f"{seen} {current_mmref()}"

    client = outer.test_client()
    assert client.get(f"/nested?mmref={TOKEN}").text == f"None {TOKEN}"


def test_an_app_under_a_prefix_captures_as_any_other(app: Flask) -> None:
    app.config["APPLICATION_ROOT"] = "/site"
    client = Client(
        DispatcherMiddleware(Response("the front", status=404), {"/site": app})
    )
    response = client.get(f"/site/?mmref={TOKEN}")
    assert "Path=/site" in cookies_of(response)[COOKIE]
    assert client.get("/site/who").text == TOKEN


def test_outside_a_request_there_is_no_token(app: Flask) -> None:
    assert current_mmref() is None
    with app.app_context():
        assert current_mmref() is None
        assert render_template_string("{{ current_mmref() }}") == "None"


def test_an_app_without_mmolove_is_told_so() -> None:
    with Flask(__name__).test_request_context():
        with pytest.raises(MMOLoveError, match="init_app"):
            current_mmref()
