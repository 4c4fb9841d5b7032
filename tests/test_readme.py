"""The README: its quickstart runs as printed, and its tables and links are true."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import requests

from example_app.servers import free_port
from flask_mmolove import MMOLove
from flask_mmolove.settings import DEFAULTS
from flask_mmolove.settings import REQUIRED
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

#: Where the README's own site is, and its sandbox.
FOLDER = "/home/you/game"
SANDBOX = "http://127.0.0.1:8765"


def block(language: str) -> str:
    """The README's first block in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


class Terminal:
    """What a reader types in the folder of ``app.py``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.variables: dict[str, str] = {}

    def _options(self) -> dict[str, t.Any]:
        return {
            "cwd": self._folder,
            "env": {**os.environ, **self.variables, "PYTHONUNBUFFERED": "1"},
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }

    def run(self, command: str) -> str:
        done = subprocess.run(_words(command), timeout=60, **self._options())
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    @contextlib.contextmanager
    def start(self, command: str, ready: str) -> t.Iterator[str]:
        """Run a command in the background, and give what it printed up to a line."""
        process = subprocess.Popen(_words(command), **self._options())
        try:
            said = ""
            for line in process.stdout or ():
                said += line
                if ready in line:
                    break
            assert ready in said, said
            yield said
        finally:
            process.send_signal(signal.SIGINT)  # Ctrl+C
            process.communicate(timeout=20)


def exports(text: str) -> dict[str, str]:
    """The variables that a text sets."""
    lines = "".join(re.findall(r"export(.*)", text))
    return dict(re.findall(r"(\w+)=(\S+)", lines))


def _words(command: str) -> list[str]:
    return [sys.executable, "-m", *command.split()]


@pytest.mark.slow
def test_the_quickstart_runs_as_printed(tmp_path: Path) -> None:
    app = block("python")
    assert len(app.splitlines()) <= 40
    (tmp_path / "app.py").write_text(app)
    terminal = Terminal(tmp_path)
    port = free_port()
    site = f"http://127.0.0.1:{port}"
    sandbox = f"flask mmolove sandbox --port 0 --register-url {site}/register"
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(terminal.start(sandbox, "Ctrl+C"))
        url = re.findall(r"http://\S+(?=/api/)", said)[0]
        terminal.variables = exports(block("sh").replace(SANDBOX, url))
        assert {"FLASK_SECRET_KEY": "dev"} | exports(said) == terminal.variables
        with terminal.start(f"flask run -p {port}", "Running on"):
            earn_a_cape(site)
        checked = terminal.run("flask mmolove check")
    checked = checked.replace(str(tmp_path), FOLDER).replace(url, SANDBOX)
    checked = re.sub(r"\d+ seconds? ago", "50 seconds ago", checked)
    assert f"$ flask mmolove check\n{checked}" == block("console")


def earn_a_cape(site: str) -> None:
    """Do what the README's steps say, in two browser profiles."""
    referrer, friend = requests.Session(), requests.Session()
    for profile in (referrer, friend):
        profile.trust_env = False
    assert "Create an account" in referrer.get(f"{site}/").text
    page = referrer.post(f"{site}/register").text
    assert "Capes: 0." in page
    (link,) = re.findall(r"http\S+/invite/\S+", page)
    arrival = friend.get(link)
    assert "/register?mmref=" in arrival.url
    friend.post(arrival.url)
    friend.post(f"{site}/")
    deadline = time.monotonic() + 60
    while "Capes: 1." not in referrer.get(f"{site}/").text:
        assert time.monotonic() < deadline
        time.sleep(0.1)  # a thread of another process grants it


def test_it_is_not_long() -> None:
    assert len(README.splitlines()) <= 150


def test_the_table_of_settings_is_true() -> None:
    rows = re.findall(r"^\| (`MMOLOVE_.*?) \| (.*?) \|", README, re.MULTILINE)
    told = {
        name: d for names, d in rows for name in re.findall(r"MMOLOVE_(\w+)", names)
    }
    assert len(told) == 5
    required = {name: "required" for name in REQUIRED}
    true = required | {name: f"`{value}`" for name, value in DEFAULTS.items()}
    assert told.items() <= true.items()


def test_each_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^):#]+)[^):]*\)", README)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_what_is_said_of_cookies_is_true(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    client = make_app(MMOLove()).test_client()
    response = client.get(f"/?mmref={mmolove_sandbox.mint()}")
    cookie = response.headers.getlist("Set-Cookie")[0]
    assert cookie.startswith("mmolove_ref=")
    assert f"Max-Age={90 * 86400}" in cookie
    assert "HttpOnly" in cookie
