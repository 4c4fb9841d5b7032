from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import MMOLove
from flask_mmolove import Outcome
from flask_mmolove import qualify
from flask_mmolove import ReferralClient
from flask_mmolove import registered
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp
from tests.outbox.recording import add


def test_it_sends_what_is_due(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(DELIVERY="manual")
    with app.app_context():
        registered(8, token="junk")
        registered(7, token=mmolove_sandbox.mint())
    words = (
        "warning   Waiting for you: 1 rejected (HTTP 404: unknown_token).\n"
        "          See 'flask mmolove retry --list'."
    )
    output = run(app, "deliver").output
    assert output == f"1 accepted, 1 rejected; 0 pending.\n{words}\n"
    assert mmolove_sandbox.reported == [("registered", "7")]
    assert "Nothing was due; 0 pending." in run(app, "deliver").output


def test_several_are_sent_at_once(
    make_app: MakeApp,
    run: Run,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app(DELIVERY="manual", CONCURRENCY=2)
    with app.app_context():
        for player in range(2):
            registered(player, token=mmolove_sandbox.mint())
    meet, send = threading.Barrier(2), ReferralClient.send

    def send_together(client: ReferralClient, body: bytes) -> Outcome:
        meet.wait(20)
        return send(client, body)

    monkeypatch.setattr(ReferralClient, "send", send_together)
    assert run(app, "deliver").output.startswith("2 accepted; 0 pending.")


def test_an_outage_is_no_success(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove_sandbox.sandbox.faults = Faults(fail=503)
    app = make_app(DELIVERY="manual")
    with app.app_context():
        for player in range(6):
            registered(player, token=mmolove_sandbox.mint())
    result = run(app, "deliver")
    assert result.exit_code == 1
    first, second, _ = result.output.splitlines()
    assert first == "6 tried, none accepted; 6 pending."
    assert second.startswith("critical  MMOLove has been failing for")


def test_as_a_service_it_goes_on_until_it_is_told_to_stop(
    tmp_path: Path, mmolove_sandbox: SiteSandbox
) -> None:
    (tmp_path / "game.py").write_text(
        "from flask import Flask\nfrom flask_mmolove import MMOLove\n"
        "app = Flask(__name__)\napp.config.from_prefixed_env()\nMMOLove(app)\n"
    )
    environment = {**os.environ, "FLASK_MMOLOVE_DELIVERY": "manual"}
    for key, value in mmolove_sandbox.config.items():
        environment.setdefault(f"FLASK_{key}", json.dumps(str(value)))
    flask = [sys.executable, "-m", "flask", "--app", "game"]
    process = subprocess.Popen(
        [*flask, "mmolove", "deliver", "--forever"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "until stopped" in process.stderr.readline()
    outbox = SQLiteOutbox(mmolove_sandbox.config["MMOLOVE_OUTBOX"])
    add(outbox, token=mmolove_sandbox.mint(), now=10**12, server_id="demo-server")
    outbox.close()
    deadline = time.monotonic() + 60
    while not mmolove_sandbox.reported and time.monotonic() < deadline:
        time.sleep(0.1)  # it is another process, that looks by itself
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert mmolove_sandbox.reported == [("registered", "7")]


def test_it_sends_at_once_what_waited_for_the_breaker(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    broken = make_app(REFERRAL_SECRET="a typo")
    with broken.app_context():
        for player in range(1, 6):
            registered(player, token=mmolove_sandbox.mint())
    assert "HTTP 401" in run(broken, "status").output
    app = make_app(DELIVERY="manual")
    mmolove_sandbox.sandbox.faults = Faults(fail=503)
    for _ in range(9):
        run(app, "deliver", "--now")
    mmolove_sandbox.sandbox.faults = Faults()
    output = run(app, "deliver").output
    assert "5 pending" in output
    assert "'flask mmolove deliver --now' makes an attempt at once" in output
    due = run(app, "show", "1").output
    assert re.search(r"^next +20", due, re.M)
    result = run(app, "deliver", "--now")
    assert result.output.startswith("5 accepted; 0 pending.")
    assert result.exit_code == 0


def test_rewards_that_were_paused_are_granted(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    given: list[str] = []
    is_up = False

    @mmolove.reward
    def grant(referral: t.Any) -> None:
        if not is_up:
            raise RuntimeError("the game is down")
        given.append(referral.identity)

    app = make_app(mmolove, DELIVERY="manual")
    with app.app_context():
        for player in range(1, 5):
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
    run(app, "deliver")
    assert "Rewards have been paused" in run(app, "status").output
    is_up = True
    run(app, "deliver")
    assert given == []
    run(app, "deliver", "--now")
    assert sorted(given) == ["1", "2", "3", "4"]
