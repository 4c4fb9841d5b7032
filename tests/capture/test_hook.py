"""A visitor comes with ``?mmref=``: what is captured, and what is left alone."""

from __future__ import annotations

import logging
import random
import typing as t
from http.cookies import SimpleCookie
from urllib.parse import quote

import pytest
from flask import Flask
from flask import render_template_string
from flask import Response
from flask import session
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from itsdangerous import TimestampSigner
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client
from werkzeug.test import create_environ
from werkzeug.test import run_wsgi_app

from flask_mmolove import current_mmref
from flask_mmolove import MMOLove
from flask_mmolove import MMOLoveError
from flask_mmolove import referral_captured
from tests.capture.site import add_pages
from tests.capture.site import COOKIE
from tests.capture.site import cookies_of
from tests.capture.site import is_untouched
from tests.capture.site import NINETY_DAYS
from tests.capture.site import OTHER
from tests.capture.site import send
from tests.capture.site import sign
from tests.capture.site import TOKEN
from tests.capture.site import token_of
from tests.conftest import MakeApp

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


# -- a visitor with a token ---------------------------------------------------------


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


# -- which token counts -------------------------------------------------------------


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


# -- requests that are none of our business -----------------------------------------


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


def test_a_page_runs_nothing_of_ours_but_the_hook(app: Flask) -> None:
    assert len(app.before_request_funcs[None]) == 1
    for functions in (
        app.url_value_preprocessors,
        app.after_request_funcs,
        app.teardown_request_funcs,
    ):
        assert not functions
    assert not app.teardown_appcontext_funcs


# -- junk ---------------------------------------------------------------------------


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


@pytest.mark.parametrize("cookie", [None, 7, b"mmref=a", ["mmref="]])
def test_a_server_that_does_not_keep_to_wsgi_is_never_an_error(
    keyless: FlaskClient, cookie: object
) -> None:
    keyless.application.add_url_rule("/plain", view_func=lambda: "plain")
    for turn in range(2):
        environ = create_environ("/plain")
        del environ["QUERY_STRING"]
        environ["HTTP_COOKIE"] = cookie
        assert run_wsgi_app(keyless.application, environ)[1] == "200 OK", turn


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


# -- sites that are unlike others ---------------------------------------------------


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
