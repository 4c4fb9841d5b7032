"""What somebody else wrote forges no line, no cell and no page."""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.testing import SiteSandbox
from flask_mmolove.text import mask
from flask_mmolove.text import printable
from tests.conftest import MakeApp

#: Each is a player's id; the part after the mark must never begin a line.
FORGED = "forged"
HOSTILE = [
    f"1\n{FORGED}",
    f"2\r\n{FORGED}",
    "3\x1b[2J\x1b[31mred",
    "4\x07\x08\x7f\x9b31m",
    "5\u202egnp.exe\u2069",
    "6\u200e\u200f\ufeff\u200b!",
    f"7\u2028{FORGED}\u2029{FORGED}\x85{FORGED}\x0b{FORGED}\x0c{FORGED}",
    "8\tcolumn",
    "=1+1",
    "\uff1d1+1",
    "@SUM(A1)",
    "\uff0bA1",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ann Ö 日本 🐉", "Ann Ö 日本 🐉"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202eabc", "\\u202eabc"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://u:p@h/d?charset=utf8", "mysql://u:***@h/d?charset=utf8"),
        ("mysql://u:p@ss/w:rd@h/d", "mysql://u:***@h/d"),
        ("mysql://:p@h/d", "mysql://:***@h/d"),
        ("mysql://u@h/d?passwd=p&x=1", "mysql://u@h/d?passwd=***&x=1"),
        ("mysql://h/d?x=1&sslPassword=p#q", "mysql://h/d?x=1&sslPassword=***"),
        ("mysql://h/d?%70assword=a%20b", "mysql://h/d?%70assword=***"),
        ("cannot reach redis://:p@h:1/0 now", "cannot reach redis://:***@h:1/0 now"),
        ("https://h:80/a?b=c", "https://h:80/a?b=c"),
        ("C:/folder/mmolove.db", "C:/folder/mmolove.db"),
    ],
)
def test_a_url_is_shown_without_its_passwords(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.fixture
def app(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Flask:
    """A site where everybody invites somebody, and nobody is rewarded."""
    mmolove = MMOLove()

    @mmolove.reward
    def grant(referral: t.Any) -> None:
        raise RuntimeError(f"no such player: {referral.identity}")

    app = make_app(mmolove)
    page = mmolove.dashboard(access=lambda: True)
    app.register_blueprint(page, url_prefix="/mmolove")
    with app.app_context():
        state = app.extensions["mmolove"]
        for referrer, player in zip(HOSTILE[-1:] + HOSTILE, HOSTILE, strict=False):
            report = state.recorder.report(player, None, "registered")
            report = report._replace(token=mmolove_sandbox.mint(), referrer=referrer)
            state.recorder.record(report)
            qualify(player)
        registered(f"junk\n{FORGED}", token="junk")
    return app


def run(app: Flask, *arguments: str) -> str:
    result = CliRunner().invoke(
        command, arguments, obj=ScriptInfo(create_app=lambda: app)
    )
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def check_lines(text: str) -> None:
    for line in text.splitlines():  # by all that any program takes for a line's end
        assert line == "" or line.isprintable(), line
        assert not line.startswith(FORGED)


def test_no_command_prints_it(app: Flask) -> None:
    for arguments in (
        ["events", "--limit", "100"],
        ["events", "--player", HOSTILE[0]],
        ["status"],
        ["check"],
        ["retry", "--list"],
        ["rewards"],
        ["referrers", "--limit", "100"],
        ["export"],
        *(["show", str(id)] for id in range(1, 26)),
        ["forget", "--yes", HOSTILE[0]],
    ):
        output = run(app, *arguments)
        assert output
        check_lines(output)


def test_an_event_is_a_line(app: Flask) -> None:
    lines = run(app, "events", "--limit", "100").splitlines()
    assert len(lines) == 1 + 2 * len(HOSTILE) + 1


def test_json_keeps_every_character(app: Flask) -> None:
    lines = run(app, "events", "--json", "--limit", "100").splitlines()
    assert {json.loads(line)["identity"] for line in lines} >= {*HOSTILE}


def test_no_line_of_the_log_is_forged(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    with app.app_context():
        for player in HOSTILE:
            registered(f"{player}!", token="junk")
    ours = [r for r in caplog.records if r.name == "flask_mmolove"]
    assert len(ours) >= len(HOSTILE)
    for record in ours:
        check_lines(record.getMessage())
        assert "\n" not in record.getMessage()


def test_an_error_that_is_logged_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("flask_mmolove")
    logger.error("It failed: %s (%d of %s)", OSError("a\nb"), 3, None)
    assert caplog.messages == ["It failed: a\\nb (3 of None)"]


def test_every_cell_of_an_export_is_quoted_and_is_no_formula(
    app: Flask, tmp_path: Path
) -> None:
    file = tmp_path / "events.csv"
    run(app, "export", "--output", str(file))
    lines = file.read_text().split("\n")[:-1]
    assert len(lines) == 1 + 2 * len(HOSTILE) + 1
    assert all(line.startswith('"') and line.endswith('"') for line in lines)
    for row in csv.DictReader(lines):
        assert not row["identity"].startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))


def test_no_page_shows_it(app: Flask) -> None:
    client = app.test_client()
    for path in ("", "events", *(f"events/{id}" for id in range(1, 26))):
        response = client.get(f"/mmolove/{path}")
        assert response.status_code == 200
        lines = response.text.split("\n")
        assert [line for line in lines if not line.isprintable()] == []
        assert not any(line.startswith(FORGED) for line in lines)


def test_no_line_of_the_sandboxs_page_is_forged(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    sandbox = mmolove_sandbox.sandbox
    text = sandbox.app.test_client().get("/", base_url=sandbox.url).text
    assert "1\\nforged" in text
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_lacks_a_character_gets_a_mark(
    tmp_path: Path, encoding: str, mmolove_sandbox: SiteSandbox
) -> None:
    config = {
        **mmolove_sandbox.config,
        "MMOLOVE_OUTBOX": str(tmp_path / "mmolove.db"),
        "SECRET_KEY": "not a secret",
    }
    (tmp_path / "game.py").write_text(
        "from flask import Flask\n"
        "from flask_mmolove import MMOLove, registered\n"
        "app = Flask(__name__)\n"
        f"app.config.update({config!r})\n"
        "MMOLove(app)\n"
        "with app.app_context():\n"
        f"    registered('日本', token={mmolove_sandbox.mint()!r})\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "game", "mmolove", "events"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONIOENCODING": encoding,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        },
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    assert b"registered" in result.stdout
    # For ASCII, which is taken for a mistake, click writes UTF-8.
    assert b"??" in result.stdout or encoding == "ascii"
