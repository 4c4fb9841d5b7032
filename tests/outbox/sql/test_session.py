"""A reward in a transaction of the site's session."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy import text
from sqlalchemy import URL

from flask_mmolove import OutboxBusy
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.statements import Transaction
from flask_mmolove.testing import SiteSandbox
from tests.sites import Gift
from tests.sites import make_sites
from tests.sites import MakeSite
from tests.sites import Site


@pytest.fixture
def make_site(
    url: URL, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> t.Iterator[MakeSite]:
    yield from make_sites(url, mmolove_sandbox, tmp_path)


class TestReward:
    """What the callback writes is committed with the ledger."""

    @pytest.fixture
    def site(self, make_site: MakeSite, mmolove_sandbox: SiteSandbox) -> Site:
        site = make_site(MMOLOVE_DELIVERY="manual")
        with site.app.app_context():
            player = site.add(mmref=mmolove_sandbox.mint())
            registered(player)
            qualify(player)
            site.db.session.commit()
        return site

    def state_of(self, site: Site) -> str:
        return site.entries(1)["qualified"].state

    def test_it_is_given_and_written_down_at_once(
        self, site: Site, mmolove_sandbox: SiteSandbox
    ) -> None:
        @site.mmolove.reward
        def grant(referral: Referral) -> None:
            site.db.session.add(Gift(key=referral.reward_key))
            # Nobody else sees it before the site's own gift is committed.
            assert self.state_of(site) == "accepted"

        if str(site.state.outbox).startswith("sqlite"):
            site.mmolove.reward(
                lambda referral: site.db.session.add(Gift(key=referral.reward_key))
            )
        site.state.make_delivery().drain()
        assert (self.state_of(site), site.count(Gift)) == ("rewarded", 1)
        assert [each.identity for each in mmolove_sandbox.rewarded] == ["1"]

    def test_one_that_raises_leaves_nothing(self, site: Site) -> None:
        @site.mmolove.reward
        def grant(referral: Referral) -> None:
            site.db.session.add(Gift(key=referral.reward_key))
            site.db.session.flush()
            raise ZeroDivisionError

        site.state.make_delivery().drain()
        entry = site.entries(1)["qualified"]
        assert (entry.state, site.count(Gift)) == ("accepted", 0)
        assert entry.answer == "ZeroDivisionError"

    def test_one_that_commits_by_itself_is_written_down_with_that(
        self, site: Site
    ) -> None:
        @site.mmolove.reward
        def grant(referral: Referral) -> None:
            site.db.session.add(Gift(key=referral.reward_key))
            site.db.session.commit()
            assert self.state_of(site) == "rewarded"

        site.state.make_delivery().drain()
        assert (self.state_of(site), site.count(Gift)) == ("rewarded", 1)

    @pytest.mark.parametrize("how", ["rollback", "close", "remove"])
    def test_one_that_rolls_back_is_told_so_and_called_again(
        self, site: Site, how: str, log: t.Any
    ) -> None:
        @site.mmolove.reward
        def grant(referral: Referral) -> None:
            getattr(site.db.session, how)()

        site.state.make_delivery().drain()
        assert self.state_of(site) == "accepted"
        assert "Let it raise instead" in log.getvalue()

    def test_one_in_whose_way_another_transaction_was_is_called_again(
        self, site: Site
    ) -> None:
        name = str(site.state.outbox).partition("+")[0].partition(":")[0]
        conflict = {
            "postgresql": "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$",
            "mariadb": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213",
        }.get(name)
        if conflict is None:
            pytest.skip("SQLite knows one writer at a time")
        calls = []

        @site.mmolove.reward
        def grant(referral: Referral) -> None:
            site.db.session.add(Gift(key=referral.reward_key))
            site.db.session.flush()
            calls.append(referral)
            if len(calls) < 8:
                site.db.session.execute(text(conflict))

        site.state.make_delivery().drain()
        assert len(calls) == 8
        assert (self.state_of(site), site.count(Gift)) == ("rewarded", 1)

    def test_one_whose_entry_is_somebody_else_s_meanwhile_gives_nothing(
        self, site: Site
    ) -> None:
        @site.mmolove.reward
        def grant(referral: Referral) -> None:
            site.db.session.add(Gift(key=referral.reward_key))

        delivery = site.state.make_delivery()
        outbox = site.state.outbox
        claim = outbox.claim

        def claim_and_lose(*wanted: t.Any) -> t.Any:
            entries = claim(*wanted)
            if wanted[0] == "accepted":
                later = delivery.now() + 10**9
                assert len(claim("accepted", later, 1000, 1)) == len(entries)
            return entries

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outbox, "claim", claim_and_lose)
            delivery.step()
            delivery.step()
        assert (self.state_of(site), site.count(Gift)) == ("accepted", 0)

    def test_nobody_can_claim_one_whose_callback_runs(self, site: Site) -> None:
        """However long: it is locked, so its lease need not be renewed. Where it can
        be, it is passed over, and other rewards are granted meanwhile.
        """
        calls = []
        outbox = site.state.outbox
        delivery = site.state.make_delivery()

        @site.mmolove.reward
        def grant(referral: Referral) -> None:
            calls.append(referral)
            later = delivery.now() + 10**6

            def claim(db: Transaction) -> list[Entry]:
                return db.claim("accepted", later, 1000, 1)

            if site.db.engine.name == "sqlite":  # it has one lock
                with pytest.raises(OutboxBusy):
                    outbox.run(claim, 0.1)
            else:
                assert outbox.run(claim, 0.1) == []

        delivery.drain()
        assert (self.state_of(site), len(calls)) == ("rewarded", 1)

    def test_at_most_once_is_as_ever(self, site: Site) -> None:
        @site.mmolove.reward(at_most_once=True)
        def grant(referral: Referral) -> None:
            assert self.state_of(site) == "reward_unconfirmed"
            # Nor is SQLite's one lock held meanwhile.
            with site.db.engine.begin() as other:
                other.execute(insert(Gift).values(key="another player's"))
            site.db.session.add(Gift(key=referral.reward_key))
            site.db.session.commit()

        site.state.make_delivery().drain()
        assert (self.state_of(site), site.count(Gift)) == ("rewarded", 2)
