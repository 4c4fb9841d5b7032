"""The programs of ``docs/howto/milestones.md`` that call the site, as printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "milestones.md"
SECRET = "the game server's own secret, 40 letters"

#: How a listing of the page is run; ``{}`` is its file.
PROGRAMS = {
    "java": ("Qualified.java", ["java", "{}", "7842"]),
    "lua": ("qualified.lua", ["lua5.4", "{}", "7842"]),
    "php": ("qualified.php", ["php", "{}", "7842"]),
    "sh": ("qualified.sh", ["sh", "{}"]),
}


@pytest.fixture
def app(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Flask:
    mmolove = MMOLove()
    app = make_app(mmolove, DELIVERY="manual")
    app.register_blueprint(mmolove.game(secret=SECRET), url_prefix="/game")
    with app.app_context():
        registered("7842", token=mmolove_sandbox.mint())
    return app


@pytest.fixture
def url(app: Flask) -> t.Iterator[str]:
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def listing(language: str) -> str:
    found: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return found[0]


# The JVM takes its time.
@pytest.mark.parametrize(
    "language",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "java" else [])
        for name in PROGRAMS
    ],
)
def test_the_site_hears_of_the_milestone(
    language: str, app: Flask, url: str, tmp_path: Path
) -> None:
    name, command = PROGRAMS[language]
    if (
        shutil.which(command[0]) is None
        or language == "sh"
        and not shutil.which("curl")
    ):
        pytest.skip(f"Not installed: {command[0]}")
    file = tmp_path / name
    file.write_text(listing(language))
    state: State = app.extensions["mmolove"]

    def run(secret: str) -> str:
        done = subprocess.run(
            [part.format(file) for part in command],
            env={**os.environ, "SITE": url, "GAME_SECRET": secret},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with app.app_context():
        refused = run("another")
        assert "false" in refused or "error" in refused
        assert set(state.recorder.entries("7842")) == {"registered"}
        stored = run(SECRET)
        assert "true" in stored or "recorded" in stored
        assert set(state.recorder.entries("7842")) == {"registered", "qualified"}


def test_the_callback_of_the_page_asks_the_game_s_database(
    app: Flask, tmp_path: Path
) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy import text

    game = create_engine(f"sqlite:///{tmp_path}/game.db")
    with game.begin() as connection:
        connection.execute(text("CREATE TABLE characters (account INT, level INT)"))
        for account, level in ((7842, 19), (7842, 21), (1, 60)):
            values = {"account": account, "level": level}
            connection.execute(
                text("INSERT INTO characters VALUES (:account, :level)"), values
            )
    mmolove = MMOLove()
    state: State = app.extensions["mmolove"]
    names: dict[str, t.Any] = {"mmolove": mmolove}
    exec(listing("python"), names)
    names["game"] = game
    state.callbacks.milestone = names["reached_level_20"]
    with app.app_context():
        assert state.asker.ask() == 1
        assert set(state.recorder.entries("7842")) == {"registered", "qualified"}
    game.dispose()
