"""The whole way over real sockets, through the example site as its README starts it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser
from playwright.sync_api import expect
from playwright.sync_api import Page

from example_app.servers import free_port
from tests.browser import browser as browser
from tests.browser import fits

ROOT = Path(__file__).parent.parent
PASSWORD = "will-o-the-wisp"
LOOT = "Founder&#39;s cape"

#: Seconds that a level takes in the game: in no time, or not as long as the test.
SOON, NEVER = "0.02", "3600"

pytestmark = pytest.mark.slow


class Site:
    """The example site in a process of its own, with its sandbox."""

    def __init__(self, data: Path, *options: str) -> None:
        self._data = data
        self._options = ("--data", str(data), *options)
        self.guide: dict[str, str] = {}
        self._ports = [free_port(), free_port()]
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.sandbox_url = f"http://127.0.0.1:{self._ports[1]}"
        self._process: subprocess.Popen[str] | None = None

    def start(self, level: str = SOON) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "example_app"),
                *("--port", str(self._ports[0])),
                *("--sandbox-port", str(self._ports[1])),
                *("--level", level),
                *self._options,
            ],
            cwd=ROOT,
            env={**os.environ, "FLASK_MMOLOVE_MILESTONE_INTERVAL": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        # It prints its guide once it listens.
        for line in iter(self._process.stdout.readline, ""):
            name, _, where = line.strip().partition("  ")
            self.guide[name] = where.strip()
            if line.startswith("  Ctrl+C"):
                return
        raise AssertionError("It did not start.")

    def stop(self, number: int = signal.SIGINT) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.communicate(timeout=20)
            self._process = None

    @property
    def arrivals(self) -> list[dict[str, t.Any]]:
        history = requests.get(f"{self.sandbox_url}/history.json", timeout=10).json()
        return t.cast("list[dict[str, t.Any]]", history["arrivals"])

    def wait_for_arrivals(self, count: int) -> list[tuple[str, int]]:
        """Delivery is another thread of another process: only asking tells."""
        deadline = time.monotonic() + 30
        while len(self.arrivals) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return [(a["event"], a["status"]) for a in self.arrivals]

    def wait_until_accepted(self) -> None:
        """A claim that a kill leaves behind would have to run out, which takes long."""
        deadline = time.monotonic() + 30
        states: list[t.Any] = []
        with contextlib.closing(sqlite3.connect(self._data / "lanternmoor.db")) as db:
            while states != [("accepted",)]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
                states = db.execute("SELECT state FROM mmolove_event").fetchall()

    def wait_for_gift(self, referrer: Visitor) -> None:
        """Until the friends page says that there is one."""
        deadline = time.monotonic() + 60
        while f"{LOOT} for friend 1" not in referrer.read("/friends"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def in_the_bag(self, referrer: Visitor, name: str) -> int:
        """How often the loot is in the bag after the next login."""
        referrer.log_in_again(name)
        deadline = time.monotonic() + 30
        # The game lets the player in at its next tick.
        while LOOT not in (page := referrer.read("/character")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return page.count(LOOT)


class Visitor(requests.Session):
    """A visitor with cookies."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site

    def read(self, path: str) -> str:
        response = self.get(self._site.url + path, timeout=10)
        assert response.status_code == 200
        return response.text

    def fill(self, page: str, path: str, **fields: str) -> str:
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.read(page))
        assert found
        data = {"csrf_token": found[1], **fields}
        response = self.post(self._site.url + path, data=data, timeout=10)
        assert response.status_code == 200
        return response.text

    def join(self, name: str) -> None:
        self.fill("/join", "/join", name=name, password=PASSWORD)

    def log_out(self) -> None:
        self.fill("/friends", "/logout")

    def log_in_again(self, name: str) -> None:
        self.log_out()
        self.fill("/login", "/login", name=name, password=PASSWORD)


@pytest.fixture
def site(tmp_path: Path) -> t.Iterator[Site]:
    site = Site(tmp_path / "data")
    yield site
    with contextlib.suppress(subprocess.TimeoutExpired):
        site.stop(signal.SIGKILL)


def bring_a_friend(site: Site) -> tuple[Visitor, Visitor]:
    """A referrer, and a friend who has joined by the referrer's link."""
    referrer, friend = Visitor(site), Visitor(site)
    referrer.join("Anna")
    link = re.search(r"http://[^\"<]+/invite/[\w.-]+", referrer.read("/friends"))
    assert link

    # The friend follows the link by way of MMOLove, and arrives with a token.
    response = friend.get(link[0], timeout=10)
    assert [r.url.split("?")[0] for r in response.history[1:]] == [
        f"{site.sandbox_url}/r/lanternmoor"
    ]
    assert "mmref=" in response.url
    friend.join("Ben")
    return referrer, friend


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_from_a_share_link_to_the_loot(site: Site, end: int) -> None:
    site.start(NEVER)
    referrer, friend = bring_a_friend(site)
    friend.log_out()
    site.wait_until_accepted()
    site.stop(end)
    site.start()
    assert f"5. Anna sees the dashboard: {site.url}/mmolove" in site.guide

    # The game levels the friend up, who is not there, and nobody calls Python.
    site.wait_for_gift(referrer)
    assert site.wait_for_arrivals(2) == [("registered", 200), ("qualified", 200)]
    assert LOOT not in referrer.read("/character")
    assert site.in_the_bag(referrer, "Anna") == 1

    site.stop(end)
    site.start()
    assert site.in_the_bag(referrer, "Anna") == 1


def _open(browser: Browser, complaints: list[str], width: int) -> Page:
    page = browser.new_context(viewport={"width": width, "height": 844}).new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def _join(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("main").get_by_role("button").click()
    expect(page.get_by_text(f"Welcome to Lanternmoor, {name}.")).to_be_visible()


def _look_for(page: Page, words: str) -> None:
    """Reload a page until it says this."""
    found = page.get_by_text(words, exact=True)
    for _ in range(300):
        if found.count():
            break
        page.reload()
    expect(found.first).to_be_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_friend_is_worth_one_cape(browser: Browser, site: Site, width: int) -> None:
    site.start()
    complaints: list[str] = []
    referrer = _open(browser, complaints, width)
    referrer.goto(f"{site.url}/join")
    _join(referrer, "Anna")
    referrer.goto(f"{site.url}/friends")
    assert fits(referrer)
    link = referrer.locator("input[readonly]").input_value()

    friend = _open(browser, complaints, width)
    friend.goto(link)
    assert "mmref=" in friend.url
    assert fits(friend)
    _join(friend, "Ben")
    assert fits(friend)
    friend.get_by_role("button", name="Log out").click()
    assert site.wait_for_arrivals(2) == [("registered", 200), ("qualified", 200)]

    _look_for(referrer, "Founder's cape for friend 1")
    assert fits(referrer)
    referrer.get_by_role("button", name="Log out").click()
    referrer.goto(f"{site.url}/character")
    referrer.get_by_label("Name").fill("Anna")
    referrer.get_by_label("Password").fill(PASSWORD)
    referrer.get_by_role("main").get_by_role("button").click()
    _look_for(referrer, "Founder's cape")
    assert referrer.url.endswith("/character")
    assert fits(referrer)

    referrer.goto(site.sandbox_url)
    expect(referrer.get_by_text("qualified").first).to_be_visible()
    assert fits(referrer)
    assert complaints == []
    referrer.context.close()
    friend.context.close()


def test_the_same_on_postgresql_and_celery_and_nothing_is_left_behind(
    tmp_path: Path, postgresql: object, valkey: object
) -> None:
    site = Site(tmp_path, "--scale")
    try:
        site.start()
        referrer, _ = bring_a_friend(site)
        site.wait_for_gift(referrer)
        assert site.in_the_bag(referrer, "Anna") == 1
        assert site.wait_for_arrivals(2) == [("registered", 200), ("qualified", 200)]
        folder = site.guide["Logs"].rstrip("/")
        assert len(processes_of(folder)) >= 6
    finally:
        site.stop(signal.SIGTERM)
    assert processes_of(folder) == []
    assert not Path(folder).exists()
    for name in ("PostgreSQL", "Celery"):
        port = re.search(r"127\.0\.0\.1:(\d+)", site.guide[name])
        assert port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port[1])), 5)


def processes_of(folder: str) -> list[str]:
    """Those that were started with the folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.parametrize("option", ["--port", "--sandbox-port"])
@pytest.mark.parametrize("more", [(), ("--scale",)])
def test_a_port_that_is_taken_is_one_line(
    tmp_path: Path, option: str, more: tuple[str, ...]
) -> None:
    ports = {"--port": free_port(), "--sandbox-port": free_port()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[option] = taken.getsockname()[1]
        done = subprocess.run(
            [
                *(sys.executable, "-W", "error", "-m", "example_app"),
                *(str(each) for pair in ports.items() for each in pair),
                *("--data", str(tmp_path), *more),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.endswith(f"Address already in use. Try another {option}.\n")
    assert len(done.stderr.splitlines()) == 1
