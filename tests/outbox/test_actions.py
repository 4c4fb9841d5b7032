"""What a person does with the rows, and what follows from new settings."""

from __future__ import annotations

import typing as t

import pytest

from flask_mmolove.outbox import store
from flask_mmolove.outbox.entry import Answer
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.inspector import Referrer
from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.statements import Transaction
from flask_mmolove.outbox.states import EntryState
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add
from tests.outbox.recording import claim_one
from tests.outbox.recording import invite
from tests.outbox.recording import LEASE
from tests.outbox.recording import through


class TestSettings:
    def test_what_was_refused_is_sent_again_when_the_settings_change(
        self, outbox: Outbox
    ) -> None:
        assert outbox.apply_settings("old", "srv", 1000) is None
        for identity, status in (("a", 401), ("b", 404), ("c", 301), ("d", 400)):
            add(outbox, identity)
            rejected = Settlement(claim_one(outbox), "rejected", status=status)
            outbox.settle([rejected], 1000)
        assert outbox.apply_settings("old", "srv", 2000) is None
        assert outbox.apply_settings("new", "srv", 2000) == 3
        assert outbox.inspector.summary().counts == {"pending": 3, "rejected": 1}

    def test_what_waits_is_addressed_to_the_new_server_id(self, outbox: Outbox) -> None:
        outbox.apply_settings("old", "srv", 1000)
        add(outbox, "7", "registered", "qualified", now=1_700_000_000_000)
        outbox.apply_settings("new", "other", 2000)
        for name, entry in outbox.of("7", False).items():
            event = make_event(name, "7", "tok-7", "other", 1_700_000_000_000, False)
            assert (entry.server_id, entry.body) == ("other", event.encode())

    def test_what_may_be_retried_is_addressed_to_it_as_well(
        self, outbox: Outbox
    ) -> None:
        outbox.apply_settings("old", "srv", 1000)
        add(outbox, now=1_700_000_000_000)
        rejected = Settlement(claim_one(outbox, 1_700_000_000_000), "rejected")
        outbox.settle([rejected._replace(status=400)], 1_700_000_000_000)
        assert outbox.apply_settings("new", "other", 1_700_000_000_000) == 0
        (entry,) = outbox.retry(1_700_000_000_000)
        event = make_event("registered", "7", "tok-7", "other", entry.recorded, False)
        assert (entry.state, entry.server_id) == ("pending", "other")
        assert entry.body == event.encode()


class TestPerson:
    def test_asks_in_vain_for_an_id_that_no_event_has(self, outbox: Outbox) -> None:
        add(outbox)
        outbox.settle([Settlement(claim_one(outbox), "rejected")], 1000)
        (entry,) = outbox.inspector.page()
        assert outbox.retry(2000, [10**20, -1, entry.id]) == [
            outbox.of("7", False)["registered"]
        ]
        assert outbox.decide(10**20, "rewarded", 2000) is None

    def test_sends_again_however_many_are_rejected(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "_BATCH", 2)
        retry, sizes = Transaction.retry, []

        def watch(db: Transaction, now: int, ids: list[int]) -> list[Entry]:
            sizes.append(len(ids))
            return retry(db, now, ids)

        monkeypatch.setattr(Transaction, "retry", watch)
        for player in "abcde":
            add(outbox, player)
            outbox.settle([Settlement(claim_one(outbox), "rejected")], 1000)
        assert sorted(e.identity for e in outbox.retry(2000)) == [*"abcde"]
        assert sizes == [2, 2, 1]
        assert outbox.inspector.summary().counts == {"pending": 5}

    @pytest.mark.parametrize("state", ["reward_unconfirmed", "reward_failed"])
    def test_decides_on_a_reward(self, outbox: Outbox, state: t.Any) -> None:
        add(outbox)
        failed = Settlement(claim_one(outbox), state, answer="its callback raised")
        (entry,) = outbox.settle([failed], 1000)
        assert outbox.inspector.page(state=state) == [entry]
        again = outbox.decide(entry.id, "accepted", 2000)
        assert again is not None
        assert again.answers == [
            Answer(1000, None, "its callback raised"),
            Answer(2000, None, "a person: give it now"),
        ]
        assert (again.state, again.due, again.attempts) == ("accepted", 2000, 0)
        assert outbox.decide(entry.id, "rewarded", 2000) is None

    def test_sends_one_again(self, outbox: Outbox) -> None:
        for identity in "ab":
            add(outbox, identity)
            outbox.settle([Settlement(claim_one(outbox), "rejected")], 1000)
        first, second = reversed(outbox.inspector.page(state="rejected"))
        assert [entry.id for entry in outbox.retry(2000, [second.id])] == [second.id]
        assert outbox.inspector.page(state="rejected", limit=9) == [first]


class TestDismiss:
    def reject(self, outbox: Outbox, identity: str, status: int = 404) -> Entry:
        rejected = Settlement(claim_one(outbox), "rejected", status=status)
        (entry,) = outbox.settle([rejected], 1000)
        assert entry.identity == identity
        return entry

    def test_a_junk_token_goes_with_the_milestone_that_waits_for_it(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "7", "registered", "qualified")
        invite(outbox, "friend", "7")
        junk = self.reject(outbox, "7")
        before = outbox.inspector.days(0, 1)
        gone = outbox.dismiss(junk)
        assert {entry.event for entry in gone} == {"registered", "qualified"}
        (left,) = outbox.inspector.page()
        assert (left.identity, left.referrer) == ("friend", "7")
        assert outbox.inspector.days(0, 1) == before
        assert outbox.dismiss(junk) == []

    def test_its_token_is_nobody_else_s(self, outbox: Outbox) -> None:
        add(outbox, "7", token="junk")
        outbox.dismiss(self.reject(outbox, "7"))
        assert outbox.is_used("junk")
        (second,) = add(outbox, "8", token="junk")
        assert second.is_second

    @pytest.mark.parametrize("status", [400, 422])
    def test_what_was_refused_for_another_reason_stays(
        self, outbox: Outbox, status: int
    ) -> None:
        add(outbox, "7")
        assert outbox.dismiss(self.reject(outbox, "7", status)) == []
        assert len(outbox.inspector.page()) == 1

    def test_what_is_sent_again_meanwhile_stays(self, outbox: Outbox) -> None:
        add(outbox, "7")
        junk = self.reject(outbox, "7")
        outbox.retry(2000)
        assert outbox.dismiss(junk) == []
        assert outbox.inspector.summary().counts == {"pending": 1}


class TestErase:
    def test_who_is_erased_invited_nobody(self, outbox: Outbox) -> None:
        invite(outbox, "a", "anna")
        invite(outbox, "b", "berta")
        outbox.hold("key", Invitation("tok", "anna"), 1000)
        through(outbox, "accepted")
        through(outbox, "accepted")
        assert outbox.erase("anna") == []
        assert [entry.referrer for entry in outbox.inspector.page()] == ["berta", None]
        assert outbox.inspector.best_referrers() == [Referrer("berta", 1)]
        assert outbox.held("key", 1000) == Invitation("tok", None)

    def test_who_is_erased_while_a_friend_is_under_way_is_not_counted(
        self, outbox: Outbox
    ) -> None:
        invite(outbox, "a", "anna")
        claimed = claim_one(outbox)
        outbox.erase("anna")
        (entry,) = outbox.settle([Settlement(claimed, "accepted", is_fact=True)], 1000)
        assert (claimed.referrer, entry.referrer) == ("anna", None)
        assert outbox.inspector.best_referrers() == []
        assert outbox.inspector.days(0, 1)[0].accepted == 1

    def test_the_counts_survive_what_is_erased(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        through(outbox, "accepted")
        add(outbox, "8")
        before = outbox.inspector.days(0, 1)
        for player, count in (("7", 2), ("8", 1), ("8", 0)):
            assert len(outbox.erase(player)) == count
        assert outbox.inspector.page() == []
        assert outbox.inspector.days(0, 1) == before

    def test_what_is_erased_under_way_is_not_there_to_be_settled(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        entry = claim_one(outbox)
        outbox.erase("7")
        assert outbox.settle([Settlement(entry, "accepted", is_fact=True)], 2000) == []

    def test_only_what_is_finished_is_purged(self, outbox: Outbox) -> None:
        for player in ("paid", "due", "late", "to come"):
            add(outbox, player, "registered", "qualified")
        add(outbox, "milestone to come")
        add(outbox, "second", "registered", "qualified")
        for entry in outbox.claim("pending", 1000, LEASE, 9):
            state = "ignored" if entry.identity == "second" else "accepted"
            outbox.settle(
                [Settlement(entry, t.cast(EntryState, state), is_fact=True)], 1000
            )
        for entry in outbox.claim("pending", 1000, LEASE, 3):
            due = 5000 if entry.identity == "due" else None
            now = 5000 if entry.identity == "late" else 1000
            outbox.settle([Settlement(entry, "accepted", due, is_fact=True)], now)
        assert outbox.purge(2000) == 4
        left = {entry.identity for entry in outbox.inspector.page()}
        assert left == {"due", "to come", "late", "milestone to come"}

    def test_a_dry_run_is_purged_once_both_events_are_finished(
        self, outbox: Outbox
    ) -> None:
        for player, state, now in (("7", "rejected", 1000), ("8", "accepted", 5000)):
            add(outbox, player, "registered", "qualified", test=True)
            through(outbox, "accepted")
            through(outbox, t.cast(EntryState, state), now)
        assert outbox.purge(2000) == 0
        assert outbox.purge(6000) == 2
        assert {entry.identity for entry in outbox.inspector.page()} == {"7"}
