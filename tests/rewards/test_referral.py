"""The friends a player referred, and what is known of each."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_mmolove import IdentityError
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.capture.referrer import remember
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp


@pytest.fixture
def mmolove() -> MMOLove:
    return MMOLove()


@pytest.fixture
def app(make_app: MakeApp, mmolove: MMOLove) -> Flask:
    app = make_app(mmolove, DELIVERY="manual")
    mmolove.reward(lambda referral: None)
    return app


def sign_up(app: Flask, sandbox: SiteSandbox, friend: object, by: str = "7") -> None:
    token = sandbox.mint()
    with app.test_request_context():
        remember(token, by)
        registered(friend, token=token)


def deliver(app: Flask) -> None:
    with app.app_context():
        app.extensions["mmolove"].make_delivery().drain()


def test_the_newest_comes_first_from_the_signup_on(
    app: Flask, mmolove: MMOLove, mmolove_sandbox: SiteSandbox
) -> None:
    for friend in (1, 2, 3):
        sign_up(app, mmolove_sandbox, friend)
    sign_up(app, mmolove_sandbox, 4, by="8")
    with app.app_context():
        qualify(2)
        found = mmolove.referrals(7)
        assert [friend.identity for friend in found] == ["3", "2", "1"]
        assert [friend.qualified_at is None for friend in found] == [True, False, True]
        assert all(friend.registered_at for friend in found)
        assert [friend.state for friend in found] == ["pending"] * 3
        assert [friend.identity for friend in mmolove.referrals(7, limit=2)] == [
            "3",
            "2",
        ]
        assert mmolove.referrals("nobody") == []


def test_it_follows_them_to_the_reward(
    app: Flask, mmolove: MMOLove, mmolove_sandbox: SiteSandbox
) -> None:
    sign_up(app, mmolove_sandbox, 1)
    sign_up(app, mmolove_sandbox, 2)
    with app.app_context():
        qualify(1)
        qualify(2)
        assert [friend.number for friend in mmolove.referrals(7)] == [None, None]
    deliver(app)
    with app.app_context():
        second, first = mmolove.referrals(7)
        assert (first.number, second.number) == (1, 2)
        assert first.state == "rewarded" and first.rewarded_at is not None
        assert first.key("friend") == f"{first.reward_key}-friend"
        assert first.key("friend") != first.key("referrer")


def test_the_callback_sees_the_number_and_a_retry_sees_the_same(
    app: Flask, mmolove: MMOLove, mmolove_sandbox: SiteSandbox
) -> None:
    seen: list[int | None] = []

    @mmolove.reward
    def grant(referral: Referral) -> None:
        seen.append(referral.number)
        if len(seen) == 1:
            raise ConnectionError("the game is away")

    sign_up(app, mmolove_sandbox, 1)
    with app.app_context():
        qualify(1)
    deliver(app)
    with app.app_context():
        state = app.extensions["mmolove"]
        delivery = state.make_delivery()
        state.outbox.resume(delivery.now())
        delivery.drain()
    assert seen == [1, 1]


def test_a_friend_who_is_erased_is_not_listed(
    app: Flask, mmolove: MMOLove, mmolove_sandbox: SiteSandbox
) -> None:
    for friend in (1, 2):
        sign_up(app, mmolove_sandbox, friend)
    with app.app_context():
        mmolove.forget(1)
        assert [friend.identity for friend in mmolove.referrals(7)] == ["2"]
        mmolove.forget(7)
        assert mmolove.referrals(7) == []


def test_a_player_needs_an_identity(app: Flask, mmolove: MMOLove) -> None:
    with app.app_context(), pytest.raises(IdentityError):
        mmolove.referrals(None)


def test_where_it_is_switched_off_there_are_none(make_app: MakeApp) -> None:
    mmolove = MMOLove()
    with make_app(mmolove, ENABLED=False).app_context():
        assert mmolove.referrals(7) == []
