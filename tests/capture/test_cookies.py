"""The cookies that we sign: whose are believed, how far they reach, and no cache."""

from __future__ import annotations

import itertools
import time
import typing as t
from http.cookies import SimpleCookie

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from itsdangerous import TimestampSigner
from itsdangerous import URLSafeTimedSerializer
from werkzeug.test import Client
from werkzeug.test import TestResponse

from tests.capture.site import COOKIE
from tests.capture.site import cookies_of
from tests.capture.site import EVERYWHERE
from tests.capture.site import NINETY_DAYS
from tests.capture.site import OTHER
from tests.capture.site import SALT
from tests.capture.site import send
from tests.capture.site import sign
from tests.capture.site import TOKEN
from tests.capture.site import token_of
from tests.conftest import MakeApp

# -- our cookie ---------------------------------------------------------------------


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


# -- caches -------------------------------------------------------------------------


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
