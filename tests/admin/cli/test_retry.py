from __future__ import annotations

import json

import pytest
from flask import Flask

from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


@pytest.fixture
def rejected(make_app: MakeApp) -> Flask:
    app = make_app()
    with app.app_context():
        registered(7, token="junk")
    return app


def test_what_was_rejected_is_listed_with_its_words_and_a_hint(
    rejected: Flask, run: Run
) -> None:
    output = run(rejected, "retry", "--list").output
    assert "registered  player 7  rejected" in output
    assert "unknown_token" in output
    assert "MMOLOVE_SERVER_ID" in output
    (entry,) = json.loads(run(rejected, "retry", "--list", "--json").output)
    assert (entry["status"], entry["state"]) == (404, "rejected")


def test_without_any_the_pending_are_explained(app: Flask, run: Run) -> None:
    output = run(app, "retry").output
    assert output.startswith("No rejected event was found.\nPending events are retried")


def test_where_none_is_listed_it_says_which(app: Flask, run: Run) -> None:
    assert run(app, "retry", "--list").output == "No event is rejected.\n"


def test_it_is_sent_again_by_id_or_all(
    rejected: Flask, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    for args in (["1"], []):
        result = run(rejected, "retry", *args)
        assert result.output == "1 rejected event will be sent again.\n"
    assert len(mmolove_sandbox.sandbox.arrivals) == 3


def test_an_id_that_is_not_rejected_is_an_error(rejected: Flask, run: Run) -> None:
    result = run(rejected, "retry", "99")
    assert result.exit_code == 1
    assert "There is no event 99." in result.output
