from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from flask import Flask
from flask.cli import ScriptInfo

from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_command_is_listed_with_a_whole_sentence(run: Run, app: Flask) -> None:
    lines = run(app, "--help").output.partition("Commands:\n")[2].splitlines()
    assert len(lines) == len(command.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_each_option_says_what_it_does() -> None:
    for name, each in command.commands.items():
        for option in each.params:
            if isinstance(option, click.Option):
                assert (option.help or "").endswith("."), (name, option.opts)


@pytest.mark.parametrize(
    ("no_color", "is_coloured"), [("", True), ("1", False)], ids=["", "NO_COLOR"]
)
def test_colours_are_for_terminals_that_want_them(
    app: Flask,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    no_color: str,
    is_coloured: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    info = ScriptInfo(create_app=lambda: app)
    for name in ("status", "check"):
        assert "\x1b" not in run(app, name).output
        # As if it were a terminal.
        result = app.test_cli_runner().invoke(command, [name], obj=info, color=True)
        assert ("\x1b[32m" in result.output) == is_coloured


@pytest.mark.parametrize(
    ("args", "label"),
    [
        (["deliver"], "Sending"),
        (["export", "--output", "events.csv"], "Exporting"),
        (["purge", "--older-than", "1", "--yes"], "Purging"),
        (["qualify", *map(str, range(60))], "Recording"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_takes_long_shows_its_progress_on_a_terminal(
    make_app: MakeApp,
    run: Run,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    args: list[str],
    label: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    app = make_app(DELIVERY="manual")
    with app.app_context():
        for player in range(60):
            registered(player, token=mmolove_sandbox.mint())
    assert label not in run(app, *args).output
    with app.app_context():
        for player in range(60, 120):
            registered(player, token=mmolove_sandbox.mint())
    terminal = Terminal()
    invoke = app.test_cli_runner().invoke
    # The runner replaces sys.stderr itself.
    module = sys.modules["flask_mmolove.admin.cli.site"]
    info = ScriptInfo(create_app=lambda: app)
    with monkeypatch.context() as patch:
        patch.setattr(module, "sys", SimpleNamespace(stderr=terminal))
        output = invoke(command, args, obj=info).output
    assert label not in output
    assert f"{label}  [####################################]  100%" in (
        terminal.getvalue()
    )


def test_a_mistake_in_the_settings_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(
        "from flask import Flask\nfrom flask_mmolove import MMOLove\n"
        "app = Flask(__name__)\nMMOLove(app)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "game", "mmolove", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: MMOLOVE_SERVER_ID is not set.")
    assert "FLASK_MMOLOVE_SERVER_ID" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_app_without_mmolove_is_told_so(run: Run) -> None:
    result = run(Flask("bare"), "status")
    assert result.exit_code == 1
    assert "Did you forget mmolove.init_app(app)" in result.output


def test_switched_off_is_an_error(make_app: MakeApp, run: Run) -> None:
    result = run(make_app(ENABLED=False), "status")
    assert "MMOLOVE_ENABLED is false" in result.output
