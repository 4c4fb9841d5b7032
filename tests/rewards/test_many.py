"""Milestones of many players at once."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.errors import OutboxError
from flask_mmolove.rewards.many import qualify_all
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.conftest import Hold
from tests.conftest import MakeApp

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(DELIVERY="manual")


@pytest.fixture
def state(app: Flask) -> State:
    state: State = app.extensions["mmolove"]
    return state


def sign_up(app: Flask, sandbox: SiteSandbox, *players: str) -> None:
    with app.app_context():
        for player in players:
            registered(player, token=sandbox.mint())


def test_each_player_gets_a_word(
    app: Flask, state: State, mmolove_sandbox: SiteSandbox
) -> None:
    sign_up(app, mmolove_sandbox, "1", "2")
    with app.app_context():
        qualify("2")
        assert qualify_all(state, ["1", "2", "3", "1"]) == {
            "1": "recorded",
            "2": "known",
            "3": "not referred",
        }
        assert qualify_all(state, ["1"]) == {"1": "known"}
        assert set(state.recorder.entries("1")) == {"registered", "qualified"}
        assert state.recorder.entries("3") == {}


def test_a_dry_run_stores_nothing(
    app: Flask, state: State, mmolove_sandbox: SiteSandbox
) -> None:
    sign_up(app, mmolove_sandbox, "1")
    with app.app_context():
        assert qualify_all(state, ["1"], dry_run=True) == {"1": "recorded"}
        assert set(state.recorder.entries("1")) == {"registered"}


def test_a_milestone_does_not_overtake_a_signup_in_the_spool(
    app: Flask, state: State, mmolove_sandbox: SiteSandbox
) -> None:
    with app.test_request_context(), Hold(app):
        registered("1", token=mmolove_sandbox.mint())
    with app.app_context():
        assert qualify_all(state, ["1"]) == {"1": "recorded"}
        assert qualify_all(state, ["1"]) == {"1": "known"}
        state.make_delivery().drain()
    assert mmolove_sandbox.reported == [("registered", "1"), ("qualified", "1")]


def test_what_cannot_be_stored_is_an_error_and_nothing_of_it_is_kept(
    app: Flask, state: State, mmolove_sandbox: SiteSandbox
) -> None:
    sign_up(app, mmolove_sandbox, "1", "2")
    with app.test_request_context():
        with Hold(app), pytest.raises(OutboxError):
            qualify_all(state, ["1", "2"])
        assert qualify_all(state, ["1", "2"]) == {"1": "recorded", "2": "recorded"}
