"""What ``docs/howto/deploying.md`` and ``alerts.md`` run, as printed."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from example_app.servers import free_port
from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp
from tests.reliability.recycling import SERVERS

DOCS = Path(__file__).parents[1] / "docs" / "howto"
BIN = Path(sys.executable).parent

SITE = """
from flask import Flask, request
from flask_mmolove import MMOLove, registered

app = Flask(__name__)
app.config.from_prefixed_env()
mmolove = MMOLove(app)


@app.post("/signup")
def signup():
    registered(request.args["player"])
    return "welcome"
"""

pytestmark = pytest.mark.slow


def listing(language: str, after: str, page: str = "deploying.md") -> str:
    """A listing of a page, the first one after some words."""
    text = (DOCS / page).read_text().partition(after)[2]
    found = re.search(rf"```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


class Site:
    """The folder of a site, with its environment."""

    def __init__(self, folder: Path, sandbox: SiteSandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        (folder / "wsgi.py").write_text(SITE)
        settings = {**sandbox.sandbox.settings, "SECRET_KEY": "k"}
        settings["MMOLOVE_OUTBOX"] = str(sandbox.config["MMOLOVE_OUTBOX"])
        lines = [f"FLASK_{name}={value}\n" for name, value in settings.items()]
        (folder / "environment").write_text("".join(lines))
        self.environment = {
            **os.environ,
            **dict(line.strip().split("=", 1) for line in lines),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
        }

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment | environment
        )

    def sh(self, line: str) -> str:
        """What a line of the shell prints, with no more environment than cron gives."""
        names = ("PATH", "PYTHONPATH", "FLASK_APP")
        few = {name: self.environment.get(name, "") for name in names}
        done = subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env=few, capture_output=True, text=True
        )
        assert not done.stderr
        return done.stdout

    def wait_for(self, reported: list[tuple[str, str]]) -> None:
        end = time.monotonic() + 20
        while self.sandbox.reported != reported:
            assert time.monotonic() < end, self.sandbox.reported
            time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path, mmolove_sandbox: SiteSandbox) -> Site:
    return Site(tmp_path, mmolove_sandbox)


@pytest.fixture
def waiting(site: Site, make_app: MakeApp) -> Site:
    """A site with a player who is not reported yet."""
    with make_app(MMOLove(), DELIVERY="manual").app_context():
        registered("7", token=site.sandbox.mint())
    return site


def serve(site: Site, name: str, port: int) -> subprocess.Popen[bytes]:
    if missing := SERVERS[name].missing():
        words = f"Not installed: {', '.join(missing)}"
        (pytest.fail if "CI" in os.environ else pytest.skip)(words)
    match name:
        case "gunicorn gthread":
            command = shlex.split(listing("sh", "## gunicorn"))
            return site.start(command, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port}")
        case "gunicorn sync":
            line = listing("dockerfile", "## Docker").partition("CMD ")[2]
            address = f"127.0.0.1:{port}"
            return site.start(json.loads(line.replace("0.0.0.0:8000", address)))
        case "waitress":
            line = listing("sh", "## waitress").replace("8000", str(port))
            return site.start(shlex.split(line))
        case _:
            (site.folder / "uwsgi.ini").write_text(listing("ini", "## uWSGI"))
            more = ["--home", sys.prefix, "--http-socket", f"127.0.0.1:{port}"]
            return site.start(["uwsgi", "uwsgi.ini", *more])


@pytest.mark.parametrize(
    "name", ["gunicorn gthread", "gunicorn sync", "uwsgi", "waitress"]
)
def test_a_server_delivers(name: str, site: Site) -> None:
    port = free_port()
    process = serve(site, name, port)
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        url = f"http://127.0.0.1:{port}/signup?player=7&mmref={site.sandbox.mint()}"
        assert requests.post(url, timeout=10).text == "welcome"
        site.wait_for([("registered", "7")])
    finally:
        process.send_signal(SERVERS[name].stop)
        process.wait(20)


def test_cron_delivers(waiting: Site) -> None:
    line = listing("text", "**cron**").strip()
    assert line.startswith("* * * * * ")
    line = line.removeprefix("* * * * * ").replace("/srv/site", str(waiting.folder))
    assert waiting.sh(line.replace(".venv/bin/flask", str(BIN / "flask"))) == ""
    assert waiting.sandbox.reported == [("registered", "7")]


def test_the_service_delivers(waiting: Site) -> None:
    unit = configparser.ConfigParser()
    unit.read_string(listing("ini", "**A service**"))
    command = shlex.split(unit["Service"]["ExecStart"])
    assert command[0] == "/srv/site/.venv/bin/flask"
    process = waiting.start([str(BIN / "flask"), *command[1:]])
    try:
        waiting.wait_for([("registered", "7")])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_the_monitor_prints_what_is_critical(site: Site, make_app: MakeApp) -> None:
    line = listing("sh", "## A monitor", "alerts.md")
    environment = {**site.environment, "FLASK_APP": "wsgi"}

    def run() -> str:
        done = subprocess.run(
            ["sh", "-c", line], cwd=site.folder, env=environment, capture_output=True
        )
        return done.stdout.decode()

    app = make_app(MMOLove())
    with app.app_context():
        registered("7", token=site.sandbox.mint())
        assert run() == ""
        site.sandbox.sandbox.faults = Faults(fail=500)
        for player in "abcde":
            registered(player, token=site.sandbox.mint())
    assert "MMOLove has been failing" in run()
