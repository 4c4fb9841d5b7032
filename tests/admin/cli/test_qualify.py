"""``flask mmolove qualify``."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.cli import ScriptInfo

from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.conftest import Hold
from tests.conftest import MakeApp


@pytest.fixture
def app(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Flask:
    app = make_app(DELIVERY="manual")
    with app.app_context():
        for player in ("1", "2"):
            registered(player, token=mmolove_sandbox.mint())
    return app


def run(app: Flask, *args: str, input: bytes | None = None) -> tuple[int, str]:
    info = ScriptInfo(create_app=lambda: app)
    result = app.test_cli_runner().invoke(
        command, ["qualify", *args], obj=info, input=input
    )
    return result.exit_code, result.output


def recorded(app: Flask) -> list[str]:
    state: State = app.extensions["mmolove"]
    entries = state.outbox.inspector.page(limit=99)
    return sorted(entry.identity for entry in entries if entry.event == "qualified")


def test_ids_as_arguments(app: Flask) -> None:
    words = "1 recorded, 0 known already, 1 not referred.\n"
    assert run(app, "1", "9") == (0, words)
    assert run(app, "1") == (0, "0 recorded, 1 known already, 0 not referred.\n")
    assert recorded(app) == ["1"]


@pytest.mark.parametrize(
    "text",
    [b"1\n2\n", b"\xef\xbb\xbf1\r\n\r\n  2  \r\n\r\n", b"1\n2", b"\n\n1\n1\n2\n2\n"],
    ids=repr,
)
def test_ids_from_standard_input(app: Flask, text: bytes) -> None:
    code, output = run(app, "-", input=text)
    assert code == 0 and output.startswith("2 recorded, ")
    assert recorded(app) == ["1", "2"]


def test_what_is_no_id_is_skipped_with_a_word(app: Flask) -> None:
    code, output = run(app, "-", input=b"1\n" + b"x" * 300 + b"\n\xff\xfe\n")
    assert code == 0
    assert "Skipped 'xxx" in output and "longer than" in output
    assert "1 recorded, 0 known already, 1 not referred." in output


def test_a_dry_run_stores_nothing(app: Flask) -> None:
    assert run(app, "--dry-run", "1", "9") == (
        0,
        "1 would be recorded, 0 known already, 1 not referred.\n",
    )
    assert recorded(app) == []


def test_without_ids_it_says_what_it_takes(app: Flask) -> None:
    code, output = run(app)
    assert code == 2 and "- for standard input" in output
    assert run(app, "-", input=b"") == (
        0,
        "0 recorded, 0 known already, 0 not referred.\n",
    )


def test_what_cannot_be_stored_is_told_by_the_exit_code(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mmolove.recording.recorder.TIMEOUT", 0.1)
    with Hold(app):
        code, output = run(app, "1", "2")
    assert code == 1 and "2 could not be stored" in output
    monkeypatch.undo()
    assert run(app, "1", "2")[0] == 0
    assert recorded(app) == ["1", "2"]
