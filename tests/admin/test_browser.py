"""A player and a friend click through the example site in a real browser."""

from __future__ import annotations

import os
import shutil
import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import expect
from playwright.sync_api import Page
from playwright.sync_api import sync_playwright

from tests.test_journey import PASSWORD
from tests.test_journey import Site

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
        pytest.skip("Not installed: a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        browser.close()


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


@pytest.mark.slow
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
