"""The whole way over real sockets, through the example site as its README starts it."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parent.parent
PASSWORD = "will-o-the-wisp"
LOOT = "cape received"


class Site:
    """The example site in a process of its own, with its stand-in for MMOLove."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._ports = [_free_port(), _free_port()]
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.sandbox_url = f"http://127.0.0.1:{self._ports[1]}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "example_app"),
                *("--port", str(self._ports[0])),
                *("--sandbox-port", str(self._ports[1])),
                *("--data", str(self._data)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        # It prints its guide once it listens.
        assert any(self.url in line for line in self._process.stdout)

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


class Browser(requests.Session):
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

    def level_up(self) -> None:
        for _ in range(4):
            self.fill("/character", "/character/fight")


@pytest.fixture
def site(tmp_path: Path) -> t.Iterator[Site]:
    site = Site(tmp_path / "data")
    yield site
    with contextlib.suppress(subprocess.TimeoutExpired):
        site.stop(signal.SIGKILL)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_from_a_share_link_to_the_loot(site: Site, end: int) -> None:
    site.start()
    inviter, friend = Browser(site), Browser(site)
    inviter.join("Anna")
    link = re.search(r"http://[^\"<]+/invite/[\w.-]+", inviter.read("/friends"))
    assert link

    # The friend follows the link by way of MMOLove, and arrives with a token.
    response = friend.get(link[0], timeout=10)
    assert [r.url.split("?")[0] for r in response.history[1:]] == [
        f"{site.sandbox_url}/r/lanternmoor"
    ]
    assert "mmref=" in response.url
    friend.join("Ben")
    assert site.wait_for_arrivals(1) == [("registered", 200)]

    site.stop(end)
    site.start()
    friend.level_up()
    reported = [("registered", 200), ("qualified", 200)]
    assert site.wait_for_arrivals(2) == reported
    deadline = time.monotonic() + 30
    while LOOT not in inviter.read("/friends") and time.monotonic() < deadline:
        time.sleep(0.05)

    friend.level_up()
    site.stop()
    site.start()
    assert site.wait_for_arrivals(2) == reported
    assert inviter.read("/friends").count(LOOT) == 1


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return t.cast(int, sock.getsockname()[1])
