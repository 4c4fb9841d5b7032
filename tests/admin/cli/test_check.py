from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from flask import Flask

from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


def test_everything_works(app: Flask, run: Run) -> None:
    result = run(app, "check")
    assert result.exit_code == 0
    lines = [line.split()[:2] for line in result.output.splitlines()]
    names = ["settings", "session", "outbox", "clock", "registered", "qualified"]
    assert [name for mark, name in lines if mark == "ok"] == names
    # What may be intended is no failure.
    others = [line for line in lines if line[0] != "ok"]
    assert others == [["warn", name] for name in ("reward", "invite", "signup")]


def test_a_site_that_keeps_no_session_is_found(app: Flask, run: Run) -> None:
    app.config["SECRET_KEY"] = None
    result = run(app, "check")
    assert result.exit_code == 1
    assert "FAIL  session" in result.output
    assert "SECRET_KEY" in result.output


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"REFERRAL_SECRET": "a typo"}, ["HTTP 401", "MMOLOVE_REFERRAL_SECRET"]),
        ({"SERVER_ID": "nobody"}, ["HTTP 404", "MMOLOVE_SERVER_ID"]),
        ({"ENDPOINT": "http://127.0.0.1:1/"}, ["refused", "No response came"]),
    ],
)
def test_a_mistake_is_one_line_with_the_key(
    make_app: MakeApp,
    run: Run,
    settings: dict[str, str],
    words: list[str],
) -> None:
    result = run(make_app(**settings), "check")
    assert result.exit_code == 1
    (line,) = [x for x in result.output.splitlines() if x.startswith("FAIL  reg")]
    assert all(word in line for word in words)
    assert "a typo" not in result.output


def test_an_outbox_that_cannot_be_written_is_found(app: Flask, run: Run) -> None:
    outbox = app.extensions["mmolove"].outbox
    outbox.create()
    with outbox._db.reading() as db:
        db.execute("PRAGMA query_only = ON")
    result = run(app, "check")
    assert result.exit_code == 1
    assert "FAIL  outbox" in result.output


def test_an_outbox_that_cannot_be_used_is_found(
    make_app: MakeApp, run: Run, tmp_path: Path
) -> None:
    result = run(make_app(OUTBOX=tmp_path), "check")
    assert result.exit_code == 1
    assert "FAIL  outbox      The outbox" in result.output


def test_a_wrong_clock_is_found(
    app: Flask, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove_sandbox.sandbox.faults = Faults(clock=200)
    result = run(app, "check")
    assert result.exit_code == 1
    # A Date has whole seconds, and the way there takes its time.
    assert re.search(r"FAIL  clock +(19|20)\d s behind MMOLove's", result.output)


def test_it_writes_nothing(app: Flask, run: Run, mmolove_sandbox: SiteSandbox) -> None:
    findings = json.loads(run(app, "check", "--json").output)
    assert all(finding["level"] != "critical" for finding in findings)
    outcomes = [a.outcome for a in mmolove_sandbox.sandbox.arrivals]
    assert outcomes == ["test", "test"]
