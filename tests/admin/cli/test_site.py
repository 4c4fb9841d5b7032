from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flask import Flask

from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


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
