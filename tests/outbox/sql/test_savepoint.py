"""A fault of ours in a site's transaction: what the site has done stands."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pytest
from sqlalchemy import Connection
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from flask_mmolove import OutboxBusy
from flask_mmolove import OutboxError
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.statements import Transaction

REPORT = Report("7", "tok", ("registered",), False, 1000)

#: How a database says how long it waits for a lock, and how a site may have set it.
LIMITS = {
    "postgresql": ("SHOW lock_timeout", "SET LOCAL lock_timeout = '7s'"),
    "mariadb": (
        "SELECT CONCAT(@@innodb_lock_wait_timeout, ' ', @@lock_wait_timeout)",
        "SET SESSION innodb_lock_wait_timeout = 7, SESSION lock_wait_timeout = 8",
    ),
    "sqlite": ("PRAGMA busy_timeout", "PRAGMA busy_timeout = 7000"),
}


class Site:
    """A transaction of a site's in which an outbox records."""

    def __init__(self, outbox: SQLAlchemyOutbox, engine: Engine, one_row: bool) -> None:
        self.outbox = outbox
        self.engine = engine
        self.name = engine.dialect.name
        self._one_row = one_row
        self._players = "INSERT INTO player (name) VALUES ('anna')"

    def insert(self, connection: Connection) -> None:
        connection.execute(text(self._players))

    def ride(
        self,
        connection: Connection,
        work: t.Callable[[Transaction], t.Any] = lambda db: db.record(REPORT, "s"),
        timeout: float = 0.1,
    ) -> t.Any:
        return self.outbox.ride(connection, work, timeout, is_one_row=self._one_row)

    @contextlib.contextmanager
    def signup(self) -> t.Iterator[Connection]:
        """A transaction with changes before and after; all of them are committed."""
        with self.engine.begin() as connection:
            self.insert(connection)
            yield connection
            self.insert(connection)
        with self.engine.begin() as connection:
            count = connection.scalar(text("SELECT count(*) FROM player"))
            assert count == 2

    def is_recorded(self) -> bool:
        return bool(self.outbox.of("7", False))


@pytest.fixture(params=["one row", "several rows", "elsewhere"])
def site(
    url: URL, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[Site]:
    """As it is, and as with MySQL or another driver for PostgreSQL."""
    if request.param == "elsewhere" and url.get_backend_name() == "sqlite":
        pytest.skip("it is the same everywhere")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE player (name VARCHAR(50))"))
    if request.param == "elsewhere":
        module = "flask_mmolove.outbox.sql.pipeline"
        monkeypatch.setattr(f"{module}.is_possible", lambda connection: False)
        monkeypatch.setattr(engine.dialect, "is_mariadb", False, raising=False)
    outbox = SQLAlchemyOutbox(engine, creates=lambda: False)
    outbox.create()
    yield Site(outbox, engine, request.param != "several rows")
    outbox.close()
    engine.dispose()


def test_what_is_recorded_is_committed_with_the_rest(site: Site) -> None:
    with site.signup() as connection:
        assert len(site.ride(connection)) == 1
    assert site.is_recorded()


def test_what_is_recorded_is_rolled_back_with_the_rest(site: Site) -> None:
    with site.engine.connect() as connection:
        site.insert(connection)
        assert len(site.ride(connection)) == 1
        connection.rollback()
    assert not site.is_recorded()


def test_a_table_that_is_missing(site: Site) -> None:
    rename(site, "mmolove_event", "away")
    with site.signup() as connection:
        with pytest.raises(OutboxError, match="migrations"):
            site.ride(connection)
    rename(site, "away", "mmolove_event")
    assert not site.is_recorded()


def test_a_row_that_a_constraint_refuses(site: Site) -> None:
    with site.signup() as connection:
        with pytest.raises(OutboxError, match="failed"):
            site.ride(connection, lambda db: db.set_fact("a", t.cast(str, None)))


def test_a_row_that_another_transaction_has_not_committed_yet(site: Site) -> None:
    if site.name == "sqlite":
        pytest.skip("the site has its one lock")
    with site.engine.begin() as other:
        site.ride(other)
        with site.signup() as connection:
            begun = time.monotonic()
            with pytest.raises(OutboxBusy):
                site.ride(connection)
            assert time.monotonic() - begun < 10  # MariaDB alone would wait for 50
        other.rollback()
    assert not site.is_recorded()


def test_a_table_that_a_migration_has_locked(site: Site) -> None:
    lock = {
        "postgresql": "LOCK TABLE mmolove_event IN ACCESS EXCLUSIVE MODE",
        "mariadb": "LOCK TABLES mmolove_event WRITE",
    }.get(site.name)
    if lock is None:
        pytest.skip("it has one lock for all")
    with site.engine.connect() as other:
        other.exec_driver_sql(lock)
        with site.signup() as connection:
            begun = time.monotonic()
            with pytest.raises(OutboxBusy):
                site.ride(connection)
            assert time.monotonic() - begun < 10  # MariaDB alone would wait for 50
        if site.name == "mariadb":
            other.exec_driver_sql("UNLOCK TABLES")


def test_a_site_whose_statements_may_not_take_long(site: Site) -> None:
    limit = {
        "postgresql": "SET LOCAL statement_timeout = 50",
        "mariadb": "SET SESSION max_statement_time = 0.05",
    }.get(site.name)
    if limit is None:
        pytest.skip("it has no such limit")
    with site.engine.begin() as other:
        site.ride(other)
        with site.signup() as connection:
            connection.exec_driver_sql(limit)
            with pytest.raises(OutboxError):
                site.ride(connection, timeout=20)
        other.rollback()
    assert not site.is_recorded()


def test_an_error_in_our_own_code(site: Site) -> None:
    with site.signup() as connection:
        with pytest.raises(ZeroDivisionError):
            site.ride(connection, lambda db: 1 / 0)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("writes", [False, True])
def test_the_site_s_own_limit_for_locks_holds_again(
    site: Site, fails: bool, writes: bool
) -> None:
    ask, limit = LIMITS[site.name]
    with site.engine.begin() as connection:
        if writes:
            site.insert(connection)
        connection.exec_driver_sql(limit)
        before = connection.exec_driver_sql(ask).scalar()
        with contextlib.suppress(ZeroDivisionError):
            site.ride(connection, lambda db: 1 // (not fails) and db.of("7", False))
        assert connection.exec_driver_sql(ask).scalar() == before


def test_a_connection_that_is_lost_is_the_site_s_to_know(site: Site) -> None:
    end = {
        "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())",
        "mariadb": "KILL CONNECTION_ID()",
    }.get(site.name)
    if end is None:
        pytest.skip("there is none to lose")

    def lose(db: Transaction) -> None:
        for _ in range(2):
            db.execute(end, {})

    with site.engine.connect() as connection:
        site.insert(connection)
        with pytest.raises(OperationalError):
            site.ride(connection, lose)


def test_a_transaction_that_had_failed_already_is_the_site_s_to_know(
    site: Site,
) -> None:
    if site.name != "postgresql":
        pytest.skip("others forgive a statement that failed")
    with site.engine.connect() as connection:
        with pytest.raises(SQLAlchemyError):
            connection.exec_driver_sql("no SQL")
        with pytest.raises(SQLAlchemyError, match="aborted"):
            site.ride(connection)


def test_a_transaction_that_sqlite_gave_up_is_the_site_s_to_know(site: Site) -> None:
    if site.name != "sqlite":
        pytest.skip("others give up no more than the statement")
    with site.engine.connect() as connection:
        site.insert(connection)
        driver: t.Any = connection.connection.driver_connection

        def interrupt(db: Transaction) -> None:
            driver.set_progress_handler(lambda: 1, 1)
            try:
                db.record(REPORT, "s")
            finally:
                driver.set_progress_handler(None, 1)

        with pytest.raises(SQLAlchemyError):
            site.ride(connection, interrupt)
        assert not driver.in_transaction


def test_one_row_is_one_statement_in_one_round_trip(url: URL) -> None:
    """Whatever a new player's event needs besides, the site does not wait for it."""
    engine = create_engine(url)
    outbox = SQLAlchemyOutbox(engine)
    outbox.create()
    asked: list[str] = []
    event.listen(
        engine, "before_cursor_execute", lambda *called: asked.append(called[2])
    )
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE a (b INTEGER)"))
        connection.execute(text("INSERT INTO a VALUES (1)"))
        asked.clear()
        outbox.ride(connection, lambda db: db.record(REPORT, "s"), 1.5, is_one_row=True)
        assert len(asked) == 1
    assert len(outbox.of("7", False)) == 1
    outbox.close()
    engine.dispose()


def rename(site: Site, old: str, new: str) -> None:
    with site.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
