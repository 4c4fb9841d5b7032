from __future__ import annotations

import multiprocessing
import sqlite3
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import OutboxBusy
from flask_mmolove import OutboxError
from flask_mmolove.outbox import Entry
from flask_mmolove.outbox import Settlement
from flask_mmolove.outbox.entry import make_event
from flask_mmolove.outbox.sqlite import SQLiteOutbox

LEASE = 60_000


@pytest.fixture
def outbox(tmp_path: Path) -> t.Iterator[SQLiteOutbox]:
    outbox = SQLiteOutbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


def add(
    outbox: SQLiteOutbox, identity: str = "7", *names: str, now: int = 1000
) -> list[Entry]:
    events = [
        make_event(name, identity, f"tok-{identity}", "srv", 1_700_000_000_000, False)
        for name in names or ("registered",)
    ]
    return outbox.add(identity, events, now)


def claim_one(outbox: SQLiteOutbox, now: int = 1000) -> Entry:
    (entry,) = outbox.claim("pending", now, LEASE, 1)
    return entry


def test_an_event_is_kept_with_its_exact_bytes(outbox: SQLiteOutbox) -> None:
    (entry,) = add(outbox)
    event = make_event("registered", "7", "tok-7", "srv", 1_700_000_000_000, False)
    assert outbox.of("7", False) == {"registered": entry}
    assert entry.body == event.encode()
    assert (entry.state, entry.due, entry.attempts) == ("pending", 1000, 0)


def test_adding_again_changes_nothing(outbox: SQLiteOutbox) -> None:
    (first,) = add(outbox)
    assert add(outbox, now=5000) == []
    assert outbox.of("7", False) == {"registered": first}


def test_a_dry_run_stands_beside_the_real_event(outbox: SQLiteOutbox) -> None:
    add(outbox)
    event = make_event("registered", "7", "tok-7", "srv", 1_700_000_000_000, True)
    assert len(outbox.add("7", [event], 1000)) == 1
    assert outbox.of("7", True)["registered"].test


def test_a_claim_counts_the_attempt_and_lasts_for_its_lease(
    outbox: SQLiteOutbox,
) -> None:
    add(outbox)
    claimed = claim_one(outbox)
    assert (claimed.attempts, claimed.due) == (1, 1000 + LEASE)
    assert outbox.claim("pending", 999 + LEASE, LEASE, 1) == []
    again = claim_one(outbox, 1000 + LEASE)
    assert (again.attempts, again.crashes) == (2, 1)
    assert again.claim != claimed.claim


def test_what_is_due_longest_is_claimed_first(outbox: SQLiteOutbox) -> None:
    for identity, now in (("b", 2000), ("a", 1000), ("c", 3000)):
        add(outbox, identity, now=now)
    claimed = outbox.claim("pending", 5000, LEASE, 2)
    assert [entry.identity for entry in claimed] == ["a", "b"]


def test_an_entry_whose_worker_died_is_claimed_alone(outbox: SQLiteOutbox) -> None:
    add(outbox, "poison")
    claim_one(outbox)
    for identity in "abc":
        add(outbox, identity, now=1000 + LEASE)
    now = 1000 + LEASE
    assert [e.identity for e in outbox.claim("pending", now, LEASE, 9)] == ["poison"]
    assert len(outbox.claim("pending", now, LEASE, 9)) == 3


def test_a_release_gives_the_attempt_back(outbox: SQLiteOutbox) -> None:
    add(outbox)
    outbox.release([claim_one(outbox)])
    again = claim_one(outbox)
    assert (again.attempts, again.crashes) == (1, 0)


def test_a_schedule_beyond_the_horizon_was_set_by_a_wrong_clock(
    outbox: SQLiteOutbox,
) -> None:
    year = 365 * 86_400_000
    add(outbox, now=year)
    assert outbox.next_due(1000) == 1000
    assert claim_one(outbox, 1000).identity == "7"


class TestOrder:
    def test_qualified_waits_for_registered(self, outbox: SQLiteOutbox) -> None:
        add(outbox, "7", "registered", "qualified")
        claimed = outbox.claim("pending", 1000, LEASE, 9)
        assert [entry.event for entry in claimed] == ["registered"]
        assert outbox.summary().waiting == 1
        outbox.settle([Settlement(claimed[0], "accepted", sure=True)], 2000)
        assert claim_one(outbox, 2000).event == "qualified"

    def test_qualified_of_an_accepted_player_is_due_at_once(
        self, outbox: SQLiteOutbox
    ) -> None:
        add(outbox)
        outbox.settle([Settlement(claim_one(outbox), "accepted", sure=True)], 1000)
        add(outbox, "7", "qualified", now=2000)
        assert claim_one(outbox, 2000).event == "qualified"

    @pytest.mark.parametrize("late", [True, False])
    def test_a_conflict_takes_qualified_along(
        self, outbox: SQLiteOutbox, late: bool
    ) -> None:
        add(outbox, "7", "registered", *([] if late else ["qualified"]))
        outbox.settle([Settlement(claim_one(outbox), "ignored", sure=True)], 1000)
        add(outbox, "7", "qualified")
        assert outbox.of("7", False)["qualified"].state == "ignored"
        assert outbox.claim("pending", 9000, LEASE, 9) == []

    def test_a_rejected_registered_blocks_until_it_is_retried(
        self, outbox: SQLiteOutbox
    ) -> None:
        add(outbox, "7", "registered", "qualified")
        outbox.settle([Settlement(claim_one(outbox), "rejected", status=400)], 1000)
        assert outbox.claim("pending", 9000, LEASE, 9) == []
        assert outbox.summary().waiting == 1
        assert [entry.event for entry in outbox.retry(9000)] == ["registered"]
        retried = claim_one(outbox, 9000)
        outbox.settle([Settlement(retried, "accepted", sure=True)], 9000)
        assert claim_one(outbox, 9000).event == "qualified"


class TestFence:
    def test_a_failure_is_settled_by_the_holder_of_the_claim_only(
        self, outbox: SQLiteOutbox
    ) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        assert outbox.settle([Settlement(stale, "rejected")], 99_000) == []
        assert outbox.of("7", False)["registered"].claim == holder.claim

    def test_a_success_is_settled_by_anyone(self, outbox: SQLiteOutbox) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        (settled,) = outbox.settle([Settlement(stale, "accepted", sure=True)], 99_000)
        assert settled.state == "accepted"
        assert outbox.settle([Settlement(holder, "rejected")], 99_000) == []

    def test_a_late_success_overrules_a_rejection(self, outbox: SQLiteOutbox) -> None:
        add(outbox)
        stale = claim_one(outbox)
        holder = claim_one(outbox, 1000 + LEASE)
        outbox.settle([Settlement(holder, "rejected", status=400)], 99_000)
        (settled,) = outbox.settle([Settlement(stale, "accepted", sure=True)], 99_000)
        assert settled.state == "accepted"

    def test_a_paid_reward_is_not_due_again(self, outbox: SQLiteOutbox) -> None:
        add(outbox, "7", "registered", "qualified")
        outbox.settle([Settlement(claim_one(outbox), "accepted", sure=True)], 1000)
        qualified = claim_one(outbox)
        accepted = Settlement(qualified, "accepted", 1000, sure=True, renewed=True)
        outbox.settle([accepted], 1000)
        (reward,) = outbox.claim("accepted", 1000, LEASE, 1)
        assert reward.attempts == 1
        outbox.settle([Settlement(reward, "rewarded", sure=True)], 1000)
        assert outbox.settle([accepted], 1000) == []
        assert outbox.of("7", False)["qualified"].state == "rewarded"


class TestSettings:
    def test_what_was_refused_is_sent_again_when_the_settings_change(
        self, outbox: SQLiteOutbox
    ) -> None:
        assert outbox.adopt("old", "srv", 1000) == 0
        for identity, status in (("a", 401), ("b", 404), ("c", 301), ("d", 400)):
            add(outbox, identity)
            rejected = Settlement(claim_one(outbox), "rejected", status=status)
            outbox.settle([rejected], 1000)
        assert outbox.adopt("old", "srv", 2000) == 0
        assert outbox.adopt("new", "srv", 2000) == 3
        assert outbox.summary().counts == {"pending": 3, "rejected": 1}

    def test_what_waits_is_addressed_to_the_new_server_id(
        self, outbox: SQLiteOutbox
    ) -> None:
        outbox.adopt("old", "srv", 1000)
        add(outbox, "7", "registered", "qualified", now=1_700_000_000_000)
        outbox.adopt("new", "other", 2000)
        for name, entry in outbox.of("7", False).items():
            event = make_event(name, "7", "tok-7", "other", 1_700_000_000_000, False)
            assert (entry.server_id, entry.body) == ("other", event.encode())


class TestFile:
    def test_the_folder_is_made(self, tmp_path: Path) -> None:
        outbox = SQLiteOutbox(tmp_path / "a" / "b" / "outbox.db")
        add(outbox)
        outbox.close()
        assert (tmp_path / "a" / "b" / "outbox.db").exists()

    def test_another_process_holding_it_is_waited_for_no_longer_than_allowed(
        self, outbox: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(outbox)
        other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        event = make_event("registered", "8", "tok", "srv", 1_700_000_000_000, False)
        with pytest.raises(OutboxBusy, match="kept busy by other processes"):
            outbox.add("8", [event], 1000, patience=0.05)
        other.execute("ROLLBACK")
        other.close()
        assert len(outbox.add("8", [event], 1000, patience=0.05)) == 1

    def test_a_deleted_file_is_made_anew(
        self, outbox: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(outbox)
        (tmp_path / "outbox.db").unlink()
        assert len(add(outbox)) == 1
        assert (tmp_path / "outbox.db").exists()

    def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "outbox.db"
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version=99")
        connection.close()
        with pytest.raises(OutboxError, match="newer Flask-MMOLove"):
            add(SQLiteOutbox(path))

    def test_what_it_cannot_do_it_says_with_the_file_and_the_key(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutboxError, match="MMOLOVE_OUTBOX"):
            add(SQLiteOutbox(tmp_path / "file" / "outbox.db"))

    def test_processes_that_start_at_once_make_one_schema(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(4)
        processes = [
            context.Process(target=_add_in_process, args=(tmp_path, barrier, number))
            for number in range(4)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
        assert [process.exitcode for process in processes] == [0] * 4
        outbox = SQLiteOutbox(tmp_path / "outbox.db")
        assert outbox.summary().counts == {"pending": 4}
        outbox.close()


def _add_in_process(folder: Path, barrier: t.Any, number: int) -> None:
    outbox = SQLiteOutbox(folder / "outbox.db")
    barrier.wait(30)
    add(outbox, str(number))
    outbox.close()


def test_an_entry_shows_neither_its_token_nor_its_body(outbox: SQLiteOutbox) -> None:
    event = make_event(
        "registered", "7", "a-long-token", "srv", 1_700_000_000_000, False
    )
    (entry,) = outbox.add("7", [event], 1000)
    assert "a-long-token" not in repr(entry)
    assert "a-long-token" not in f"{entry}"


class TestQueries:
    """The queries of the way to MMOLove must not grow with what stands there."""

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT * FROM event WHERE state = ? AND due <= ? ORDER BY due LIMIT 9",
            "SELECT * FROM event WHERE identity = ? AND test = ?",
            "SELECT min(due) FROM event WHERE state = ? AND due > ?",
        ],
    )
    def test_they_use_an_index(
        self, outbox: SQLiteOutbox, tmp_path: Path, sql: str
    ) -> None:
        add(outbox)
        connection = sqlite3.connect(tmp_path / "outbox.db")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", ("x", 0)).fetchall()
        connection.close()
        assert all("USING" in row[3] and "SCAN" not in row[3] for row in plan), plan
        assert not any("TEMP B-TREE" in row[3] for row in plan), plan
