"""A site's own isolation levels, autocommit among them: nothing of ours breaks for
them, and what is promised of a signup and a reward holds.
"""

from __future__ import annotations

import io
import itertools
import sys
import typing as t
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy import URL

from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.sites import Gift
from tests.sites import Player
from tests.sites import Site

AUTOCOMMIT = "AUTOCOMMIT"
OF_SQLITE = (AUTOCOMMIT, "READ UNCOMMITTED", "SERIALIZABLE")
# What a site is likely to have: the defaults of databases, and autocommit.
DEFAULTS = (AUTOCOMMIT, "SERIALIZABLE", "READ COMMITTED", "REPEATABLE READ")
LEVELS = ("READ UNCOMMITTED", *DEFAULTS)

# Where it is set; "driver" is where SQLAlchemy is not told.
WAYS = ("engine", "options", "session")
QUICK = [("driver", AUTOCOMMIT), *(("engine", level) for level in DEFAULTS)]
SLOW = [case for case in itertools.product(WAYS, LEVELS) if case not in QUICK]
CASES = [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]


class Isolated(Site):
    """A site that sets an isolation level.

    :param way: Where.
    """

    def __init__(
        self, url: URL, config: dict[str, t.Any], folder: Path, way: str, level: str
    ) -> None:
        self.way = way
        self.level = level
        name = {"sqlite": "isolation_level"}.get(url.get_backend_name(), "autocommit")
        value = None if name == "isolation_level" else True
        options: dict[str, dict[str, t.Any]] = {
            "engine": {"isolation_level": level},
            "options": {"execution_options": {"isolation_level": level}},
            "driver": {"connect_args": {name: value}},
        }
        config["SQLALCHEMY_ENGINE_OPTIONS"] = options.get(way, {})
        config["MMOLOVE_DELIVERY"] = "manual"
        super().__init__(url.render_as_string(False), config, str(folder))

    @property
    def is_autocommit(self) -> bool:
        return self.level == AUTOCOMMIT

    def begin(self) -> None:
        """What the site does first in each request."""
        if self.way == "session":
            options = {"isolation_level": self.level}
            self.db.session.connection(execution_options=options)

    def play(self, sandbox: SiteSandbox) -> int:
        """A player signs up and reaches the milestone, and it is delivered as far as
        the reward.
        """
        with self.app.app_context():
            self.begin()
            player = self.add(mmref=sandbox.mint())
            registered(player)
            qualify(player)
            self.db.session.commit()
            return player.id


@pytest.fixture(params=CASES, ids="-".join)
def site(
    request: pytest.FixtureRequest,
    url: URL,
    mmolove_sandbox: SiteSandbox,
    tmp_path: Path,
) -> t.Iterator[Isolated]:
    way, level = request.param
    if url.get_backend_name() == "sqlite" and level not in OF_SQLITE:
        pytest.skip("SQLite does not have this level")
    site = Isolated(url, dict(mmolove_sandbox.config), tmp_path, way, level)
    yield site
    site.close()


def sign_up(site: Isolated, sandbox: SiteSandbox, view: t.Callable[[], object]) -> int:
    """A visitor with a token fills in the signup form; gives the status."""

    @site.app.post("/register")
    @referral_register
    def register() -> str:
        site.begin()
        view()
        return "welcome"

    client = site.app.test_client()
    client.get(f"/?mmref={sandbox.mint()}")
    return client.post("/register").status_code


@pytest.mark.parametrize("order", ["before", "after", "core"])
def test_a_signup_is_made_and_reported(
    site: Isolated, mmolove_sandbox: SiteSandbox, log: io.StringIO, order: str
) -> None:
    def view() -> None:
        if order == "core":
            site.db.session.execute(insert(Player).values(id=1, name="anna", level=1))
            registered(1)
            site.db.session.commit()
            return
        player = site.add()
        if order == "before":
            registered(player)
        site.db.session.commit()
        if order == "after":
            registered(player)

    assert sign_up(site, mmolove_sandbox, view) == 200
    assert site.count(Player) == 1
    assert site.entries(1)["registered"].state == "pending"
    assert site.state.spool.read() == []
    assert "ERROR" not in log.getvalue() and "Traceback" not in log.getvalue()


def test_a_signup_that_is_rolled_back_is_not(
    site: Isolated, mmolove_sandbox: SiteSandbox
) -> None:
    def view() -> None:
        registered(site.add())
        site.db.session.rollback()

    assert sign_up(site, mmolove_sandbox, view) == 200
    assert site.count(Player) == 0
    assert site.entries(1) == {}


def test_what_is_flushed_and_never_committed_is_reported_if_it_stands(
    site: Isolated, mmolove_sandbox: SiteSandbox
) -> None:
    def view() -> None:
        registered(site.add())
        site.db.session.flush()

    assert sign_up(site, mmolove_sandbox, view) == 200
    there = 1 if site.is_autocommit else 0
    assert (site.count(Player), len(site.entries(1))) == (there, there)


def test_a_rollback_afterwards_does_not_take_it_along(
    site: Isolated, mmolove_sandbox: SiteSandbox
) -> None:
    def view() -> None:
        registered(site.add())
        site.db.session.commit()
        site.begin()
        site.add("anna, again")
        site.db.session.rollback()

    assert sign_up(site, mmolove_sandbox, view) == 200
    assert (site.count(Player), len(site.entries(1))) == (1, 1)


def test_a_reward_that_raised_is_not_given(
    site: Isolated, mmolove_sandbox: SiteSandbox
) -> None:
    @site.mmolove.reward
    def grant(referral: Referral) -> None:
        site.db.session.add(Gift(key=referral.reward_key))
        site.db.session.flush()
        raise ZeroDivisionError

    player = site.play(mmolove_sandbox)
    site.state.make_delivery().drain()
    assert site.entries(player)["qualified"].state == "accepted"
    assert site.count(Gift) == 0


def test_a_reward_is_given_and_the_site_s_connections_stay_as_they_are(
    site: Isolated, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    @site.mmolove.reward
    def grant(referral: Referral) -> None:
        site.db.session.add(Gift(key=referral.reward_key))

    player = site.play(mmolove_sandbox)
    site.state.make_delivery().drain()
    assert site.entries(player)["qualified"].state == "rewarded"
    assert site.count(Gift) == 1
    with site.app.app_context():
        site.begin()
        site.add("ben")
        site.db.session.flush()
    assert site.count(Player) == 1 + site.is_autocommit


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought it")
def test_sqlite_s_own_autocommit(
    mmolove_sandbox: SiteSandbox, tmp_path: Path, log: io.StringIO
) -> None:
    """There is no transaction in which a reward could be given."""
    url = URL.create("sqlite+pysqlite", database=str(tmp_path / "site.db"))
    config = {
        **mmolove_sandbox.config,
        "MMOLOVE_DELIVERY": "manual",
        "SQLALCHEMY_ENGINE_OPTIONS": {"connect_args": {"autocommit": True}},
    }
    site = Site(url.render_as_string(False), config, str(tmp_path))
    site.mmolove.reward(lambda referral: None)
    with site.app.app_context():
        player = site.add(mmref=mmolove_sandbox.mint())
        registered(player)
        qualify(player)
        site.db.session.commit()
    site.state.make_delivery().drain()
    assert site.entries(1)["qualified"].state == "accepted"
    assert "autocommit=True" in log.getvalue()
    site.close()
