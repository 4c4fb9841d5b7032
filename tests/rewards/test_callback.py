from __future__ import annotations

import dataclasses
import io
import threading
import typing as t
from types import SimpleNamespace

import pytest
from celery import Celery
from flask import current_app
from flask import Flask
from flask import jsonify
from flask.cli import ScriptInfo

from flask_mmolove import IdentityError
from flask_mmolove import MMOLove
from flask_mmolove import OutboxError
from flask_mmolove import player_rewarded
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove import reward_raised
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.rewards.callback import CallbackRewarder
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp


@pytest.fixture
def mmolove() -> MMOLove:
    return MMOLove()


@pytest.fixture
def given(mmolove: MMOLove) -> list[Referral]:
    given: list[Referral] = []

    @mmolove.reward
    def grant(referral: Referral) -> None:
        given.append(referral)

    return given


@pytest.fixture
def context(
    make_app: MakeApp, mmolove: MMOLove, given: list[Referral]
) -> t.Iterator[Flask]:
    app = make_app(mmolove)
    with app.app_context():
        yield app


def test_a_referred_player_qualifies_and_is_rewarded_once(
    context: Flask, mmolove_sandbox: SiteSandbox, given: list[Referral]
) -> None:
    registered(7, token=mmolove_sandbox.mint())
    referral = qualify(7)
    assert referral is not None
    assert (referral.identity, referral.state) == ("7", "rewarded")
    assert referral.reward_key == "mmolove-demo-server-7"
    assert referral.referral_id == mmolove_sandbox.sandbox.referrals[0].id
    assert referral.registered_at is not None
    assert referral.rewarded_at is not None
    assert referral.qualified_at is not None
    assert referral.registered_at <= referral.qualified_at <= referral.rewarded_at
    assert referral.qualified_at.tzinfo is not None
    assert qualify(7) == referral
    assert [r.reward_key for r in given] == [referral.reward_key]
    assert mmolove_sandbox.rewarded == [referral]
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


def test_a_player_who_was_not_referred_is_none(
    context: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    assert qualify(7) is None
    assert qualify(SimpleNamespace(id=7, mmref=None)) is None
    assert qualify(SimpleNamespace(id=7, mmref="not a token")) is None
    assert mmolove_sandbox.sandbox.arrivals == []


def test_a_visiting_player_is_not_referred_by_clicking_a_link(
    context: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    with context.test_request_context(f"/?mmref={mmolove_sandbox.mint()}"):
        context.preprocess_request()
        assert qualify(7) is None


def test_a_token_kept_by_a_hand_made_integration_counts(
    context: Flask, mmolove_sandbox: SiteSandbox, given: list[Referral]
) -> None:
    player = SimpleNamespace(id=7, mmref=mmolove_sandbox.mint())
    referral = qualify(player)
    assert referral is not None
    assert referral.state == "rewarded"
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


def test_a_referral_is_frozen(context: Flask, mmolove_sandbox: SiteSandbox) -> None:
    registered(7, token=mmolove_sandbox.mint())
    referral = qualify(7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        referral.state = "ignored"  # type: ignore[misc, union-attr]


def test_a_view_may_answer_with_a_referral(
    context: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    registered(7, token=mmolove_sandbox.mint())
    with context.test_request_context():
        answer = jsonify(qualify(7)).get_json()
    assert (answer["identity"], answer["state"]) == ("7", "rewarded")


def test_one_that_cannot_be_told_of_holds_up_no_other(
    make_app: MakeApp,
    mmolove: MMOLove,
    mmolove_sandbox: SiteSandbox,
    given: list[Referral],
    monkeypatch: pytest.MonkeyPatch,
    log: io.StringIO,
) -> None:
    def fail(*args: object) -> t.NoReturn:
        raise OutboxError("a moment of trouble")

    app = make_app(mmolove, DELIVERY="manual")
    with app.app_context():
        for player in (7, 8):
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
    monkeypatch.setattr(CallbackRewarder, "_tell_rewarded", fail)
    app.extensions["mmolove"].make_delivery().drain()
    assert sorted(referral.identity for referral in given) == ["7", "8"]
    assert "could not be told" in log.getvalue()


def test_the_reward_waits_while_mmolove_is_down(
    context: Flask, mmolove_sandbox: SiteSandbox, given: list[Referral]
) -> None:
    mmolove_sandbox.sandbox.faults = Faults(fail=503)
    registered(7, token=mmolove_sandbox.mint())
    referral = qualify(7)
    assert referral is not None
    assert (referral.state, given) == ("pending", [])


def test_a_player_without_an_identity_is_an_error_that_says_what_to_return(
    context: Flask,
) -> None:
    with pytest.raises(IdentityError, match="flush"):
        qualify(SimpleNamespace(id=None))


def test_a_dry_run_is_never_rewarded(
    make_app: MakeApp,
    mmolove: MMOLove,
    mmolove_sandbox: SiteSandbox,
    given: list[Referral],
) -> None:
    with make_app(mmolove, TEST=True).app_context():
        registered(7, token=mmolove_sandbox.mint())
        referral = qualify(7)
    assert referral is not None
    assert (referral.state, given) == ("accepted", [])
    assert [a.outcome for a in mmolove_sandbox.sandbox.arrivals] == ["test", "test"]


def test_nothing_happens_while_it_is_switched_off(
    make_app: MakeApp, mmolove: MMOLove, mmolove_sandbox: SiteSandbox
) -> None:
    with make_app(mmolove, ENABLED=False).app_context():
        registered(7, token=mmolove_sandbox.mint())
        assert qualify(7) is None
    assert mmolove_sandbox.sandbox.arrivals == []


def test_the_callback_runs_in_the_apps_context_and_may_be_async(
    make_app: MakeApp, mmolove: MMOLove, mmolove_sandbox: SiteSandbox
) -> None:
    seen: list[tuple[str, str]] = []
    done = threading.Event()
    app = make_app(mmolove, DELIVERY="thread")

    @mmolove.reward
    async def grant(referral: Referral) -> None:
        seen.append((current_app.name, referral.identity))
        done.set()

    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        qualify(7)
    assert done.wait(20)
    assert seen == [(app.name, "7")]


@pytest.mark.parametrize("delivery", ["inline", "thread", "manual", "celery"])
def test_however_it_is_called_a_long_callback_keeps_its_lease(
    make_app: MakeApp,
    mmolove: MMOLove,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
    delivery: str,
) -> None:
    assert (defaults := Delivery.__init__.__kwdefaults__) is not None
    monkeypatch.setitem(defaults, "lease", 90)
    renewed, given = threading.Semaphore(0), threading.Event()
    app = make_app(mmolove, DELIVERY=delivery)
    app.extensions["celery"] = Celery("site", broker="memory://", set_as_current=False)
    state = app.extensions["mmolove"]
    renew = state.outbox.renew

    def note(*args: t.Any) -> t.Any:
        lost = renew(*args)
        assert lost == []
        renewed.release()
        return lost

    monkeypatch.setattr(state.outbox, "renew", note)

    @mmolove.reward
    def grant(referral: Referral) -> None:
        for _ in range(4):  # longer than the lease
            assert renewed.acquire(timeout=20)
        given.set()

    with app.app_context():
        registered("7", token=mmolove_sandbox.mint())
        qualify("7")
    if delivery == "manual":
        info = ScriptInfo(create_app=lambda: app)
        app.test_cli_runner().invoke(command, ["deliver"], obj=info)
    elif delivery == "celery":
        state.engine.deliver(None)  # what the task does
    assert given.wait(20)


def test_the_signals_tell_of_a_reward_and_of_a_failure(
    context: Flask, mmolove: MMOLove, mmolove_sandbox: SiteSandbox
) -> None:
    heard: list[tuple[str, str]] = []

    def failed(sender: Flask, referral: Referral, error: Exception) -> None:
        heard.append((referral.identity, str(error)))

    def rewarded(sender: Flask, referral: Referral) -> None:
        heard.append((referral.identity, referral.state))
        raise RuntimeError("a receiver's own trouble")

    @mmolove.reward
    def grant(referral: Referral) -> None:
        if referral.identity == "8":
            raise ValueError("no such player in the game")

    with reward_raised.connected_to(failed), player_rewarded.connected_to(rewarded):
        for player in (7, 8):
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
    assert heard == [("7", "rewarded"), ("8", "no such player in the game")]


def test_two_apps_with_one_object_keep_apart(
    make_app: MakeApp, mmolove: MMOLove, mmolove_sandbox: SiteSandbox, tmp_path: t.Any
) -> None:
    one = make_app(mmolove, OUTBOX=tmp_path / "one.db")
    two = make_app(mmolove, OUTBOX=tmp_path / "two.db", TEST=True)
    with one.app_context():
        registered(7, token=mmolove_sandbox.mint())
    with two.app_context():
        assert qualify(7) is None
    with one.app_context():
        assert qualify(7) is not None
