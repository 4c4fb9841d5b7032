from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.admin.wording import MANY
from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


def test_nothing_yet(app: Flask, run: Run) -> None:
    assert "No events yet" in run(app, "status").output


def test_it_counts_events_by_state(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(DELIVERY="manual")
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        qualify(7)
    output = run(app, "status").output
    assert re.search("^pending +2  not delivered yet$", output, re.MULTILINE)
    assert "The oldest pending event has waited" in output
    data = json.loads(run(app, "status", "--json").output)
    assert data["counts"]["pending"] == 2
    assert data["waiting_for_registered"] == 1
    assert data["oldest_pending_seconds"] >= 0


def test_arrivals_are_said_to_be_approximate(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(DELIVERY="manual")
    assert "approximate" not in run(app, "status").output
    app.test_client().get(f"/?mmref={mmolove_sandbox.mint()}")
    output = run(app, "status").output
    assert re.search(r"^Today +1 +0 ", output, re.MULTILINE)
    assert "Arrivals by link are approximate." in output


def test_what_needs_attention_comes_first(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(DELIVERY="manual", TEST=True)
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
    lines = run(app, "status").output.splitlines()
    assert lines[:4] == [
        "warning   Every event is a dry run: nobody is counted or rewarded.",
        "          To go live, set MMOLOVE_TEST to false.",
        "",
        f"server    demo-server at {mmolove_sandbox.config['MMOLOVE_ENDPOINT']}",
    ]


def test_one_is_not_counted_as_several(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(DELIVERY="manual")
    for player, words in (("1", "1 milestone waits"), ("2", "2 milestones wait")):
        with app.app_context():
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
        assert f"{words} until" in run(app, "status").output


def test_trouble_is_named(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove_sandbox.sandbox.faults = Faults(fail=503)
    app = make_app()
    with app.app_context():
        for player in range(6):
            registered(player, token=mmolove_sandbox.mint())
    output = run(app, "status").output
    assert output.count("MMOLove has been failing for") == 1
    assert output.count("HTTP 503") == 1
    health = json.loads(run(app, "status", "--json").output)["health"]
    assert health["level"] == "critical"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_monitor_is_told_of_an_outbox_that_cannot_be_read(
    make_app: MakeApp, run: Run, tmp_path: Path, options: list[str]
) -> None:
    result = run(make_app(OUTBOX=tmp_path), "status", *options)
    assert result.exit_code == 1
    assert "The outbox cannot be read." in result.output
    if options:
        assert json.loads(result.output)["health"]["level"] == "critical"


def test_counts_of_very_many_events_stop(make_app: MakeApp, run: Run) -> None:
    """They are shown as "or more", on the page as well."""
    app = make_app(mmolove := MMOLove(), DELIVERY="manual")
    app.register_blueprint(mmolove.dashboard(access=lambda: True), url_prefix="/page")
    recorder = app.extensions["mmolove"].recorder
    invitations = (Invitation(f"tok-{n}") for n in range(MANY + 1))
    recorder.record_all(
        [recorder.report(each.token, each, "registered") for each in invitations]
    )
    page = app.test_client().get("/page/").text
    assert "5,000 or more events pending</a>." in page
    output = run(app, "status").output
    assert re.search(
        "^pending +5,000 or more  not delivered yet$", output, re.MULTILINE
    )
    for text in (page, output):
        assert "only the newest 5,000 are counted as signed up." in text
    assert json.loads(run(app, "status", "--json").output)["counts"]["pending"] == MANY
