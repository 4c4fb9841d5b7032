"""The recipes of ``docs/howto/rewards.md``, as printed, against something real."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import sqlalchemy
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy import URL

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.capture import referrer
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp
from tests.rewards import consoles

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "rewards.md"


def snippet(heading: str, language: str = "python", number: int = 0) -> str:
    """A listing below a heading of the page."""
    _, _, section = PAGE.read_text().partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    listing = rf"^```{language}\n(.*?)^```"
    found: list[str] = re.findall(listing, section, re.DOTALL | re.MULTILINE)
    return found[number]


class Site:
    """A site whose reward callback is a recipe."""

    def __init__(self, make_app: MakeApp, sandbox: SiteSandbox) -> None:
        self.sandbox = sandbox
        self.mmolove = MMOLove()
        self.app: Flask = make_app(self.mmolove, DELIVERY="manual")
        self.state: State = self.app.extensions["mmolove"]

    def use(self, heading: str, **names: t.Any) -> dict[str, t.Any]:
        names.update(mmolove=self.mmolove, app=self.app)
        exec(snippet(heading), names)
        return names

    def bring(self, friend: str = "8", by: str = "7842") -> None:
        """A player brings a friend, who reaches the milestone."""
        token = self.sandbox.mint()
        with self.app.test_request_context():
            referrer.remember(token, by)
            registered(friend, token=token)
            qualify(friend)

    def deliver(self) -> str:
        """Deliver what is due, pauses aside; and give the state of the milestone."""
        with self.app.app_context():
            delivery = self.state.make_delivery()
            delivery.drain()
            self.state.outbox.resume(delivery.now())
            delivery.step()
            return self.state.recorder.entries("8")["qualified"].state


@pytest.fixture
def site(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Site:
    return Site(make_app, mmolove_sandbox)


class TestTable:
    HEADING = "A table that the game reads at login"

    @pytest.fixture
    def game(self, mariadb: URL) -> t.Iterator[sqlalchemy.Engine]:
        engine = create_engine(mariadb)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS pending_rewards"))
            connection.execute(text(snippet(self.HEADING, "sql")))
        yield engine
        engine.dispose()

    def log_in(
        self, game: sqlalchemy.Engine, meanwhile: t.Callable[[], object] = int
    ) -> list[str]:
        """What the player finds in the bag."""
        mark = snippet(self.HEADING, "sql", 2)
        with game.begin() as connection:
            found = connection.execute(text(snippet(self.HEADING, "sql", 1)))
            waiting = [(key, item) for key, item in found]
            meanwhile()
            for key, _ in waiting:
                sql = mark.replace("mmolove-demo-server-8", key)
                connection.execute(text(sql))
            return [item for _, item in waiting]

    def test_the_loot_waits_until_the_player_logs_in(
        self, site: Site, game: sqlalchemy.Engine
    ) -> None:
        site.use(self.HEADING)["game"] = game
        site.bring()
        assert site.deliver() == "rewarded"
        assert self.log_in(game) == ["founder-cape"]
        assert self.log_in(game) == []

    def test_what_arrives_during_a_login_waits_for_the_next(
        self, site: Site, game: sqlalchemy.Engine
    ) -> None:
        site.use(self.HEADING)["game"] = game
        site.bring()
        assert site.deliver() == "rewarded"
        # Under this level the rows that are read keep no others out.
        game = game.execution_options(isolation_level="READ COMMITTED")

        def bring_another() -> None:
            site.bring("9")
            site.deliver()

        assert self.log_in(game, bring_another) == ["founder-cape"]
        assert self.log_in(game) == ["founder-cape"]
        assert self.log_in(game) == []

    def test_a_lost_answer_gives_it_once(
        self, site: Site, game: sqlalchemy.Engine
    ) -> None:
        names = site.use(self.HEADING)
        names["game"] = game
        grant = names["grant"]

        @site.mmolove.reward
        def twice(referral: t.Any) -> None:
            grant(referral)
            site.mmolove.reward(grant)
            raise ConnectionError("the answer is lost")

        site.bring()
        assert site.deliver() == "rewarded"
        assert self.log_in(game) == ["founder-cape"]

    def test_it_waits_for_the_game_s_database(
        self, site: Site, game: sqlalchemy.Engine
    ) -> None:
        names = site.use(self.HEADING)
        names["game"] = create_engine("mysql+pymysql://web:x@127.0.0.1:1/game")
        site.bring()
        assert site.deliver() == "accepted"
        names["game"] = game
        assert site.deliver() == "rewarded"


class TestPlugin:
    HEADING = "An HTTP plugin"

    def test_each_call_has_the_same_key(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.use(self.HEADING)
        monkeypatch.setenv("PLUGIN_URL", "http://127.0.0.1:1/")
        site.bring()
        assert site.deliver() == "accepted"
        with consoles.plugin() as plugin:
            monkeypatch.setenv("PLUGIN_URL", f"http://127.0.0.1:{plugin.port}/")
            plugin.answer = "503"
            assert site.deliver() == "accepted"
            plugin.answer, plugin.drops = "", True
            assert site.deliver() == "accepted"
            plugin.drops = False
            assert site.deliver() == "rewarded"
            gift = {"player": "7842", "item": "founder-cape"}
            gift["key"] = "mmolove-demo-server-8"
            assert plugin.commands and all(each == gift for each in plugin.commands)


class TestSOAP:
    HEADING = "A SOAP console (AzerothCore, TrinityCore)"
    NAME = "<Anna>"

    @pytest.fixture(autouse=True)
    def recipe(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.use(self.HEADING, character_of=lambda player: self.NAME)
        monkeypatch.setenv("SOAP_USER", "gm")
        monkeypatch.setenv("SOAP_PASSWORD", "pw")
        monkeypatch.setenv("SOAP_URL", "http://127.0.0.1:1/")

    def test_the_item_is_sent_once_the_world_is_up(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.bring()
        assert site.deliver() == "accepted"
        with consoles.soap("gm", "pw") as world:
            monkeypatch.setenv("SOAP_URL", f"http://127.0.0.1:{world.port}/")
            assert site.deliver() == "rewarded"
        [command] = world.commands
        assert command.startswith(f"send items {self.NAME} ")

    def test_a_lost_answer_is_left_to_a_person(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.bring()
        with consoles.soap("gm", "pw") as world:
            monkeypatch.setenv("SOAP_URL", f"http://127.0.0.1:{world.port}/")
            world.drops = True
            state = site.deliver()
            assert state == site.deliver()
        assert state in ("unknown", "reward_unconfirmed")
        assert len(world.commands) == 1


class TestRCON:
    HEADING = "An RCON console (Minecraft, Rust, Source)"

    @pytest.fixture(autouse=True)
    def recipe(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.use(self.HEADING, name_of=lambda player: "Anna")
        monkeypatch.setenv("RCON_PASSWORD", "pw")
        monkeypatch.setenv("RCON_PORT", "1")

    def test_it_waits_for_the_game_and_for_the_player(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.bring()
        assert site.deliver() == "accepted"
        with consoles.rcon("pw") as game:
            monkeypatch.setenv("RCON_PORT", str(game.port))
            game.answer = "No player was found"
            assert site.deliver() == "accepted"
            game.answer = "Gave 3 [Diamond] to Anna"
            assert site.deliver() == "rewarded"
        assert set(game.commands) == {"give Anna minecraft:diamond 3"}

    def test_a_lost_answer_is_left_to_a_person(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.bring()
        with consoles.rcon("pw") as game:
            monkeypatch.setenv("RCON_PORT", str(game.port))
            game.drops = True
            state = site.deliver()
            assert state == site.deliver()
        assert state in ("unknown", "reward_unconfirmed")
        assert len(game.commands) == 1


def test_discord_is_told_and_holds_up_no_reward(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = site.use("Tell Discord")
    assert names["announce"]
    given: list[str] = []
    site.mmolove.reward(lambda referral: given.append(referral.identity))
    monkeypatch.setenv("DISCORD_WEBHOOK", "http://127.0.0.1:1/")
    site.bring()
    assert site.deliver() == "rewarded"
    with consoles.plugin() as discord:
        monkeypatch.setenv("DISCORD_WEBHOOK", f"http://127.0.0.1:{discord.port}/")
        site.bring("9")
        site.deliver()
    assert given == ["8", "9"]
    assert discord.commands == [{"content": "7842 brought 9!"}]


def test_two_gifts_have_keys_of_their_own(site: Site) -> None:
    given: dict[str, tuple[str, str]] = {}
    site.use(
        "A gift for both",
        give_item=lambda player, item, key: given.setdefault(key, (player, item)),
    )
    site.bring()
    assert site.deliver() == "rewarded"
    assert given == {
        "mmolove-demo-server-8-friend": ("8", "welcome-pack"),
        "mmolove-demo-server-8-referrer": ("7842", "founder-cape"),
    }


def test_the_reward_grows_with_the_friends_and_ends(site: Site) -> None:
    given: list[tuple[str, str]] = []
    site.use(
        "Tiers and caps",
        give_item=lambda player, item, key: given.append((player, item)),
    )
    for friend in range(22):
        site.bring(str(friend))
    site.deliver()
    items = [item for _, item in given]
    assert (items[0], items[1], items[4], items[9]) == (
        "cape",
        "potion",
        "horse",
        "castle",
    )
    assert len(items) == 20 and {player for player, _ in given} == {"7842"}
