"""The site is asked which of its friends have reached the milestone."""

from __future__ import annotations

import threading
import typing as t

import pytest
from flask import current_app
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.clock import milliseconds
from flask_mmolove.delivery.lease import Heartbeat
from flask_mmolove.rewards.many import BATCH
from flask_mmolove.rewards.milestone import MilestoneAsker
from flask_mmolove.rewards.milestone import PAUSE_MOST
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.conftest import Hold
from tests.conftest import MakeApp

Friends = t.Mapping[str, Referral]

DAY = 86400


class Game:
    """A site whose game knows who has reached the milestone."""

    def __init__(self, make_app: MakeApp, sandbox: SiteSandbox) -> None:
        self.sandbox = sandbox
        self.mmolove = MMOLove()
        self.app: Flask = make_app(self.mmolove, DELIVERY="manual")
        self.state: State = self.app.extensions["mmolove"]
        self.time = milliseconds() / 1000
        #: Who has reached it, what each call was asked, and what it raises.
        self.reached: t.Any = []
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.mmolove.milestone(self.answer)

    def answer(self, friends: Friends) -> t.Any:
        self.asked.append(list(friends))
        if self.error is not None:
            raise self.error
        return self.reached

    def sign_up(self, *players: object) -> None:
        with self.app.app_context():
            for player in players:
                registered(player, token=self.sandbox.mint())

    def asker(self) -> MilestoneAsker:
        """The one of another process."""
        return MilestoneAsker(self.state, clock=lambda: self.time)

    def ask(self) -> list[list[str]]:
        """Let the next round come, and give what it was asked."""
        self.asked.clear()
        self.time += 301
        self.asker().ask()
        return self.asked.copy()

    def states(self, player: str) -> dict[str, str]:
        with self.app.app_context():
            return {
                name: e.state for name, e in self.state.recorder.entries(player).items()
            }


@pytest.fixture
def game(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Game:
    return Game(make_app, mmolove_sandbox)


def test_who_has_reached_it_is_recorded_and_not_asked_about_again(game: Game) -> None:
    game.sign_up("1", "2", "3")
    game.reached = ["2"]
    assert game.ask() == [["1", "2", "3"]]
    assert game.states("2") == {"registered": "pending", "qualified": "pending"}
    assert game.states("1") == {"registered": "pending"}
    game.reached = []
    assert game.ask() == [["1", "3"]]


def test_the_friends_are_a_mapping_of_ids_to_referrals(game: Game) -> None:
    game.sign_up(7)
    seen: list[Friends] = []

    @game.mmolove.milestone
    def reached(friends: Friends) -> t.Iterator[int]:
        assert current_app._get_current_object() is game.app  # type: ignore[attr-defined]
        seen.append(friends)
        yield from (int(friend) for friend in friends)

    game.ask()
    [friends] = seen
    assert friends["7"].identity == "7" and friends["7"].qualified_at is None
    assert friends["7"].registered_at is not None
    with pytest.raises(TypeError):
        friends["8"] = friends["7"]  # type: ignore[index]
    assert "qualified" in game.states("7")


def test_who_is_asked_about(game: Game, make_app: MakeApp) -> None:
    """Whose signup is pending or accepted, as long as the token is valid."""
    game.sign_up("1", "2")
    with game.app.app_context():
        game.state.make_delivery().drain()
        game.sign_up("3")
        qualify("2")
    assert game.ask() == [["1", "3"]]
    game.time += 90 * DAY
    assert game.ask() == []


def test_a_round_takes_all_and_each_call_a_few_hundred(game: Game) -> None:
    players = [f"p{number:04}" for number in range(BATCH + 3)]
    game.sign_up(*players)
    assert game.ask() == [players[:BATCH], players[BATCH:]]


def test_those_come_first_who_were_asked_about_longest_ago(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mmolove.rewards.milestone.BATCH", 2)
    monkeypatch.setattr("flask_mmolove.rewards.milestone.LONGEST", -1)  # a call a round
    game.sign_up("1", "2", "3", "4", "5")
    assert [game.ask() for _ in range(2)] == [[["1", "2"]], [["3", "4"]]]
    game.sign_up("6")
    # Of 5 and 6 it was never asked.
    assert game.ask() == [["5", "6"]]
    assert game.ask() == [["1", "2"]]
    game.sign_up("7")
    assert game.ask() == [["7", "3"]]
    assert game.ask() == [["4", "5"]]
    assert game.ask() == [["6", "7"]]


def test_one_process_asks_and_a_round_comes_when_it_is_due(game: Game) -> None:
    game.sign_up("1")
    assert game.asker().ask() == 1
    assert game.asker().ask() == 0
    game.time += 299
    assert game.asker().ask() == 0
    game.time += 2
    assert game.asker().ask() == 1


def test_two_at_once_are_one_round(game: Game) -> None:
    game.sign_up("1")
    inside, go_on = threading.Event(), threading.Event()

    @game.mmolove.milestone
    def reached(friends: Friends) -> list[str]:
        inside.set()
        assert go_on.wait(30)
        return list(friends)

    thread = threading.Thread(target=game.asker().ask)
    thread.start()
    assert inside.wait(30)
    assert game.asker().ask() == 0
    # One that was paused for long, or killed, does not keep the others from asking.
    game.time += 21
    go_on.set()
    assert game.asker().ask() in (0, 1)
    thread.join()
    assert "qualified" in game.states("1")


def test_a_slow_game_is_not_asked_by_a_second_process_meanwhile(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = threading.Semaphore(0)
    renew = game.state.outbox.renew_round

    def note(*args: t.Any) -> bool:
        known = renew(*args)
        renewed.release()
        return known

    monkeypatch.setattr(game.state.outbox, "renew_round", note)
    monkeypatch.setattr(Heartbeat.__init__, "__defaults__", (90,))
    game.sign_up("1")
    others: list[int] = []

    @game.mmolove.milestone
    def reached(friends: Friends) -> list[str]:
        for _ in range(3):  # three quarters of a lease each
            game.time += 15
            assert renewed.acquire(timeout=20)
            others.append(game.asker().ask())
        return list(friends)

    assert game.asker().ask() == 1
    assert others == [0, 0, 0]
    assert "qualified" in game.states("1")


def test_a_callback_that_raises_changes_nothing_and_is_called_again(
    game: Game, caplog: pytest.LogCaptureFixture
) -> None:
    game.sign_up("1")
    game.error = ConnectionError("the game's database is away")
    pauses = []
    for _ in range(6):
        game.asked.clear()
        assert game.asker().ask() == 0
        pauses.append(game.state.outbox.round().due / 1000 - game.time)
        game.time += pauses[-1] + 1
    assert [round(pause / 300) for pause in pauses] == [2, 4, 8, 12, 12, 12]
    assert round(pauses[-1] * 1000, -3) == PAUSE_MOST
    assert "ConnectionError: the game's database is away" in caplog.text
    assert game.states("1") == {"registered": "pending"}
    game.error, game.reached = None, ["1"]
    assert game.asker().ask() == 1
    assert game.state.outbox.round().error is None
    assert "qualified" in game.states("1")


@pytest.mark.parametrize("answer", [None, "1"])
def test_an_answer_that_is_no_list_is_an_error(game: Game, answer: object) -> None:
    game.sign_up("1")
    game.reached = answer
    game.ask()
    assert "return the ids" in (game.state.outbox.round().error or "")
    assert game.states("1") == {"registered": "pending"}


def test_the_site_s_rule_for_accounts_is_not_asked_about_ids(game: Game) -> None:
    game.sign_up("7")

    @game.mmolove.identity
    def identity(player: t.Any) -> str:
        return str(player.account)

    game.reached = ["7"]
    assert game.ask() == [["7"]]
    assert "qualified" in game.states("7")


def test_one_of_whom_it_always_raises_keeps_nobody_else_waiting(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mmolove.rewards.milestone.BATCH", 1)
    game.sign_up("bad", "2")

    @game.mmolove.milestone
    def reached(friends: Friends) -> list[str]:
        return [friend for friend in friends if int(friend)]

    for _ in range(2):
        game.time += 3601
        game.asker().ask()
    assert "qualified" in game.states("2")


def test_ids_that_were_not_asked_about_are_dropped_with_one_warning(
    game: Game, caplog: pytest.LogCaptureFixture
) -> None:
    game.sign_up("1", "2")
    game.reached = ["991", "1", None, object()]
    asker = game.asker()
    assert asker.ask() == 2
    game.time += 301
    asker.ask()
    assert caplog.text.count("Are they ids of characters") == 1
    assert "'991'" in caplog.text
    assert "qualified" in game.states("1") and "qualified" not in game.states("2")


def test_an_outbox_that_fails_loses_nothing(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mmolove.recording.recorder.TIMEOUT", 0.1)
    game.sign_up("1")
    game.reached = ["1"]
    hold = Hold(game.app)

    @game.mmolove.milestone
    def reached(friends: Friends) -> list[str]:
        hold.__enter__()
        return list(friends)

    with pytest.raises(Exception, match="busy|locked"):
        game.ask()
    hold.__exit__()
    assert game.states("1") == {"registered": "pending"}
    game.mmolove.milestone(game.answer)
    game.time += 121
    assert game.ask() == [["1"]]
    assert "qualified" in game.states("1")


def test_without_a_callback_nothing_is_asked(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    state: State = make_app(DELIVERY="manual").extensions["mmolove"]
    assert state.asker.ask() == 0
    assert not state.asker.is_due()


def test_a_thread_of_its_own_asks(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    asked = threading.Event()
    threads: list[threading.Thread] = []

    @mmolove.milestone
    def reached(friends: Friends) -> list[str]:
        threads.append(threading.current_thread())
        asked.set()
        return list(friends)

    app = make_app(mmolove, DELIVERY="thread")
    with app.app_context():
        registered("1", token=mmolove_sandbox.mint())
    assert asked.wait(30)
    assert threads[0] is not threading.current_thread()
