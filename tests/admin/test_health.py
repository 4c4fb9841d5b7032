from __future__ import annotations

import pytest
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.admin.funnel import periods
from flask_mmolove.admin.health import examine
from flask_mmolove.admin.health import Health
from flask_mmolove.admin.health import judge
from flask_mmolove.admin.health import Signs
from flask_mmolove.admin.health import survey
from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.breaker import Breaker
from flask_mmolove.outbox.counters import DAY
from flask_mmolove.outbox.friends import Round
from flask_mmolove.outbox.inspector import Day
from flask_mmolove.outbox.inspector import Worker
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.reward_breaker import RewardBreaker
from flask_mmolove.outbox.rules import new_entry
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

NOW = 1_800_000_000_000
MINUTE = 60_000
FINE = Signs(Breaker(), Worker(NOW), None, None, None, NOW - 5 * MINUTE, {})


def of(app: Flask) -> Health:
    return examine(app.extensions["mmolove"], milliseconds())


@pytest.mark.parametrize(
    ("signs", "level", "words"),
    [
        (FINE, "ok", ["MMOLove accepted a signup 5 minutes ago"]),
        (FINE._replace(spooled=NOW - MINUTE // 2), "ok", ["Everything works"]),
        (
            FINE._replace(spooled=NOW - 3 * MINUTE),
            "warning",
            ["in the spool for 3 minutes", "flask mmolove check"],
        ),
        (FINE._replace(asked=Round(due=NOW + MINUTE)), "ok", ["Everything works"]),
        (
            FINE._replace(asked=Round(failures=1, error="OSError: no database")),
            "warning",
            ["The milestone callback fails: OSError: no database", "called again"],
        ),
        (
            FINE._replace(asked=Round(due=NOW - 40 * MINUTE, ended=NOW - 45 * MINUTE)),
            "warning",
            ["is not called: the last time was 45 minutes ago", "Restart the site"],
        ),
        (
            FINE._replace(asked=Round(), accepted=NOW - 20 * MINUTE),
            "warning",
            ["is not called: never"],
        ),
        (FINE._replace(accepted=None), "ok", ["has not accepted a signup yet"]),
        (
            FINE._replace(
                breaker=Breaker(open_since=NOW - 3 * MINUTE, reason="no answer")
            ),
            "critical",
            ["unreachable for 3 minutes", "no answer"],
        ),
        (
            FINE._replace(
                breaker=Breaker(open_since=NOW, refusals=3, reason="REFUSED")
            ),
            "critical",
            ["has refused this site's events", "REFUSED"],
        ),
        (
            FINE._replace(due=NOW - 9 * MINUTE, worker=Worker(NOW - 10 * MINUTE)),
            "critical",
            ["Delivery has stalled", "last seen 10 minutes ago", "enable-threads"],
        ),
        (
            FINE._replace(due=NOW - 9 * MINUTE, worker=None),
            "critical",
            ["due for 9 minutes, and no worker was ever seen"],
        ),
        (FINE._replace(due=NOW - 9 * MINUTE), "ok", ["Everything works"]),
        (
            FINE._replace(worker=Worker(NOW, -400.2)),
            "warning",
            ["clock is 400 s ahead of MMOLove's", "NTP"],
        ),
        (
            FINE._replace(
                stuck={"rejected": 2, "reward_unconfirmed": 1, "reward_failed": 1}
            ),
            "warning",
            [
                "Waiting for you: 2 rejected, 1 reward unconfirmed, 1 reward failed.",
                "See 'flask mmolove retry --list' and 'flask mmolove rewards'.",
            ],
        ),
        (
            FINE._replace(oldest=NOW - 20 * MINUTE),
            "warning",
            ["has waited for 20 minutes"],
        ),
    ],
)
def test_a_finding_says_what_is_wrong_and_what_to_do(
    signs: Signs, level: str, words: list[str]
) -> None:
    (health,) = judge(signs, NOW, "thread")
    assert health.level == level
    for word in words:
        assert word in f"{health.summary} {health.action}"


@pytest.mark.parametrize("paused", [None, NOW - MINUTE])
def test_the_dashboard_names_no_command_for_what_it_can_do(paused: int | None) -> None:
    event = make_event("qualified", "7", "token", "srv", NOW, False)
    reward = new_entry("7", event, ("accepted", NOW), NOW)
    signs = FINE._replace(
        breaker=Breaker(open_since=NOW - MINUTE, reason="No response came."),
        stuck={"rejected": 1, "reward_failed": 1},
        spooled=NOW - 3 * MINUTE,
        oldest=NOW - 20 * MINUTE,
        failing=[reward._replace(answer="OSError: the game is away")],
        rewards=RewardBreaker(open_since=paused, reason="OSError"),
    )
    found = judge(signs, NOW, "thread")
    assert all("flask mmolove" not in each.action_on_page for each in found)
    assert any("flask mmolove" in each.action for each in found)
    # One rule for one retry: paused rewards have one of their own.
    about_rewards = [each for each in found if "OSError" in each.summary]
    assert len(about_rewards) == 1


@pytest.mark.parametrize(
    ("due", "seen", "level"),
    [
        (40, None, "ok"),  # a message was lost, and the sweep will come
        (50, None, "critical"),
        (50, 51, "critical"),  # by one that was restarted with other queues
        (50, 49, "ok"),  # it is working through a backlog
        (500, 100, "ok"),
        (500, 130, "critical"),
    ],
)
def test_under_celery_a_minute_without_a_worker_is_enough(
    due: int, seen: int | None, level: str
) -> None:
    worker = None if seen is None else Worker(NOW - seen * 1000)
    signs = FINE._replace(due=NOW - due * 1000, worker=worker)
    (health,) = judge(signs, NOW, "celery")
    assert health.level == level
    if level == "critical":
        assert "Delivery has stalled" in health.summary
        assert "takes from the task's queue" in health.action


def test_what_delivers_is_seen(app: Flask, mmolove_sandbox: SiteSandbox) -> None:
    inspector = app.extensions["mmolove"].outbox.inspector
    assert inspector.worker() is None
    with app.app_context():
        registered("7", token=mmolove_sandbox.mint())
    assert milliseconds() - inspector.worker().seen < MINUTE
    assert of(app).level == "ok"


def test_it_is_seen_once_a_minute(app: Flask) -> None:
    state = app.extensions["mmolove"]
    delivery = state.make_delivery()
    moments = iter([1000.0, 1059.0, 1061.0])
    for seen in (1000, 1000, 1061):
        moment = next(moments)
        delivery._clock = lambda moment=moment: moment
        delivery.step()
        assert state.outbox.inspector.worker().seen == seen * 1000


def test_a_refused_secret_is_named(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(REFERRAL_SECRET="a typo")
    with app.app_context():
        for player in range(4):
            registered(player, token=mmolove_sandbox.mint())
    health = of(app)
    assert "has refused this site's events" in health.summary
    assert "MMOLOVE_REFERRAL_SECRET" in health.action
    assert "a typo" not in health.action


def test_a_wrong_clock_is_seen(app: Flask, mmolove_sandbox: SiteSandbox) -> None:
    mmolove_sandbox.sandbox.faults = Faults(clock=400)
    with app.app_context():
        registered("7", token=mmolove_sandbox.mint())
    assert "s behind MMOLove's" in of(app).summary


def test_switched_off_is_said(make_app: MakeApp) -> None:
    assert "Switched off" in of(make_app(ENABLED=False)).summary


def test_a_funnel_has_the_shares_between_its_steps() -> None:
    days = [Day(n * DAY, 10, 8, 4, 1) for n in range(29)] + [Day(29 * DAY, 1, 1, 3, 0)]
    today, week, month = periods(days)
    assert [step.players for step in month.steps] == [0, 291, 233, 119, 29]
    assert [step.players for step in week.steps] == [0, 61, 49, 27, 6]
    shares = [step.share for step in today.steps]
    # Of more milestones than signups there is no share.
    assert shares == [None, None, 1, None, 0]


def test_who_arrived_and_what_nobody_got_are_counted_apart() -> None:
    (today, *_) = periods([Day(0, 10, 8, 4, 3, unreferred=1, arrived=40)])
    assert [step.players for step in today.steps] == [40, 10, 8, 4, 2]
    assert today.steps[1].share == 0.25
    assert today.unreferred == 1


def survey_of(app: Flask) -> list[Health]:
    return survey(app.extensions["mmolove"], milliseconds())


def test_everything_that_is_wrong_is_listed_worst_first(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(TEST=True)
    app.secret_key = None
    with app.app_context():
        registered("7", token="junk")  # a dry run of a token that is none
    state = app.extensions["mmolove"]
    spooled = state.spool.write(state.recorder.report("8", None, "registered"))
    spooled.rename(spooled.with_suffix(".unreadable"))
    found = survey_of(app)
    assert [health.level for health in found] == ["critical", "warning", "warning"]
    words = " ".join(map(str, found))
    for said in ("no SECRET_KEY", "MMOLOVE_TEST", "1 spooled file could not be"):
        assert said in words
    assert "Everything works" not in words


def test_a_reward_without_a_referrer_is_counted_apart(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    mmolove.reward(lambda referral: None)
    app = make_app(mmolove)
    state = app.extensions["mmolove"]
    with app.app_context():
        for player, referrer in (("7", None), ("8", "3"), ("9", None)):
            note = state.recorder.report(player, None, "registered")
            token = mmolove_sandbox.mint()
            state.recorder.record(note._replace(token=token, referrer=referrer))
            qualify(player)
    inspector = state.outbox.inspector
    *_, today = inspector.days(milliseconds(), milliseconds())
    assert (today.rewarded, today.unreferred) == (3, 2)
    assert periods([today])[0].unreferred == 2
