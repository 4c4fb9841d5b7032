"""The outbox in a SQLite file."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.inspector import Day
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.recording.recorder import REQUEST_TIMEOUT
from tests.outbox.recording import add
from tests.outbox.recording import claim_one
from tests.outbox.recording import explain
from tests.outbox.recording import LEASE
from tests.outbox.recording import through


class TestStore:
    def test_what_is_taken_over_from_a_lost_file_is_counted(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own, "7", "registered", "qualified")
        through(own, "accepted")
        through(own, "accepted")
        before = own.inspector.days(0, 1)
        (tmp_path / "outbox.db").unlink()
        assert own.inspector.days(0, 1) == [Day(0, 0, 0, 0, 0)]
        assert own.recover() == 2
        assert own.inspector.days(0, 1) == before == [Day(0, 1, 1, 1, 0)]

    def test_what_was_under_way_when_a_file_was_lost_is_settled(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        for player in "78":
            add(own, player)
        own.erase("7")
        claimed = claim_one(own)
        (tmp_path / "outbox.db").unlink()
        own.inspector.summary()
        assert own.recover() == 1
        (entry,) = own.settle([Settlement(claimed, "accepted", is_fact=True)], 1000)
        assert (entry.key, entry.state) == (claimed.key, "accepted")
        assert entry.id != claimed.id

    def test_no_question_looks_at_every_row(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own)
        asked: list[str] = []
        connection = own._db._handles[os.getpid()].connection
        assert connection is not None
        connection.set_trace_callback(asked.append)
        ask = own.inspector
        ask.page(), ask.page(state="rejected", before=9), ask.page(player="7")
        ask.page(event="qualified", state="pending"), ask.page(event="registered")
        ask.page(referrer="7", state="pending"), ask.page(since=5, until=5000)
        ask.get(1), ask.count("rejected"), ask.days(0, 1), ask.worker()
        ask.best_referrers(), ask.last_signup(), ask.oldest_pending(), own.retry(1000)
        connection.set_trace_callback(None)
        selects = [sql for sql in asked if sql.startswith("SELECT")]
        assert len(selects) >= 22
        for sql in selects:
            for *_, plan in explain(own, sql):
                # The rows as they stand, newest first, are an index too.
                sorts = "TEMP B-TREE" in plan and "GROUP BY" not in sql
                # What is named so is read by an index inside, and no further.
                named = plan in ("SCAN best", "SCAN found")
                scans = plan.startswith("SCAN") and not named
                assert not scans and not sorts, (sql, plan)

    def test_a_worker_neither_leads_signups_nor_is_led_by_them(
        self, own: SQLiteOutbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shared: list[float] = []
        together = own._db.together

        def watch(work: t.Any, timeout: float) -> t.Any:
            shared.append(timeout)
            return together(work, timeout)

        monkeypatch.setattr(own._db, "together", watch)
        add(own, timeout=REQUEST_TIMEOUT)
        assert shared == [REQUEST_TIMEOUT]
        own.settle([Settlement(claim_one(own), "rejected")], 1000)
        own.retry(1000)
        own.erase("7")
        assert shared == [REQUEST_TIMEOUT]


class TestQueriesOfFile:
    """The delivery's queries must not slow down with the number of rows."""

    def test_they_go_by_an_index_of_what_is_due_or_of_players(
        self, own: SQLiteOutbox
    ) -> None:
        add(own)
        asked: list[str] = []
        own.inspector.summary()
        connection = own._db._handles[os.getpid()].connection
        assert connection is not None
        connection.set_trace_callback(asked.append)
        add(own, "8", "registered", "qualified")
        for number in range(9, 20):  # SQLite chooses otherwise for many
            add(own, str(number))
        *settled, left = own.claim("pending", 1000, LEASE, 20)
        own.settle([Settlement(e, "accepted", is_fact=True) for e in settled], 1000)
        own.release([left])
        own.claim("pending", 1000, LEASE, 1, [left.id])
        own.next_due(1000), own.of("8", False)
        connection.set_trace_callback(None)
        verbs = ("SELECT", "UPDATE", "INSERT")
        statements = [sql for sql in asked if sql.startswith(verbs)]
        assert len(statements) >= 16
        for sql in statements:
            for *_, plan in explain(own, sql):
                good = (
                    "USING" in plan or plan.startswith("SCALAR") or "CONSTANT" in plan
                )
                # By their state alone they would be all that is pending.
                grows = "SCAN event" in plan or "INDEX event_state" in plan
                assert good and not grows and "TEMP" not in plan, (sql, plan)
