"""What a real browser embeds, fetches, prefetches and follows, and who is captured."""

from __future__ import annotations

import queue
import threading
import typing as t
from html import escape

import pytest
from flask import Flask
from flask import request
from flask import session
from flask.typing import ResponseReturnValue
from playwright.sync_api import Browser
from playwright.sync_api import expect
from playwright.sync_api import Page
from werkzeug.serving import make_server
from werkzeug.serving import WSGIRequestHandler

from flask_mmolove import current_mmref
from flask_mmolove import current_referrer
from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove.sandbox import Sandbox
from tests.browser import browser as browser
from tests.conftest import MakeApp

pytestmark = pytest.mark.slow


class Request(t.NamedTuple):
    """What a browser said of a request."""

    path: str
    dest: str | None
    purpose: str


class Quiet(WSGIRequestHandler):
    """Keeps addresses, which hold tokens, out of the log."""

    def log_request(self, *args: t.Any) -> None:
        pass


class Site:
    """A game's site with a forum, over a real socket.

    :param post: What somebody wrote in the forum, in HTML.
    """

    def __init__(self, make_app: MakeApp) -> None:
        self.post = ""
        self.arrived: queue.Queue[Request] = queue.Queue()
        self._server = make_server(
            "127.0.0.1", 0, Flask("none"), threaded=True, request_handler=Quiet
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        # To a browser it is another site than the sandbox, which is at 127.0.0.1.
        self.url = f"http://localhost:{self._server.port}"
        self.sandbox = Sandbox(registration_url=f"{self.url}/")
        self.sandbox.start()
        settings = self.sandbox.settings.items()
        mmolove = MMOLove()
        self.app = make_app(
            mmolove, **{key.removeprefix("MMOLOVE_"): value for key, value in settings}
        )
        self.app.register_blueprint(invitations)
        self._server.app = self.app
        with self.app.test_request_context():
            self.invitation = mmolove.invite("3", external=False)
        self._add_pages()

    def _add_pages(self) -> None:
        @self.app.before_request
        def note() -> None:
            purpose = request.headers.get("Sec-Purpose", "")
            dest = request.headers.get("Sec-Fetch-Dest")
            self.arrived.put(Request(request.path, dest, purpose))

        @self.app.get("/forum")
        def forum() -> ResponseReturnValue:
            return f"<!doctype html><title>Forum</title>{self.post}<p>The end."

        @self.app.get("/login")
        def login() -> ResponseReturnValue:
            session["user"] = "anna"
            return "<!doctype html><title>Welcome</title>"

        @self.app.get("/")
        @self.app.get("/who")
        def who() -> ResponseReturnValue:
            token = escape(current_mmref() or "nobody")
            return (
                f"<!doctype html><title>Who</title><p id=who>{token}<p id=referrer>"
                f"{current_referrer()}<p id=user>{session.get('user')}"
            )

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.sandbox.stop()

    def wait_for(self, path: str) -> Request:
        """The next request for a path."""
        while (arrived := self.arrived.get(timeout=20)).path != path:
            pass
        return arrived

    def count(self, path: str) -> int:
        """The requests for a path that nobody waited for."""
        arrived = [self.arrived.get() for _ in range(self.arrived.qsize())]
        return [each.path for each in arrived].count(path)


@pytest.fixture
def site(make_app: MakeApp) -> t.Iterator[Site]:
    with Site(make_app) as site:
        yield site


@pytest.fixture
def page(browser: Browser) -> t.Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def cookies(page: Page) -> set[str]:
    return {str(cookie.get("name")) for cookie in page.context.cookies()}


def who(page: Page, site: Site) -> str | None:
    page.goto(f"{site.url}/who")
    return page.locator("#who").text_content()


# -- what is embedded ------------------------------------------------------------------

EMBEDS = {
    "image": '<img src="{}">',
    "iframe": '<iframe src="{}"></iframe>',
    "object": '<object data="{}"></object>',
    "embed": '<embed src="{}">',
    "script": '<script src="{}"></script>',
    "style": '<link rel="stylesheet" href="{}">',
    "video": '<video src="{}" preload="auto"></video>',
}


@pytest.mark.parametrize("dest", EMBEDS)
@pytest.mark.parametrize("what", ["invitation", "token"])
def test_a_post_in_the_sites_own_forum_makes_nobody_a_friend(
    site: Site, page: Page, dest: str, what: str
) -> None:
    link = f"/?mmref={site.sandbox.mint()}"
    if what == "invitation":
        link = site.invitation
    site.post = EMBEDS[dest].format(link)
    page.goto(f"{site.url}/forum")
    assert site.wait_for(link.partition("?")[0]).dest == dest
    assert who(page, site) == "nobody"
    assert cookies(page) == set()


def test_the_sites_own_script_passes_a_token_on_and_no_invitation(
    site: Site, page: Page
) -> None:
    token = site.sandbox.mint()
    page.goto(f"{site.url}/forum")
    fetch = "link => fetch(link).then(response => response.status)"
    assert page.evaluate(fetch, site.invitation) == 403
    assert cookies(page) == set()
    assert page.evaluate(fetch, f"/?mmref={token}") == 200
    assert site.wait_for("/").dest == "empty"
    assert who(page, site) == token


# -- what is followed ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["prefetch", "prerender"])
def test_a_link_that_is_loaded_before_the_click_makes_a_friend(
    site: Site, page: Page, how: str
) -> None:
    token = site.sandbox.mint()
    link = f"/?mmref={token}"
    site.post = (
        f'<a href="{link}">A game</a><script type="speculationrules">'
        f'{{"{how}": [{{"urls": ["{link}"], "eagerness": "immediate"}}]}}</script>'
    )
    page.goto(f"{site.url}/forum")
    arrived = site.wait_for("/")
    assert (arrived.dest, arrived.purpose[:8]) == ("document", "prefetch")
    page.get_by_role("link").click()
    expect(page.locator("#who")).to_have_text(token)
    assert site.count("/") == 0  # the click sent no second request
    assert who(page, site) == token


def test_a_link_that_is_typed_or_clicked_makes_a_friend(site: Site, page: Page) -> None:
    typed, clicked = site.sandbox.mint(), site.sandbox.mint("another")
    page.goto(f"{site.url}/?mmref={typed}")
    assert site.wait_for("/") == ("/", "document", "")
    assert who(page, site) == typed
    site.post = f'<a href="/?mmref={clicked}">A game</a>'
    page.goto(f"{site.url}/forum")
    page.get_by_role("link").click()
    expect(page.locator("#who")).to_have_text(clicked)


@pytest.mark.parametrize("samesite", [None, "Lax", "Strict"])
def test_an_invitation_leads_by_way_of_another_site_to_the_referrer(
    site: Site, page: Page, samesite: str | None
) -> None:
    site.app.config["SESSION_COOKIE_SAMESITE"] = samesite
    page.goto(f"{site.url}/login")
    page.goto(f"{site.sandbox.url}/")
    page.evaluate("link => { location = link }", site.url + site.invitation)
    expect(page.locator("#who")).not_to_have_text("nobody")
    assert cookies(page) == {"session", "mmolove_ref"}
    page.goto(f"{site.url}/who")
    expect(page.locator("#referrer")).to_have_text("3")
    expect(page.locator("#user")).to_have_text("anna")
