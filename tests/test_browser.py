"""A player and a friend click through the example site in a real browser."""

from __future__ import annotations

import json
import os
import queue
import shutil
import threading
import typing as t
from pathlib import Path

import pytest
from conftest import MakeApp
from flask import Flask
from flask import request
from flask import Response
from playwright.sync_api import Browser
from playwright.sync_api import expect
from playwright.sync_api import Page
from playwright.sync_api import sync_playwright
from test_journey import PASSWORD
from test_journey import Site
from werkzeug.serving import make_server

from flask_mmolove import current_mmref
from flask_mmolove import invitations
from flask_mmolove import MMOLove

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
]


@pytest.fixture(scope="module")
def browser() -> t.Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if "CI" in os.environ:
            pytest.fail("Chromium is missing, and in CI nothing is skipped.")
        pytest.skip("There is no 'chromium' on the PATH.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        browser.close()


class Forum:
    """A site with a page that its players write, served to a browser.

    :ivar seen: What a browser said of each request for a link.
    """

    def __init__(self, app: Flask, mmolove: MMOLove) -> None:
        self.post = ""
        self.seen: queue.Queue[tuple[str, str]] = queue.Queue()
        app.register_blueprint(invitations)
        app.add_url_rule("/forum", "forum", lambda: self.post)
        app.add_url_rule("/", "home", lambda: "home")
        app.add_url_rule("/who", "who", lambda: f"{current_mmref()}")
        app.after_request(self._note)
        with app.test_request_context():
            self.invite = mmolove.invite("3", external=False)
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _note(self, response: Response) -> Response:
        if "mmref" in request.args or request.path.startswith("/invite/"):
            headers = request.headers
            self.seen.put(
                (headers.get("Sec-Fetch-Dest", ""), headers.get("Sec-Purpose", ""))
            )
        return response

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def forum(make_app: MakeApp) -> t.Iterator[Forum]:
    mmolove = MMOLove()
    forum = Forum(make_app(mmolove), mmolove)
    yield forum
    forum.stop()


def _token_of(page: Page, forum: Forum) -> str:
    page.goto(f"{forum.url}/who")
    return page.inner_text("body")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("tag", ["img", "iframe", "embed", "script"])
@pytest.mark.parametrize("what", ["token", "invite"])
def test_a_link_in_a_post_makes_its_readers_nobodys_friends(
    browser: Browser, forum: Forum, host: str, tag: str, what: str
) -> None:
    link = "/?mmref=attacker" if what == "token" else forum.invite
    forum.post = f'<{tag} src="{forum.url}{link}"></{tag}>'
    page = browser.new_context().new_page()
    page.goto(forum.url.replace("127.0.0.1", host) + "/forum")
    destination, _ = forum.seen.get(timeout=30)
    assert destination != "document"
    cookies = {cookie.get("name") for cookie in page.context.cookies()}
    assert not cookies & {"mmolove_ref", "mmolove_inviter"}
    assert _token_of(page, forum) == "None"
    page.context.close()


@pytest.mark.parametrize("how", ["prefetch", "prerender"])
def test_a_link_that_the_browser_fetched_ahead_counts_when_clicked(
    browser: Browser, forum: Forum, how: str
) -> None:
    rules = {how: [{"source": "list", "urls": ["/?mmref=friend"]}]}
    forum.post = (
        f'<script type="speculationrules">{json.dumps(rules)}</script>'
        '<a href="/?mmref=friend">join</a>'
    )
    page = browser.new_context().new_page()
    page.goto(f"{forum.url}/forum")
    destination, purpose = forum.seen.get(timeout=30)
    assert (destination, how in purpose or "prefetch" in purpose) == ("document", True)
    page.get_by_text("join").click()
    page.wait_for_url("**/?mmref=friend")
    assert _token_of(page, forum) == "friend"
    page.context.close()


def test_a_typed_link_counts(browser: Browser, forum: Forum) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{forum.url}/?mmref=friend")
    assert forum.seen.get(timeout=30) == ("document", "")
    assert _token_of(page, forum) == "friend"
    page.context.close()


@pytest.fixture
def site(tmp_path: Path) -> t.Iterator[Site]:
    site = Site(tmp_path / "data")
    site.start()
    yield site
    site.stop()


def _visit(browser: Browser, complaints: list[str], width: int) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 844}).new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def _join(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("main").get_by_role("button").click()
    expect(page.get_by_text(f"Welcome to Lanternmoor, {name}.")).to_be_visible()


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.body.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_friend_is_worth_one_cape(browser: Browser, site: Site, width: int) -> None:
    complaints: list[str] = []
    inviter = _visit(browser, complaints, width)
    inviter.goto(f"{site.url}/join")
    _join(inviter, "Anna")
    inviter.goto(f"{site.url}/friends")
    assert fits(inviter)
    link = inviter.locator("input[readonly]").input_value()

    friend = _visit(browser, complaints, width)
    friend.goto(link)
    assert "mmref=" in friend.url
    assert fits(friend)
    _join(friend, "Ben")
    for _ in range(4):
        friend.get_by_role("button", name="Fight").click()
        friend.wait_for_load_state()
    assert fits(friend)
    assert site.wait_for_arrivals(2) == [("registered", 200), ("qualified", 200)]

    cape = inviter.get_by_text("cape received")
    for _ in range(100):
        inviter.reload()
        if cape.count():
            break
    expect(cape.first).to_be_visible()
    assert fits(inviter)

    inviter.goto(site.sandbox_url)
    expect(inviter.get_by_text("qualified").first).to_be_visible()
    assert fits(inviter)
    assert complaints == []
    inviter.context.close()
    friend.context.close()
