"""The outbox in a SQL database."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy import create_engine
from sqlalchemy import event as events_of
from sqlalchemy import inspect
from sqlalchemy import MetaData
from sqlalchemy import update
from sqlalchemy import URL

from flask_mmolove import EventError
from flask_mmolove import OutboxBusy
from flask_mmolove import OutboxError
from flask_mmolove.outbox.breaker import Breaker
from flask_mmolove.outbox.counters import reached
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.inspector import Referrer
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.statements import Transaction
from tests.conftest import find_url
from tests.conftest import SERVERS
from tests.outbox.recording import add
from tests.outbox.recording import claim_one
from tests.outbox.recording import invite
from tests.outbox.recording import LEASE
from tests.outbox.recording import start_together
from tests.outbox.storm import processes_context
from tests.outbox.storm import start
from tests.outbox.storm import storm

T = t.TypeVar("T")


class TestSQL:
    def test_processes_that_start_at_once_make_the_tables_once(self, url: URL) -> None:
        start_together(processes_context(), start, url.render_as_string(False))
        outbox = SQLAlchemyOutbox(url)
        assert outbox.inspector.summary().counts == {"pending": 4}
        inspector = inspect(outbox._engine())
        indexes = {index["name"] for index in inspector.get_indexes("mmolove_event")}
        outbox.close()
        assert "mmolove_event_due" in indexes

    def test_tables_are_left_to_migrations_where_it_is_so(self, url: URL) -> None:
        outbox = SQLAlchemyOutbox(url, creates=lambda: False)
        with pytest.raises(OutboxError, match="migration"):
            add(outbox)
        outbox.create()
        assert len(add(outbox)) == 1
        outbox.close()

    def test_an_index_that_is_missing_is_made(self, sql: SQLAlchemyOutbox) -> None:
        sql.create()
        on = " ON mmolove_event" if sql._is_mysql else ""
        with sql._engine().begin() as connection:
            connection.exec_driver_sql(f"DROP INDEX mmolove_event_due{on}")
        sql.create()
        indexes = inspect(sql._engine()).get_indexes("mmolove_event")
        assert "mmolove_event_due" in {index["name"] for index in indexes}

    def test_the_tables_stand_in_a_site_s_metadata(self, url: URL) -> None:
        metadata = MetaData()
        first = SQLAlchemyOutbox(url, metadata)
        second = SQLAlchemyOutbox(url, metadata)
        assert set(metadata.tables) == {
            "mmolove_event",
            "mmolove_held",
            "mmolove_fact",
            "mmolove_tally",
            "mmolove_referrer",
            "mmolove_used",
        }
        assert first.tables == second.tables
        first.close()
        second.close()

    def test_a_transaction_of_the_site_takes_events_along(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        sql.create()
        engine = create_engine(url)
        event = make_event("registered", "7", "t", "s", 1_700_000_000_000, False)
        for ends in (Connection.rollback, Connection.commit):
            with engine.connect() as connection:
                transaction = sql.within(connection)
                assert len(transaction.add("7", [event], 1000)) == 1
                assert transaction.add("7", [event], 1000) == []
                ends(connection)
        engine.dispose()
        assert sql.inspector.summary().counts == {"pending": 1}

    def test_an_engine_of_the_site_is_used_and_left_to_it(self, url: URL) -> None:
        engine = create_engine(url)
        outbox = SQLAlchemyOutbox(engine)
        add(outbox, "7", "registered", "qualified")
        assert claim_one(outbox).event == "registered"
        pool = engine.pool
        outbox.close()
        assert engine.pool is pool
        level = engine.dialect.default_isolation_level
        with engine.connect() as connection:
            assert connection.get_isolation_level() == level
        engine.dispose()

    @pytest.mark.slow
    def test_a_child_makes_its_own_connections(self, url: URL) -> None:
        script = Path(__file__).with_name("forks.py")
        for how in ("url", "engine"):
            done = subprocess.run(
                [sys.executable, script, url.render_as_string(False), how],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (done.returncode, done.stderr) == (0, "")
        outbox = SQLAlchemyOutbox(url)
        assert outbox.inspector.summary().counts == {"pending": 2 * 3 * 20}
        outbox.close()

    def test_what_would_be_cut_off_is_refused(self, sql: SQLAlchemyOutbox) -> None:
        for identity in ("7" * 256, "7\0"):
            with pytest.raises(EventError, match="referee_identity"):
                add(sql, identity)
        assert len(add(sql, "\U0001f600" * 255)) == 1

    def test_the_lock_of_another_is_waited_for_no_longer_than_allowed(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        with other_transaction(url) as connection:
            hold_player(sql, connection)
            begun = time.monotonic()
            with pytest.raises(OutboxBusy, match="kept busy by others"):
                add(sql, "7", "qualified", timeout=0.2)
            assert time.monotonic() - begun < 1.8
        assert len(add(sql, "7", "qualified", timeout=1)) == 1

    def test_qualified_is_seen_by_a_settle_that_comes_meanwhile(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        accepted = Settlement(claim_one(sql), "accepted", is_fact=True)
        event = make_event("qualified", "7", "t", "s", 1_700_000_000_000, False)
        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                sql.within(connection).add("7", [event], 1000)
                settling = pool.submit(sql.settle, [accepted], 2000)
                time.sleep(0.2)
                assert not settling.done()
            assert len(settling.result()) == 1
        assert claim_one(sql, 2000).event == "qualified"

    def test_qualified_sees_a_settle_that_came_first(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        accepted = Settlement(claim_one(sql), "accepted", is_fact=True)
        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                sql.within(connection).settle([accepted], 2000, lambda breaker: breaker)
                adding = pool.submit(add, sql, "7", "qualified", now=2000)
                time.sleep(0.2)
                assert not adding.done()
            (entry,) = adding.result()
        assert entry.due == 2000

    def test_an_entry_that_another_claims_meanwhile_is_left_to_it(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        for identity in "ab":
            add(sql, identity)
        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                (first,) = sql.within(connection).claim("pending", 1000, LEASE, 1)
                claiming = pool.submit(sql.claim, "pending", 1000, LEASE, 1)
                time.sleep(0.2)
                assert not claiming.done()
            (second,) = claiming.result()
        assert {first.identity, second.identity} == {"a", "b"}

    def test_what_is_learned_at_once_is_all_kept(self, sql: SQLAlchemyOutbox) -> None:
        sql.create()

        def fail(_: int) -> None:
            sql.settle([], 1000, lambda breaker: Breaker(failures=breaker.failures + 1))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(fail, range(40)))
        assert sql.breaker().failures == 40


def test_a_commit_that_fails_leaves_sqlite_to_others(tmp_path: Path) -> None:
    path = tmp_path / "site.db"
    outbox = SQLAlchemyOutbox(f"sqlite:///{path}")
    add(outbox)
    with contextlib.closing(sqlite3.connect(path, timeout=0)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM mmolove_event").fetchone() == (1,)
        with pytest.raises(OutboxBusy):
            add(
                outbox,
                "8",
                timeout=0.1,
            )
        reader.rollback()
        # Not the one whose COMMIT failed, and nobody is kept from writing by it.
        reader.execute("BEGIN IMMEDIATE")
        assert reader.execute("SELECT count(*) FROM mmolove_event").fetchone() == (1,)
    outbox.close()


class TestServers:
    @pytest.fixture(params=SERVERS)
    def url(self, request: pytest.FixtureRequest) -> URL:
        return find_url(request.param, request)

    def test_a_lost_connection_is_made_anew(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        with other_transaction(url) as connection:
            if sql._is_mysql:
                mine = (
                    "SELECT id FROM information_schema.processlist"
                    " WHERE db = database()"
                )
                for (id,) in connection.exec_driver_sql(
                    f"{mine} AND id != connection_id()"
                ).all():
                    connection.exec_driver_sql(f"KILL {id}")
            else:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                    " datname = current_database() AND pid != pg_backend_pid()"
                )
        assert len(add(sql, "8")) == 1

    def test_a_late_failure_waits_for_a_success_under_way(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        entry = claim_one(sql)
        accepted = Settlement(entry, "accepted", is_fact=True)
        changed = wait_for_other(
            sql,
            url,
            lambda other: other.settle([accepted], 1000),
            lambda: sql.settle([Settlement(entry, "rejected")], 1000),
        )
        assert changed == []
        assert sql.of("7", False)["registered"].state == "accepted"

    def test_a_player_who_is_erased_meanwhile_is_counted_once(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        add(sql)
        accepted = Settlement(claim_one(sql), "accepted", is_fact=True)
        erased = wait_for_other(
            sql,
            url,
            lambda other: other.settle([accepted], 1000),
            lambda: sql.erase("7"),
        )
        assert len(erased) == 1
        (day,) = sql.inspector.days(0, 1)
        assert (day.signed_up, day.accepted) == (1, 1)

    def test_a_deadlock_ends_well(self, sql: SQLAlchemyOutbox, url: URL) -> None:
        for number in range(30):
            add(sql, str(number))
        first, *between, last = sql.claim("pending", 1000, LEASE, 30)
        settlements = [
            Settlement(each, "accepted", is_fact=True) for each in (first, last)
        ]
        errors: list[str] = []

        @events_of.listens_for(sql._engine(), "handle_error")
        def note(context: t.Any) -> None:
            errors.append(str(getattr(context.original_exception, "sqlstate", "")))

        with ThreadPoolExecutor(1) as pool:
            with other_transaction(url) as connection:
                if not sql._is_mysql:
                    connection.exec_driver_sql("SET LOCAL deadlock_timeout = '20s'")
                # MariaDB ends the one that has changed less.
                for entry in (last, *between):
                    touch(sql, connection, entry)
                settling = pool.submit(sql.settle, settlements, 2000)
                time.sleep(0.2)
                touch(sql, connection, first)
            assert len(settling.result()) == 2
        assert errors and set(errors) <= {"40P01", "40001"}

    def test_the_first_two_of_a_referrer_are_counted_at_once(
        self, sql: SQLAlchemyOutbox, url: URL
    ) -> None:
        for player in "ab":
            invite(sql, player, "anna")
        first, second = sql.claim("pending", 1000, LEASE, 2)
        begun, counted = threading.Event(), threading.Event()

        def count_second() -> None:
            # As in a site's own session: with the isolation that the server has.
            with other_transaction(url) as connection:
                transaction = sql.within(connection)
                transaction.of("b", False)  # from here on MariaDB reads what was then
                begun.set()
                assert counted.wait(20)
                transaction.count(reached(second._replace(state="accepted"), "pending"))

        with ThreadPoolExecutor(1) as pool:
            counting = pool.submit(count_second)
            assert begun.wait(20)
            with other_transaction(url) as connection:
                accepted = first._replace(state="accepted")
                sql.within(connection).count(reached(accepted, "pending"))
                counted.set()
                time.sleep(0.2)
                assert not counting.done()
            counting.result()
        assert sql.inspector.best_referrers() == [Referrer("anna", 2)]
        assert sql.inspector.days(0, 1)[0].accepted == 2

    @pytest.mark.slow
    def test_workers_do_not_get_in_each_other_s_way(self, url: URL) -> None:
        events = 2000 if url.get_backend_name() == "postgresql" else 800
        result = storm(url.render_as_string(False), events=events)
        assert result.counts == {"accepted": events}
        assert set(result.claims.values()) == {1}
        assert set(result.settled.values()) == {1}
        assert len(result.settled) == events
        assert result.too_early == []


def wait_for_other(
    sql: SQLAlchemyOutbox,
    url: URL,
    first: t.Callable[[Transaction], object],
    second: t.Callable[[], T],
) -> T:
    """What comes of a second thing that has to wait for somebody else's first one."""
    with ThreadPoolExecutor(1) as pool:
        with other_transaction(url) as connection:
            first(sql.within(connection))
            waiting = pool.submit(second)
            time.sleep(0.2)  # it would be through by then
            assert not waiting.done()
        return waiting.result()


@contextlib.contextmanager
def other_transaction(url: URL) -> t.Iterator[Connection]:
    """Somebody else's, who takes their time."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def hold_player(sql: SQLAlchemyOutbox, connection: Connection) -> None:
    (entry,) = sql.within(connection).of("7", False).values()
    touch(sql, connection, entry)


def touch(sql: SQLAlchemyOutbox, connection: Connection, entry: Entry) -> None:
    event = sql.tables.event
    connection.execute(
        update(event).where(event.c.id == entry.id).values(crashes=event.c.crashes + 1)
    )
