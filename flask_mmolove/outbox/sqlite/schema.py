"""The shape of a SQLite file, and whose file it is."""

from __future__ import annotations

import re
import sqlite3
import typing as t
from pathlib import Path

from ...errors import OutboxError
from ..owner import make_file
from .damage import DamagedError

# ``due`` is both the schedule and the end of a claim's lease, so that nothing has to be
# cleaned up after a crash: ``due <= now`` is what "stale" means. The index of what is
# due has no row without it.
_SCHEMA = """
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL,
    event TEXT NOT NULL,
    test INTEGER NOT NULL,
    token TEXT NOT NULL,
    server_id TEXT NOT NULL,
    body BLOB NOT NULL,
    state TEXT NOT NULL,
    due INTEGER,
    claim TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    recorded INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    settled INTEGER,
    status INTEGER,
    answer TEXT,
    referral_id TEXT,
    referrer TEXT,
    history TEXT,
    UNIQUE (identity, event, test)
);
CREATE INDEX event_due ON event (state, due) WHERE due IS NOT NULL;
CREATE INDEX event_state ON event (state);
CREATE INDEX event_referrer ON event (referrer) WHERE referrer IS NOT NULL;
CREATE TABLE held (
    name TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    referrer TEXT,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX held_expires ON held (expires);
CREATE TABLE tally (
    day INTEGER NOT NULL,
    step TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (day, step)
) WITHOUT ROWID;
CREATE TABLE referrer (
    player TEXT NOT NULL,
    step TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (player, step)
) WITHOUT ROWID;
CREATE INDEX referrer_best ON referrer (step, count);
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""

# With rowids: so what is left of it in a damaged file is found as events are.
_TOKENS = """
ALTER TABLE event ADD COLUMN digest TEXT;
CREATE UNIQUE INDEX event_digest ON event (digest) WHERE digest IS NOT NULL;
CREATE TABLE used (digest TEXT PRIMARY KEY)
"""

_STATES = """
UPDATE event SET state = 'reward_unconfirmed' WHERE state = 'unknown';
UPDATE event SET state = 'reward_failed' WHERE state = 'unpaid'
"""

_NUMBERS = """
ALTER TABLE event ADD COLUMN number INTEGER;
INSERT INTO referrer (player, step, count)
    SELECT player, 'numbered', count FROM referrer WHERE step = 'qualified'
"""

_TIMES = "ALTER TABLE event ADD COLUMN took INTEGER"

#: Scripts that each bring a file one version further.
MIGRATIONS = [_SCHEMA, _TOKENS, _STATES, _NUMBERS, _TIMES]

#: Bytes of which one stands near the beginning of each outbox: the schema is on the
#: first page, the rows are on others.
SIGNS = (b"CREATE TABLE event (", b'"server_event_id":"')

# Elsewhere in the header than ``user_version``: if the two differ, the file is damaged.
_MARK = 0x4D4D4C00

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


class Schema:
    """What an outbox's file is like.

    :param migrations: Scripts that each bring it one version further.
    :param signs: Bytes of which one stands near the beginning of each such file.
    """

    def __init__(self, migrations: t.Sequence[str], signs: t.Sequence[bytes]) -> None:
        self._migrations = migrations
        self._signs = signs
        # Those of the first version are in every later one.
        self._tables = {*re.findall(r"CREATE TABLE (\w+)", migrations[0])}

    def is_current(self, read: t.Callable[[str], list[t.Any]]) -> bool:
        """Whether nothing is to be done.

        :param read: Gives a statement's rows.
        """
        newest = len(self._migrations)
        found = read("PRAGMA user_version") + read("PRAGMA application_id")
        return found == [(newest,), (_MARK + newest,)]

    def migrate(self, connection: sqlite3.Connection, path: Path) -> None:
        """Bring a file up to date, in a transaction that keeps others away.

        :raises OutboxError: If it is a newer one, or something else.
        :raises DamagedError: If it is damaged.
        """
        version = self._version(connection, path)
        newest = len(self._migrations)
        if version > newest:
            raise OutboxError(
                f"The outbox {path} was made by a newer Flask-MMOLove (schema "
                f"{version}, this one knows {newest}): update the package, or set "
                "MMOLOVE_OUTBOX to another file."
            )
        make_file(lock_file(path))
        for script in self._migrations[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={newest}")
        connection.execute(f"PRAGMA application_id={_MARK + newest}")

    def was_ours(self, path: Path) -> bool:
        """Whether an unreadable file was an outbox, by its content or its lock file."""
        if lock_file(path).exists():
            return True
        with path.open("rb") as file:
            beginning = file.read(1 << 20)
        return any(sign in beginning for sign in self._signs)

    def _version(self, connection: sqlite3.Connection, path: Path) -> int:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((mark,),) = connection.execute("PRAGMA application_id").fetchall()
        if version and mark == _MARK + version:
            return int(version)
        tables = {name for (name,) in connection.execute(_TABLES)}
        if tables >= self._tables:
            raise DamagedError("its version is unreadable")
        if tables:
            raise foreign(path)
        return 0


def foreign(path: Path) -> OutboxError:
    """The error for a file that was named by mistake: it is never touched."""
    return OutboxError(
        f"{path} is a file of something else. The outbox wants one of its own: set "
        "MMOLOVE_OUTBOX to another."
    )


def lock_file(path: Path) -> Path:
    """A file beside each outbox, locked to move a damaged one aside."""
    return path.with_name(f"{path.name}-lock")
