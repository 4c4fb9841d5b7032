"""The tutorial, ``docs/tutorial.md``, as printed."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
import typing as t
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from flask.testing import FlaskClient

from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.sandbox import Sandbox

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()


def listing(language: str, after: str) -> str:
    """A listing of the page, the first one after some words."""
    found = re.search(
        rf"```{language}\n(.*?)^```", PAGE.partition(after)[2], re.S | re.M
    )
    assert found is not None
    return found[1]


class Site:
    """The site of the page, beside a sandbox that runs as the page's."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        file = folder / "app.py"
        file.write_text(listing("python", "## Write the site"))
        spec = importlib.util.spec_from_file_location("app", file)
        assert spec is not None and spec.loader is not None
        module = sys.modules["app"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.app: Flask = module.app
        self.sandbox = sandbox
        self._db = module.db

    def close(self) -> None:
        state = self.app.extensions["mmolove"]
        state.engine.stop()
        state.outbox.close()
        with self.app.app_context():
            self._db.engine.dispose()
        del sys.modules["app"]

    def join(self, browser: FlaskClient, name: str) -> None:
        browser.post("/register", data={"name": name})

    def follow(self, link: str) -> FlaskClient:
        """A friend opens a link, goes through the sandbox, and comes back."""
        browser = self.app.test_client()
        there = browser.get(urlsplit(link).path).location
        back = requests.get(there, allow_redirects=False, timeout=10).headers[
            "Location"
        ]
        assert back.startswith("http://127.0.0.1:5000/register?mmref=")
        path = back.removeprefix("http://127.0.0.1:5000")
        assert "<form" in browser.get(path).text
        return browser

    def page(self, browser: FlaskClient) -> str:
        return browser.get("/").text

    def wait_for(self, browser: FlaskClient, text: str) -> str:
        end = time.monotonic() + 20
        while text not in (page := self.page(browser)):
            assert time.monotonic() < end, page
            time.sleep(0.01)
        return page

    def run(self, name: str) -> list[str]:
        info = ScriptInfo(create_app=lambda: self.app)
        return plain(CliRunner().invoke(command, [name], obj=info).output)


def plain(text: str) -> list[str]:
    """Lines without what differs from run to run."""
    text = re.sub(r"http://127.0.0.1:\d+", "http://127.0.0.1:8765", text)
    text = re.sub(r"sqlite:////\S+/instance", "sqlite:////…/instance", text)
    return re.sub(r"\d+ seconds? ago", "… seconds ago", text).strip().splitlines()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Site]:
    exports = listing("sh", "## Start the site")
    for name, value in re.findall(r"^export (\w+)=(\S+)$", exports, re.MULTILINE):
        monkeypatch.setenv(name, value)
    with Sandbox() as sandbox:
        monkeypatch.setenv("FLASK_MMOLOVE_ENDPOINT", sandbox.endpoint)
        site = Site(tmp_path, sandbox)
        yield site
        site.close()


def test_the_first_referral(site: Site) -> None:
    assert site.run("check") == plain(listing("text", "flask mmolove check"))
    ada = site.app.test_client()
    site.join(ada, "Ada")
    link = re.search(r"Your link: (\S+)<", site.page(ada))
    assert link is not None
    ben = site.follow(link[1])
    site.join(ben, "Ben")
    site.wait_for(ben, "Ben, level 1")
    for _ in range(4):
        ben.post("/train")
    assert "level 21" in site.page(ben)
    site.wait_for(ada, "capes: 1")
    assert [e.event for e in site.sandbox.events] == ["registered", "qualified"]
    shown = requests.get(site.sandbox.url, timeout=10).text
    assert shown.count("<h3>registered</h3>") == 2  # a dry run and Ben
    assert shown.count("<h3>qualified</h3>") == 2
    assert site.run("status") == plain(listing("text", "flask mmolove status"))

    cleo = site.follow(link[1])
    site.sandbox.stop()
    site.join(cleo, "Cleo")
    assert "Cleo, level 1" in site.page(cleo)
    [pending] = [line for line in site.run("status") if line.startswith("pending")]
    assert pending.split()[1] == "1"
    site.sandbox.start()
    end = time.monotonic() + 20
    while len(site.sandbox.events) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_sandbox_prints_what_the_page_says() -> None:
    sandbox = importlib.import_module("flask_mmolove.admin.cli.sandbox")
    url = "http://127.0.0.1:5000/register"
    with Sandbox() as server:
        printed = sandbox._introduction(server, "demo-secret", url)
    assert plain(printed) == plain(listing("text", "## Start the sandbox"))
