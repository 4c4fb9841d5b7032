"""Tables of earlier versions are brought up to date."""

from __future__ import annotations

import contextlib
import sqlite3
import typing as t
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy import URL

from flask_mmolove import OutboxError
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from tests import data
from tests.outbox.recording import add
from tests.outbox.recording import states

# As SQLAlchemy made them when the SQLite file had its second schema.
TABLES = """
CREATE TABLE mmolove_event (
    id {id} PRIMARY KEY,
    identity VARCHAR(255) NOT NULL,
    event VARCHAR(16) NOT NULL,
    test BOOLEAN NOT NULL,
    token VARCHAR(1024) NOT NULL,
    server_id VARCHAR(255) NOT NULL,
    body {bytes} NOT NULL,
    state VARCHAR(16) NOT NULL,
    due BIGINT,
    claim VARCHAR(32),
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    recorded BIGINT NOT NULL,
    begun BIGINT NOT NULL,
    settled BIGINT,
    status INTEGER,
    answer TEXT,
    referral_id VARCHAR(500),
    referrer VARCHAR(255),
    history TEXT,
    digest VARCHAR(32),
    CONSTRAINT mmolove_event_once UNIQUE (identity, event, test)
) {options};
CREATE INDEX mmolove_event_due ON mmolove_event (state, due, id);
CREATE INDEX mmolove_event_state ON mmolove_event (state, id);
CREATE INDEX mmolove_event_referrer ON mmolove_event (referrer);
CREATE UNIQUE INDEX mmolove_event_digest ON mmolove_event (digest);
CREATE TABLE mmolove_held (
    name VARCHAR(64) PRIMARY KEY,
    token VARCHAR(1024) NOT NULL,
    referrer VARCHAR(255),
    expires BIGINT NOT NULL
) {options};
CREATE INDEX mmolove_held_expires ON mmolove_held (expires);
CREATE TABLE mmolove_fact (
    name VARCHAR(64) PRIMARY KEY, value TEXT NOT NULL
) {options};
CREATE TABLE mmolove_tally (
    day BIGINT NOT NULL,
    step VARCHAR(16) NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (day, step)
) {options};
CREATE TABLE mmolove_referrer (
    player VARCHAR(255) NOT NULL,
    step VARCHAR(16) NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (player, step)
) {options};
CREATE INDEX mmolove_referrer_best ON mmolove_referrer (step, count);
CREATE TABLE mmolove_used (digest VARCHAR(32) PRIMARY KEY) {options}
"""

WAYS = {
    "sqlite": {"id": "INTEGER", "bytes": "BLOB", "options": ""},
    "postgresql": {"id": "BIGSERIAL", "bytes": "BYTEA", "options": ""},
    "mariadb": {
        "id": "BIGINT AUTO_INCREMENT",
        "bytes": "BLOB",
        "options": "ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin",
    },
}


@pytest.fixture
def old(url: URL, tmp_path: Path) -> URL:
    """A database with the tables of that version, and the rows of its file."""
    data.restore_file("outbox.sql", tmp_path / "dump.db")
    engine = create_engine(url)
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "dump.db")) as dump,
        engine.begin() as connection,
    ):
        dump.row_factory = sqlite3.Row
        for statement in TABLES.format(**WAYS[engine.dialect.name]).split(";"):
            connection.exec_driver_sql(statement)
        for table in ("event", "held", "fact", "tally", "referrer", "used"):
            for row in dump.execute(f"SELECT * FROM {table}"):
                values = {name: row[name] for name in row.keys() if name != "id"}
                if "test" in values:
                    values["test"] = bool(values["test"])
                names = ", ".join(values)
                places = ", ".join(f":{name}" for name in values)
                sql = f"INSERT INTO mmolove_{table} ({names}) VALUES ({places})"
                connection.execute(text(sql), values)
    engine.dispose()
    return url


@pytest.fixture
def outbox(old: URL) -> t.Iterator[SQLAlchemyOutbox]:
    with contextlib.closing(SQLAlchemyOutbox(old)) as outbox:
        yield outbox


def outdated(outbox: SQLAlchemyOutbox) -> list[str]:
    """The columns whose type a site's migration would change."""
    with outbox._engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, outbox.tables.event.metadata)
    changes = [change for each in found if isinstance(each, list) for change in each]
    return [change[3] for change in changes if change[0] == "modify_type"]


def test_they_are_as_a_migration_would_leave_them(outbox: SQLAlchemyOutbox) -> None:
    assert outdated(outbox) == ["state"]
    outbox.upgrade()
    # SQLite does not look at the length, and could not change it.
    left = ["state"] if outbox._engine().dialect.name == "sqlite" else []
    assert outdated(outbox) == left


def test_the_states_have_their_new_names(outbox: SQLAlchemyOutbox) -> None:
    for _ in range(2):
        outbox.upgrade()
        assert states(outbox) == data.STATES
    assert outbox.breaker().max_in_flight == 8
    (due,) = outbox.claim("accepted", data.NOW, 60_000, 1)
    (begun,) = outbox.settle([Settlement(due, "reward_unconfirmed")], data.NOW)
    assert outbox.decide(begun.id, "rewarded", data.NOW) is not None


def test_init_db_makes_room_for_the_new_names(outbox: SQLAlchemyOutbox) -> None:
    assert outbox.create()
    assert not outbox.create()


def test_where_migrations_make_the_tables_they_make_room(old: URL) -> None:
    if old.get_backend_name() == "sqlite":
        pytest.skip("SQLite does not look at a length")
    outbox = SQLAlchemyOutbox(old, creates=lambda: False)
    # It goes to the spool.
    with pytest.raises(OutboxError, match=r"number.*'flask db upgrade'"):
        add(outbox, "meanwhile")
    with pytest.raises(OutboxError, match=r"\(state\).*'flask db upgrade'"):
        outbox.upgrade()
    with pytest.raises(OutboxError, match="'flask db upgrade'"):
        outbox.probe()
    outbox.create()  # what the migration does
    outbox.upgrade()
    outbox.probe()
    assert states(outbox) == data.STATES
    outbox.close()
