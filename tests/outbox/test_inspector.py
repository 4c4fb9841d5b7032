"""Pages and counts, as the dashboard and the command line ask for them."""

from __future__ import annotations

import typing as t

import pytest

from flask_mmolove.outbox.counters import DAY
from flask_mmolove.outbox.entry import Answer
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.inspector import Worker
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add
from tests.outbox.recording import claim_one
from tests.outbox.recording import LEASE
from tests.outbox.recording import through


class TestInspector:
    def test_pages_go_on_where_the_last_one_ended(self, outbox: Outbox) -> None:
        for player in "abcde":
            add(outbox, player)
        first = outbox.inspector.page(limit=3)
        rest = outbox.inspector.page(before=first[-1].id, limit=3)
        assert [entry.identity for entry in [*first, *rest]] == [*"edcba"]

    def test_a_page_is_filtered_by_state_and_player(self, outbox: Outbox) -> None:
        add(outbox, "a", "registered", "qualified")
        add(outbox, "b")
        through(outbox, "rejected")
        ask = outbox.inspector.page
        (rejected,) = ask(state="rejected")
        assert (rejected.identity, ask(state="accepted")) == ("a", [])
        assert [entry.event for entry in ask(player="a")] == ["qualified", "registered"]
        assert ask(player="a", state="rejected") == [rejected]
        assert len(ask(before=10**20)) == len(ask())
        assert ask(before=-(10**20)) == []
        assert ask(player="a", before=rejected.id) == ask(player="nobody") == []
        assert ask(player="a'; --") == []

    def test_an_entry_is_found_by_its_id(self, outbox: Outbox) -> None:
        (entry,) = add(outbox)
        assert outbox.inspector.get(entry.id) == entry
        assert outbox.inspector.get(entry.id + 1) is None
        assert outbox.inspector.get(1 << 70) is None

    def test_the_earlier_answers_are_kept_but_not_all(self, outbox: Outbox) -> None:
        add(outbox)
        for number in range(15):
            now = 1000 + number
            failure = Settlement(claim_one(outbox, now), "pending", now + 1)
            words = f"answer {number}"
            failure = failure._replace(status=500, answer=words, took=number)
            outbox.settle([failure], now)
        (entry,) = outbox.inspector.page()
        assert [a.words for a in entry.answers] == [f"answer {n}" for n in range(4, 15)]
        assert entry.answers[-2:] == [
            Answer(1013, 500, "answer 13", 13),
            Answer(1014, 500, "answer 14", 14),
        ]

    def test_what_mmolove_said_outlives_the_failures_of_a_reward(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "7")
        sent = Settlement(claim_one(outbox, 1000), "accepted", 1000, status=200)
        outbox.settle([sent._replace(answer="taken")], 1000)
        for number in range(1, 15):
            (claimed,) = outbox.claim("accepted", 1000 + number, LEASE, 1)
            failed = Settlement(claimed, "accepted", 1001 + number)
            outbox.settle([failed._replace(answer=f"{number}")], 1000 + number)
        (entry,) = outbox.inspector.page()
        words = ["taken", *(str(number) for number in range(5, 15))]
        assert [answer.words for answer in entry.answers] == words

    def test_a_page_is_filtered_by_time(self, outbox: Outbox) -> None:
        def players(**wanted: t.Any) -> list[int]:
            found = outbox.inspector.page(**wanted)
            return [int(entry.identity) for entry in reversed(found)]

        assert players(since=5, until=9) == []
        for number in range(1, 20):
            add(outbox, str(number), now=1000 * number)
        outbox.erase("7")
        assert players(until=1000) == players(since=19_001) == []
        assert players(until=1001) == [1]
        assert players(until=3000) == [1, 2]
        assert players(since=17_000) == [17, 18, 19]
        assert players(since=16_001, until=18_001) == [17, 18]
        assert players(since=5000, until=9000) == [5, 6, 8]
        assert players(since=7000, until=8000) == []
        assert players(player="5", since=5000, until=5001) == [5]
        assert players(player="5", until=5000) == players(player="5", since=5001) == []
        before = outbox.of("6", False)["registered"].id
        assert players(since=5000, until=9000, before=before) == [5]

    def test_a_page_is_filtered_by_event(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_mmolove.outbox.inspector._CHUNK", 3)
        for number in range(10):
            names = ["registered", "qualified"][: 2 - number % 5 // 2]
            add(outbox, str(number), *names, referrer="ab"[number % 2])
        page = outbox.inspector.page
        found = page(event="qualified", limit=3)
        assert [entry.identity for entry in found] == ["6", "5", "1"]
        (last,) = page(event="qualified", before=found[-1].id)
        assert last.identity == "0"
        assert len(page(event="registered")) == 10
        found = page(event="qualified", state="pending", referrer="b")
        assert [entry.identity for entry in found] == ["5", "1"]
        assert page(event="qualified", state="rejected") == []

    def test_what_delivers_shows_itself(self, outbox: Outbox) -> None:
        assert outbox.inspector.worker() is None
        for worker in (Worker(1000), Worker(2000, -90.5)):
            outbox.heartbeat(*worker)
            assert outbox.inspector.worker() == worker

    def test_it_is_known_when_a_signup_was_last_taken(self, outbox: Outbox) -> None:
        assert outbox.inspector.last_signup() is None
        add(outbox, "7", "registered", "qualified")
        through(outbox, "accepted", 4000)
        assert outbox.inspector.last_signup() == 4000
        through(outbox, "accepted", 5000)
        assert outbox.inspector.last_signup() == 4000

    def test_the_oldest_pending_and_a_count(self, outbox: Outbox) -> None:
        assert outbox.inspector.oldest_pending() is None
        add(outbox, "a", now=1000)
        add(outbox, "b", now=2000)
        assert outbox.inspector.oldest_pending() == 1000
        assert outbox.inspector.count("pending") == 2

    def test_a_count_stops_where_it_is_told(self, outbox: Outbox) -> None:
        add(outbox, "a", "registered", "qualified")
        add(outbox, "b")
        assert outbox.inspector.count("pending", 2) == 2
        assert outbox.inspector.count("pending", 4) == 3
        for most, found in ((2, 2), (4, 3)):
            assert outbox.inspector.summary(most).counts == {"pending": found}
        assert outbox.inspector.summary().waiting == 1

    def test_the_newest_signups_that_wait_are_counted_first(
        self, outbox: Outbox
    ) -> None:
        add(outbox, "a", now=1000)
        add(outbox, "b", now=DAY + 1000)
        for most, found in ((1, [0, 1]), (2, [1, 1])):
            days = outbox.inspector.days(0, DAY, most)
            assert [day.signed_up for day in days] == found

    def test_a_reward_that_failed_is_found_behind_those_that_wait(
        self, outbox: Outbox
    ) -> None:
        names = ("registered", "qualified")
        for n in range(102):
            add(outbox, f"{n}", *names)
        for due in (None, 1000):
            found = outbox.claim("pending", 1000, LEASE, 200)
            settled = (Settlement(e, "accepted", due, is_fact=True) for e in found)
            outbox.settle([each._replace(resets_attempts=True) for each in settled], 1)
        (entry,) = outbox.claim("accepted", 2000, LEASE, 1)
        outbox.settle([Settlement(entry, "accepted", 9000, answer="no")], 2000)
        (failing,) = outbox.inspector.failing_rewards()
        assert (failing.identity, failing.answer) == (entry.identity, "no")
