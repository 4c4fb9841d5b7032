"""What a delivery does with the rows: it claims and settles them."""

from __future__ import annotations

import pytest

from flask_mmolove.outbox.breaker import Breaker
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.states import EntryState
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add
from tests.outbox.recording import claim_one
from tests.outbox.recording import LEASE


def test_a_claim_counts_the_attempt_and_lasts_for_its_lease(
    outbox: Outbox,
) -> None:
    add(outbox)
    claimed = claim_one(outbox)
    assert (claimed.attempts, claimed.due) == (1, 1000 + LEASE)
    assert outbox.claim("pending", 999 + LEASE, LEASE, 1) == []
    again = claim_one(outbox, 1000 + LEASE)
    assert (again.attempts, again.crashes) == (2, 1)
    assert again.claim != claimed.claim


def test_what_is_due_longest_is_claimed_first(outbox: Outbox) -> None:
    for identity, now in (("b", 2000), ("a", 1000), ("c", 3000)):
        add(outbox, identity, now=now)
    claimed = outbox.claim("pending", 5000, LEASE, 2)
    assert [entry.identity for entry in claimed] == ["a", "b"]


def test_entries_are_claimed_by_their_ids_if_they_are_due(outbox: Outbox) -> None:
    a, b, c = (add(outbox, identity)[0].id for identity in "abc")
    later = add(outbox, "later", now=9000)[0].id

    def claim(*ids: int) -> list[str]:
        claimed = outbox.claim("pending", 1000, LEASE, 9, ids)
        return sorted(entry.identity for entry in claimed)

    assert claim() == []
    assert claim(c, a, later, 10**6) == ["a", "c"]
    assert claim(a, b) == ["b"]
    assert claim(a, b, c) == []
    assert outbox.claim("accepted", 1000, LEASE, 9, [a, b, c]) == []


def test_an_entry_whose_worker_died_is_claimed_alone(outbox: Outbox) -> None:
    add(outbox, "poison")
    claim_one(outbox)
    for identity in "abc":
        add(outbox, identity, now=1000 + LEASE)
    now = 1000 + LEASE
    assert [e.identity for e in outbox.claim("pending", now, LEASE, 9)] == ["poison"]
    assert len(outbox.claim("pending", now, LEASE, 9)) == 3


def test_a_release_gives_the_attempt_back(outbox: Outbox) -> None:
    add(outbox)
    outbox.release([claim_one(outbox)])
    again = claim_one(outbox)
    assert (again.attempts, again.crashes) == (1, 0)


def test_a_schedule_beyond_the_horizon_was_set_by_a_wrong_clock(
    outbox: Outbox,
) -> None:
    year = 365 * 86_400_000
    add(outbox, now=year)
    assert outbox.next_due(1000) == 1000
    assert claim_one(outbox, 1000).identity == "7"


def test_what_someone_answers_can_always_be_written_down(outbox: Outbox) -> None:
    add(outbox)
    settled = Settlement(
        claim_one(outbox),
        "accepted",
        is_fact=True,
        answer="a\0b",
        referral_id="r\ud800",
    )
    (entry,) = outbox.settle([settled], 1000)
    assert (entry.answer, entry.referral_id) == ("a\ufffdb", "r?")


def test_a_referral_id_is_not_forgotten(outbox: Outbox) -> None:
    add(outbox)
    first = claim_one(outbox)
    outbox.settle([Settlement(first, "pending", 1000, referral_id="ref")], 1000)
    (entry,) = outbox.settle([Settlement(claim_one(outbox), "accepted")], 1000)
    assert entry.referral_id == "ref"


class TestOrder:
    def test_qualified_waits_for_registered(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        claimed = outbox.claim("pending", 1000, LEASE, 9)
        assert [entry.event for entry in claimed] == ["registered"]
        assert outbox.inspector.summary().waiting == 1
        outbox.settle([Settlement(claimed[0], "accepted", is_fact=True)], 2000)
        assert claim_one(outbox, 2000).event == "qualified"

    def test_qualified_of_an_accepted_player_is_due_at_once(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        outbox.settle([Settlement(claim_one(outbox), "accepted", is_fact=True)], 1000)
        add(outbox, "7", "qualified", now=2000)
        assert claim_one(outbox, 2000).event == "qualified"

    @pytest.mark.parametrize("late", [True, False])
    def test_a_conflict_takes_qualified_along(self, outbox: Outbox, late: bool) -> None:
        add(outbox, "7", "registered", *([] if late else ["qualified"]))
        outbox.settle([Settlement(claim_one(outbox), "ignored", is_fact=True)], 1000)
        add(outbox, "7", "qualified")
        assert outbox.of("7", False)["qualified"].state == "ignored"
        assert outbox.claim("pending", 9000, LEASE, 9) == []

    def test_a_rejected_registered_blocks_until_it_is_retried(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "7", "registered", "qualified")
        outbox.settle([Settlement(claim_one(outbox), "rejected", status=400)], 1000)
        assert outbox.claim("pending", 9000, LEASE, 9) == []
        assert outbox.inspector.summary().waiting == 1
        assert [entry.event for entry in outbox.retry(9000)] == ["registered"]
        retried = claim_one(outbox, 9000)
        outbox.settle([Settlement(retried, "accepted", is_fact=True)], 9000)
        assert claim_one(outbox, 9000).event == "qualified"


class TestFence:
    def test_a_failure_is_settled_by_the_holder_of_the_claim_only(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        assert outbox.settle([Settlement(stale, "rejected")], 99_000) == []
        assert outbox.of("7", False)["registered"].claim == holder.claim

    def test_a_success_is_settled_by_anyone(self, outbox: Outbox) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        (settled,) = outbox.settle(
            [Settlement(stale, "accepted", is_fact=True)], 99_000
        )
        assert settled.state == "accepted"
        assert outbox.settle([Settlement(holder, "rejected")], 99_000) == []

    def test_a_late_success_overrules_a_rejection(self, outbox: Outbox) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        outbox.settle([Settlement(holder, "rejected", status=400)], 99_000)
        (settled,) = outbox.settle(
            [Settlement(stale, "accepted", is_fact=True)], 99_000
        )
        assert settled.state == "accepted"

    def test_a_paid_reward_is_not_due_again(self, outbox: Outbox) -> None:
        add(outbox, "7", "registered", "qualified")
        outbox.settle([Settlement(claim_one(outbox), "accepted", is_fact=True)], 1000)
        qualified = claim_one(outbox)
        accepted = Settlement(
            qualified, "accepted", 1000, is_fact=True, resets_attempts=True
        )
        outbox.settle([accepted], 1000)
        (reward,) = outbox.claim("accepted", 1000, LEASE, 1)
        assert reward.attempts == 1
        outbox.settle([Settlement(reward, "rewarded", is_fact=True)], 1000)
        assert outbox.settle([accepted], 1000) == []
        assert outbox.of("7", False)["qualified"].state == "rewarded"


class TestBreaker:
    def test_what_is_learned_is_kept(self, outbox: Outbox) -> None:
        add(outbox)
        failed = Settlement(claim_one(outbox), "pending", 5000)
        outbox.settle(
            [failed], 2000, lambda breaker: Breaker(failures=breaker.failures + 1)
        )
        outbox.settle([], 2000, lambda breaker: Breaker(failures=breaker.failures + 1))
        assert outbox.breaker() == Breaker(failures=2)

    def test_a_host_in_trouble_is_asked_by_one(self, outbox: Outbox) -> None:
        add(outbox, "a")
        add(outbox, "b")
        outbox.settle(
            [], 1000, lambda breaker: Breaker(open_since=1000, not_before=2000)
        )
        assert outbox.claim("pending", 1999, LEASE, 9) == []
        assert outbox.next_due(1999) == 2000
        assert len(outbox.claim("pending", 2000, LEASE, 9)) == 1
        assert outbox.claim("pending", 2001, LEASE, 9) == []

    def test_on_the_way_back_few_are_let_through(self, outbox: Outbox) -> None:
        for identity in "abcd":
            add(outbox, identity)
        outbox.settle([], 1000, lambda breaker: Breaker(max_in_flight=3))
        assert len(outbox.claim("pending", 2000, LEASE, 2)) == 2
        assert len(outbox.claim("pending", 2000, LEASE, 2)) == 1
        assert outbox.claim("pending", 2000, LEASE, 2) == []

    def test_refusals_that_open_the_breaker_are_absolved(self, outbox: Outbox) -> None:
        for identity, status in (("a", 401), ("b", 400)):
            add(outbox, identity)
            rejected = Settlement(claim_one(outbox), "rejected", status=status)
            outbox.settle([rejected], 1000)
        wrong = Breaker(open_since=2000, refused_since=1000)
        outbox.settle([], 2000, lambda breaker: wrong)
        assert outbox.inspector.summary().counts == {"pending": 1, "rejected": 1}

    def test_when_it_is_well_again_nothing_waits_any_longer(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        failed = Settlement(claim_one(outbox), "pending", 3_000_000)
        outbox.settle([failed], 1000, lambda breaker: Breaker(open_since=1000))
        outbox.settle([], 2000, lambda breaker: Breaker())
        assert outbox.next_due(2000) == 2000

    def test_what_is_settled_is_given_as_the_turn_of_the_breaker_leaves_it(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        refused = Settlement(claim_one(outbox), "rejected", status=401)
        wrong = Breaker(open_since=2000, refused_since=1000)
        (entry,) = outbox.settle([refused], 2000, lambda breaker: wrong)
        assert entry.state == "pending"
        failed = Settlement(claim_one(outbox, 2000), "pending", 3_000_000)
        (entry,) = outbox.settle([failed], 2000, lambda breaker: Breaker())
        assert entry.due == 2000

    def test_an_event_ages_by_its_uptime_from_the_first_claim_on(
        self, outbox: Outbox
    ) -> None:
        (entry,) = add(outbox)
        assert entry.begun == 0
        outbox.settle([], 1000, lambda breaker: Breaker(downtime=400))
        first = claim_one(outbox, 5000)
        outbox.release([first])
        assert first.begun == claim_one(outbox, 9000).begun == 4600


class TestRenew:
    def test_a_claim_lasts_longer(self, outbox: Outbox) -> None:
        add(outbox)
        entry = claim_one(outbox)
        assert outbox.renew([entry], 1000 + 2 * LEASE) == []
        assert outbox.claim("pending", 1000 + LEASE, LEASE, 1) == []
        assert claim_one(outbox, 1000 + 2 * LEASE).crashes == 1

    def test_one_whose_lease_is_over_is_held_until_another_claims_it(
        self, outbox: Outbox
    ) -> None:
        add(outbox)
        first = claim_one(outbox)
        assert outbox.renew([first], 1000) == []
        second = claim_one(outbox)
        assert outbox.renew([first], 10**12) == [first]
        assert outbox.of("7", False)["registered"] == second
        assert outbox.renew([second], 2000) == []

    @pytest.mark.parametrize("state", ["accepted", "rejected", "pending"])
    def test_what_is_settled_is_held_by_nobody(
        self, outbox: Outbox, state: EntryState
    ) -> None:
        add(outbox)
        entry = claim_one(outbox)
        outbox.settle([Settlement(entry, state, 5000)], 1000)
        assert outbox.renew([entry], 10**12) == [entry]
        assert outbox.of("7", False)["registered"].due == 5000

    def test_several_are_renewed_at_once(self, outbox: Outbox) -> None:
        for identity in "abc":
            add(outbox, identity)
        entries = outbox.claim("pending", 1000, LEASE, 3)
        outbox.settle([Settlement(entries[1], "accepted")], 1000)
        assert outbox.renew(entries, 9000) == [entries[1]]
        assert outbox.of("c", False)["registered"].due == 9000
        assert outbox.renew([], 9000) == []
