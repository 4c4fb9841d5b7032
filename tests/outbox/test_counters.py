"""What is counted for each day and each referrer."""

from __future__ import annotations

from flask_mmolove.outbox.counters import DAY
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.inspector import Day
from flask_mmolove.outbox.inspector import Referrer
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add
from tests.outbox.recording import claim_one
from tests.outbox.recording import invite
from tests.outbox.recording import LEASE
from tests.outbox.recording import pay
from tests.outbox.recording import through


class TestCounts:
    def test_a_day_is_counted_as_far_as_its_players_came(self, outbox: Outbox) -> None:
        for player, names in (("a", ("registered", "qualified")), ("b", ())):
            add(outbox, player, *names)
        add(outbox, "c")
        add(outbox, "next day", now=DAY)
        assert outbox.inspector.days(0, DAY) == [
            Day(0, 3, 0, 0, 0),
            Day(DAY, 1, 0, 0, 0),
        ]
        through(outbox, "accepted")
        assert outbox.inspector.days(0, 1) == [Day(0, 3, 1, 0, 0)]
        through(outbox, "accepted")
        through(outbox, "ignored")
        through(outbox, "rejected")
        pay(outbox, "reward_unconfirmed")
        assert outbox.inspector.days(0, 1) == [Day(0, 3, 1, 1, 0)]
        (doubtful,) = outbox.inspector.page(state="reward_unconfirmed", limit=1)
        outbox.decide(doubtful.id, "rewarded", 2000)
        assert outbox.inspector.days(0, 1) == [Day(0, 3, 1, 1, 1, 1)]

    def test_a_step_is_counted_once(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        first = claim_one(outbox)
        second = claim_one(outbox, 1000 + LEASE)
        for entry in (second, first):
            outbox.settle([Settlement(entry, "accepted", is_fact=True)], 2000)
        through(outbox, "accepted", 2000)
        (qualified,) = outbox.inspector.page(state="accepted", limit=1)
        again = Settlement(qualified, "accepted", due=3000)
        outbox.settle([again, again], 2000)
        pay(outbox, "rewarded")
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 1, 1)]

    def test_without_a_callback_a_player_qualifies_all_the_same(
        self, outbox: Outbox
    ) -> None:
        invite(outbox, "7", "anna")
        invite(outbox, "7", "anna", "qualified")
        through(outbox, "accepted")
        through(outbox, "reward_failed")
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 0)]
        (failed,) = outbox.inspector.page(state="reward_failed")
        outbox.decide(failed.id, "accepted", 2000)
        pay(outbox, "reward_failed")
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 0)]
        outbox.decide(failed.id, "rewarded", 2000)
        assert outbox.inspector.days(0, 1) == [Day(0, 1, 1, 1, 1)]
        assert outbox.inspector.best_referrers() == [Referrer("anna", 1, 1, 1)]

    def test_a_dry_run_is_not_counted(self, outbox: Outbox) -> None:
        add(outbox, test=True)
        assert outbox.inspector.days(0, 1)[0].signed_up == 0
        through(outbox, "accepted")
        assert outbox.inspector.days(0, 1)[0] == Day(0, 0, 0, 0, 0)

    def test_a_friend_is_counted_for_the_referrer(self, outbox: Outbox) -> None:
        for player, by in (("a", "anna"), ("b", "anna"), ("c", "berta"), ("d", None)):
            invite(outbox, player, by)
        for player in "ef":
            invite(outbox, player, "anna", test=player == "f")
        ask = outbox.inspector.best_referrers
        assert ask() == []
        for state in ("accepted",) * 4 + ("ignored", "accepted"):
            through(outbox, state)
        assert ask() == [Referrer("anna", 2, 0, 0), Referrer("berta", 1, 0, 0)]
        invite(outbox, "c", "berta", "qualified")
        through(outbox, "accepted")
        pay(outbox, "rewarded")
        assert ask() == [Referrer("anna", 2, 0, 0), Referrer("berta", 1, 1, 1)]
        assert ask(limit=1) == [Referrer("anna", 2, 0, 0)]
