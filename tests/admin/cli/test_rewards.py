from __future__ import annotations

import json
import typing as t

import pytest
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.state import current_state
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


def test_unconfirmed_ones_are_settled(
    make_app: MakeApp,
    run: Run,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mmolove = MMOLove()
    given: list[str] = []

    @mmolove.reward(at_most_once=True)
    def grant(referral: t.Any) -> None:
        given.append(referral.identity)
        if len(given) <= 2:
            raise RuntimeError("the game is down")

    app = make_app(mmolove)
    with app.app_context():
        for player in (7, 8):
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
    assert "rewards --granted ID\n" in run(app, "rewards").output
    listed = json.loads(run(app, "rewards", "--json").output)
    ids = {entry["identity"]: str(entry["id"]) for entry in listed}
    outbox = app.extensions["mmolove"].outbox
    entry = outbox.inspector.get(int(ids["8"]))
    outbox.renew([entry], 1 << 50)  # a process keeps it
    result = run(app, "rewards", "--retry", ids["8"])
    assert "may be in progress right now" in result.output
    outbox.renew([entry], 1)  # its lease ends
    result = run(app, "rewards", "--granted", ids["7"], "--retry", ids["8"])
    assert "recorded as granted" in result.output
    assert given == ["7", "8", "8"]
    assert run(app, "rewards").output == "No reward is failed or unconfirmed.\n"
    result = run(app, "rewards", "--granted", ids["7"])
    assert result.exit_code == 1


def test_those_that_are_retried_are_not_said_to_be_fine(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()

    @mmolove.reward
    def grant(referral: Referral) -> None:
        raise RuntimeError("the game is down")

    app = make_app(mmolove)
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        qualify(7)
    assert run(app, "rewards").output == (
        "No reward waits for you.\n\n"
        "These could not be granted yet, and are retried automatically:\n"
        "      2  qualified   player 7  accepted\n"
        "         RuntimeError: the game is down\n"
    )


def test_all_that_failed_are_retried_at_once(
    make_app: MakeApp,
    run: Run,
    mmolove_sandbox: SiteSandbox,
) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove)
    with app.app_context():
        for player in (7, 8):  # they fail, because there is no callback yet
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
    given: list[str] = []

    @mmolove.reward
    def grant(referral: t.Any) -> None:
        given.append(referral.identity)

    for wrong in (["--all"], ["--retry"], ["--retry", "seven"]):
        assert run(app, "rewards", *wrong).exit_code == 2
    result = run(app, "rewards", "--retry", "--all")
    assert result.output == "2 failed rewards will be granted with the next delivery.\n"
    assert sorted(given) == ["7", "8"]


def test_status_quotes_a_callback_that_fails(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()

    @mmolove.reward
    def grant(referral: t.Any) -> None:
        raise KeyError("no such item")

    app = make_app(mmolove)
    with app.app_context():
        for player in range(1, 4):
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
            output = run(app, "status").output
            assert "no such item" in output
            assert ("Rewards have been paused" in output) == (player == 3)
    events = run(app, "show", "2").output
    assert "no such item" in events and "HTTP 200: KeyError" not in events


def test_without_a_callback_nothing_can_be_granted(
    app: Flask, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        qualify(7)
    (entry,) = json.loads(run(app, "rewards", "--json").output)
    assert entry["attempts"] == 0  # to grant the reward
    result = run(app, "rewards", "--retry", str(entry["id"]))
    assert result.exit_code == 1
    assert "no @mmolove.reward" in result.output


def test_a_command_begins_no_reward_that_its_end_would_cut_off(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    called: list[str] = []

    @mmolove.reward(at_most_once=True)
    def grant(referral: Referral) -> None:
        called.append(referral.identity)
        if len(called) == 1:
            raise RuntimeError("the game is away")

    app = make_app(mmolove, DELIVERY="manual")
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        qualify(7)
        state = current_state()
        state.make_delivery().drain()
    site = make_app(mmolove, DELIVERY="thread")
    result = run(site, "rewards", "--retry", "2")
    assert "will be granted with the next delivery" in result.output
    engine = site.extensions["mmolove"].engine
    assert not engine.is_started
    state.make_delivery().drain()
    assert called == ["7", "7"]
    site.test_client().get("/")
    assert engine.is_started
