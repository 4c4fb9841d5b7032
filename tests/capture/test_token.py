"""Where a token is kept until it is used, and with whose consent."""

from __future__ import annotations

import random
import string
import typing as t

import pytest
from flask import Flask
from flask import Request
from flask import Response
from flask import session
from flask.sessions import SecureCookieSession
from flask.sessions import SessionInterface
from flask.sessions import SessionMixin
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response as BaseResponse

from flask_mmolove import MMOLove
from flask_mmolove.capture.token import set_cookie
from flask_mmolove.outbox.invitation import Invitation
from tests.capture.site import COOKIE
from tests.capture.site import cookies_of
from tests.capture.site import is_untouched
from tests.capture.site import OTHER
from tests.capture.site import TOKEN
from tests.capture.site import token_of
from tests.conftest import MakeApp

# -- the session --------------------------------------------------------------------


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
        set_cookie(response, Invitation(token, referrer), lasting=True)
        assert len(response.headers["Set-Cookie"]) <= 4093


# -- the cookie of a hand-made integration ------------------------------------------


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


def test_a_token_that_is_used_is_forgotten_everywhere(client: FlaskClient) -> None:
    client.set_cookie("mmref", TOKEN)
    client.get(f"/?mmref={TOKEN}")
    client.get(f"/?mmref={OTHER}")
    response = client.post("/leave")
    assert {COOKIE, "mmref"} == set(cookies_of(response))
    assert token_of(client) == "nobody"


def test_a_token_that_is_used_in_its_first_request_is_forgotten_too(
    client: FlaskClient,
) -> None:
    client.post(f"/leave?mmref={TOKEN}")
    assert token_of(client) == "nobody"


# -- consent ------------------------------------------------------------------------


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
