"""A real browser, for the tests that need one."""

from __future__ import annotations

import os
import shutil
import typing as t

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page
from playwright.sync_api import sync_playwright

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


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.body.scrollWidth <= window.innerWidth"))
