"""The statements go by an index, in every database."""

from __future__ import annotations

import typing as t

from sqlalchemy import event as events_of
from sqlalchemy import insert

from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.rules import new_entry
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.states import EntryState
from tests.outbox.recording import add
from tests.outbox.recording import LEASE


class TestQueries:
    """The delivery's queries must not slow down with the number of rows."""

    def test_they_use_an_index(self, sql: SQLAlchemyOutbox) -> None:
        sql.create()
        fill(sql)
        engine = sql._engine()
        asked: list[tuple[str, t.Any]] = []

        @events_of.listens_for(engine, "before_cursor_execute")
        def note(*called: t.Any) -> None:
            _, _, statement, parameters, _, many = called
            if statement.startswith(("SELECT", "UPDATE")) and "event" in statement:
                asked.append((statement, parameters[0] if many else parameters))

        entries = sql.claim("pending", 5000, LEASE, 8)
        sql.settle(
            [Settlement(each, "accepted", is_fact=True) for each in entries], 5000
        )
        sql.next_due(5000)
        sql.inspector.oldest_pending()
        sql.inspector.failing_events()
        sql.inspector.failing_rewards()
        sql.inspector.last_signup()
        add(sql, "7", "registered", "qualified")
        sql.of("7", False)
        events_of.remove(engine, "before_cursor_execute", note)
        assert len(asked) >= 13
        with engine.connect() as connection:
            for statement, parameters in asked:
                rows = connection.exec_driver_sql(
                    f"{EXPLAIN[engine.dialect.name]} {statement}", parameters
                )
                plan = [dict(row) for row in rows.mappings()]
                assert is_quick(plan), (statement, plan)


EXPLAIN = {
    "sqlite": "EXPLAIN QUERY PLAN",
    "postgresql": "EXPLAIN",
    "mariadb": "EXPLAIN",
}


def is_quick(plan: list[dict[str, t.Any]]) -> bool:
    text = " ".join(str(row) for row in plan)
    if any(
        word in text for word in ("Seq Scan", "Sort", "SCAN mmolove", "TEMP B-TREE")
    ):
        return False
    if "Using filesort" in text:
        return False
    return all(row.get("type") not in ("ALL", "index") for row in plan)


def fill(sql: SQLAlchemyOutbox) -> None:
    """Thousands of entries in all states, as on a site that has run for long."""
    event = make_event("registered", "0", "t", "s", 1_700_000_000_000, False)
    entry = new_entry("0", event, ("pending", 1000), 1000)
    rows = []
    for number in range(6000):
        state: EntryState = "pending" if number % 3 else "accepted"
        due = 1000 + number if number % 3 == 1 else None
        row = entry._replace(
            identity=str(number), state=state, due=due, digest=f"{number:032}"
        )
        rows.append({k: v for k, v in row._asdict().items() if k != "id"})
    analyze = "ANALYZE TABLE" if sql._is_mysql else "ANALYZE"
    with sql._engine().begin() as connection:
        connection.execute(insert(sql.tables.event), rows)
    with sql._engine().begin() as connection:
        connection.exec_driver_sql(f"{analyze} mmolove_event").close()
