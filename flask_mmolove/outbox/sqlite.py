"""The outbox in a SQLite file: no server, no set-up, and nothing of the site's own
database.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import typing as t
from functools import partial
from pathlib import Path

from ..log import logger
from ..wire import Event
from .database import Database
from .database import WORKER_PATIENCE
from .entry import Entry
from .entry import Invitation
from .entry import Settlement
from .entry import State
from .entry import Summary
from .host import Host
from .journal import count
from .journal import Dialect
from .journal import Execute
from .journal import Journal
from .journal import Values
from .rules import absolved
from .rules import begin
from .rules import drawn
from .rules import HOLD
from .rules import hold
from .rules import HORIZON
from .rules import new_entry
from .rules import refused
from .rules import separate
from .rules import settled
from .rules import soonest
from .rules import stands
from .salvage import salvage
from .schema import Schema
from .tally import Mark
from .tally import reached
from .tally import taken

# ``due`` is both the schedule and the end of a claim's lease, so a crash leaves nothing
# to rescue: ``due <= now`` is what "stale" means. A row without ``due`` costs nothing.
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

# The schema stands on the first page, the rows on others.
_SIGNS = (b"CREATE TABLE event (", b'"server_event_id":"')

R = t.TypeVar("R")

_DIALECT = Dialect()

_COLUMNS = ", ".join(Entry._fields)
_NEW = ", ".join(Entry._fields[1:])


class SQLiteOutbox:
    """An :class:`~flask_mmolove.outbox.Outbox` in a SQLite file.

    :param path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._db = Database(path, Schema([_SCHEMA], _SIGNS))
        self.journal = Journal(self._run, _DIALECT)

    def __str__(self) -> str:
        return str(self._db.path)

    def create(self) -> bool:
        was_there = self._db.path.exists()
        self._db.query("SELECT 1 FROM event LIMIT 0")
        return not was_there

    def add(
        self,
        identity: str,
        events: t.Sequence[Event],
        now: int,
        patience: float = WORKER_PATIENCE,
        *,
        referrer: str | None = None,
    ) -> list[Entry]:
        def work(db: sqlite3.Connection) -> list[Entry]:
            new = []
            for event in events:
                start = _start(db, identity, event.event, event.test, now)
                entry = new_entry(identity, event, start, now, referrer)
                if id := _insert(db, entry):
                    new.append(entry._replace(id=id))
            return new

        return self._db.together(work, patience)

    def hold(
        self,
        key: str,
        invitation: Invitation,
        now: int,
        patience: float = WORKER_PATIENCE,
    ) -> None:
        with self._db.transaction(patience) as db:
            db.execute("DELETE FROM held WHERE expires <= ?", (now,))
            db.execute(
                "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)",
                (key, *invitation, now + HOLD),
            )

    def held(
        self, key: str, now: int, patience: float = WORKER_PATIENCE
    ) -> Invitation | None:
        rows = self._db.query(
            "SELECT token, referrer FROM held WHERE name = ? AND expires > ?",
            (key, now),
            patience,
        )
        return Invitation._make(rows[0]) if rows else None

    def let_go(self, key: str, patience: float = WORKER_PATIENCE) -> None:
        with self._db.transaction(patience) as db:
            db.execute("DELETE FROM held WHERE name = ?", (key,))

    def of(
        self, identity: str, test: bool, patience: float = WORKER_PATIENCE
    ) -> dict[str, Entry]:
        rows = self._db.query(
            f"SELECT {_COLUMNS} FROM event WHERE identity = ? AND test = ?",
            (identity, test),
            patience,
        )
        return {entry.event: entry for entry in map(Entry._make, rows)}

    def claim(
        self,
        state: State,
        now: int,
        lease: int,
        limit: int,
        ids: t.Collection[int] | None = None,
    ) -> list[Entry]:
        with self._db.transaction() as db:
            host = _host(db)
            if state == "pending":
                limit = host.room(now, lambda: _in_flight(db, now), limit)
            batch = separate(_due(db, state, now, limit, ids))
            if not batch:
                return []
            if state == "pending":
                _remember(db, host.probing(now, lease), host)
            claimed = hold(batch, now, lease, host.uptime(now))
            db.executemany(
                "UPDATE event SET due = ?, claim = ?, attempts = ?, crashes = ?,"
                " begun = ? WHERE id = ?",
                [
                    (e.due, e.claim, e.attempts, e.crashes, e.begun, e.id)
                    for e in claimed
                ],
            )
        return claimed

    def settle(
        self,
        settlements: t.Sequence[Settlement],
        now: int,
        learn: t.Callable[[Host], Host] = lambda host: host,
    ) -> list[Entry]:
        with self._db.transaction() as db:
            steps = _settle(db, settlements, now)
            changed = [entry for entry, _ in steps]
            _follow(db, changed, now)
            self._count(db, itertools.chain(*itertools.starmap(reached, steps)))
            before = _host(db)
            after = learn(before)
            _remember(db, after, before)
            if (before.open_since is None) == (after.open_since is None):
                return changed
            if after.open_since is not None:
                # The settings turned out to be at fault, not the events.
                for entry in absolved(_in_states(db, ["rejected"], -1), after):
                    _redrive(db, entry, now, entry.attempts)
            else:
                _hasten(db, now)
            return list(_read_anew(db, changed).values())

    def release(
        self, entries: t.Sequence[Entry], patience: float = WORKER_PATIENCE
    ) -> None:
        with self._db.transaction(patience) as db:
            db.executemany(
                "UPDATE event SET due = recorded, claim = NULL, attempts = attempts - 1"
                " WHERE identity = ? AND event = ? AND test = ? AND claim = ?",
                [(*entry.key, entry.claim) for entry in entries],
            )

    @property
    def incident(self) -> bool:
        return self._db.incident

    def rescue(self) -> int:
        if not self._db.incident:
            return 0
        # Cleared first: what happens from now on is for the next time.
        self._db.incident = False
        self._db.check()
        count = 0
        for connection in self._db.orphans():
            with contextlib.closing(connection), self._db.transaction() as db:
                count += self._merge(db, _read_all(connection))
                _merge_held(db, connection)
        for file in self._db.files_aside():
            count += self._rescue_file(file)
        return count

    def _rescue_file(self, file: Path) -> int:
        name = f"rescued {file.name}"
        if self._fact(name) is not None:
            return 0
        entries = salvage(file)
        with self._db.transaction() as db:
            count = self._merge(db, entries)
            _set_fact(db, name, str(count))
        logger.critical(
            "%d entries that could be read in %s were taken over into the outbox. The "
            "file is kept: remove it when you like.",
            count,
            file,
        )
        return count

    def next_due(self, now: int, patience: float = WORKER_PATIENCE) -> int | None:
        ((pending, accepted, host),) = self._db.query(
            "SELECT (SELECT min(due) FROM event WHERE state = 'pending' AND due > 0),"
            " (SELECT min(due) FROM event WHERE state = 'accepted' AND due > 0),"
            " (SELECT value FROM fact WHERE name = 'host')",
            (),
            patience,
        )
        return soonest(pending, accepted, Host.from_json(host), now)

    def adopt(self, fingerprint: str, server_id: str, now: int) -> int:
        if self._fact("settings") == fingerprint:
            return 0
        with self._db.transaction() as db:
            known = _fact(db, "settings")
            _set_fact(db, "settings", fingerprint)
            if known in (None, fingerprint):
                return 0
            again = refused(_in_states(db, ["rejected"], -1))
            for entry in again:
                _redrive(db, entry, now)
            _hasten(db, now)
            _readdress(db, server_id)
            _remember(db, Host(down=now - _host(db).uptime(now)), None)
        return len(again)

    def retry(self, now: int, ids: t.Collection[int] | None = None) -> list[Entry]:
        with self._db.transaction() as db:
            rejected = [
                entry
                for entry in _in_states(db, ["rejected"], -1)
                if ids is None or entry.id in ids
            ]
            for entry in rejected:
                _redrive(db, entry, now)
            return [_read(db, entry.id) for entry in rejected]

    def find(self, states: t.Collection[State], limit: int) -> list[Entry]:
        with self._db.transaction() as db:
            return _in_states(db, states, limit)

    def decide(self, id: int, state: State, now: int) -> Entry | None:
        with self._db.transaction() as db:
            cursor = db.execute(
                "UPDATE event SET state = ?, due = ?, settled = ?, attempts = 0,"
                " crashes = 0 WHERE id = ? AND state IN ('unknown', 'unpaid')",
                (state, now if state == "accepted" else None, now, id),
            )
            if not cursor.rowcount:
                return None
            decided = _read(db, id)
            self._count(db, reached(decided, was="unknown"))
            return decided

    def host(self) -> Host:
        return Host.from_json(self._fact("host"))

    def summary(self) -> Summary:
        rows = self._db.query("SELECT state, count(*) FROM event GROUP BY state")
        ((due,),) = self._db.query(
            "SELECT count(*) FROM event WHERE state = 'pending' AND due IS NOT NULL"
        )
        waiting = dict(rows).get("pending", 0) - due
        oldest = self.journal.oldest_pending()
        return Summary(dict(rows), max(0, waiting), oldest, self.host())

    def close(self) -> None:
        self._db.close()

    def _run(self, work: t.Callable[[Execute], R], *, writes: bool) -> R:
        if not writes:
            return work(self._db.query)
        with self._db.transaction() as db:
            return work(partial(_execute, db))

    def _count(self, db: sqlite3.Connection, marks: t.Iterable[Mark]) -> None:
        count(partial(_execute, db), marks, _DIALECT)

    def _merge(self, db: sqlite3.Connection, entries: t.Iterable[Entry]) -> int:
        """Put entries of another file in; one that has come further than ours replaces
        it, or a reward that was paid could be paid again.
        """
        new = [entry for entry in entries if _insert_or_replace(db, entry)]
        self._count(db, itertools.chain(*map(taken, new)))
        return len(new)

    def _fact(self, name: str) -> str | None:
        rows = self._db.query("SELECT value FROM fact WHERE name = ?", (name,))
        return rows[0][0] if rows else None


def _places(values: t.Collection[object]) -> str:
    """As many places for parameters as there are values."""
    return ", ".join("?" * len(values))


def _execute(
    db: sqlite3.Connection, sql: str, values: Values | list[Values]
) -> list[t.Any]:
    run = db.executemany if isinstance(values, list) else db.execute
    return run(sql, values).fetchall()


def _read(db: sqlite3.Connection, id: int | None) -> Entry:
    row = db.execute(f"SELECT {_COLUMNS} FROM event WHERE id = ?", (id,)).fetchone()
    return Entry._make(row)


def _read_anew(
    db: sqlite3.Connection, entries: t.Collection[Entry]
) -> dict[tuple[str, str, bool], Entry]:
    """Entries as they are now, by their keys, in the order in which they come."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM event WHERE id IN ({_places(entries)})",
        [entry.id for entry in entries],
    )
    found = {row.key: row for row in map(Entry._make, rows)}
    read = {}
    for entry in entries:
        # Its id is another after its file was damaged.
        row = found.get(entry.key) or _find(db, entry.key)
        if row is not None:
            read[row.key] = row
    return read


def _find(db: sqlite3.Connection, key: tuple[str, str, bool]) -> Entry | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM event WHERE identity = ? AND event = ? AND test = ?",
        key,
    ).fetchone()
    return Entry._make(row) if row else None


def _in_states(
    db: sqlite3.Connection, states: t.Collection[str], limit: int
) -> list[Entry]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM event WHERE state IN ({_places(states)})"
        " ORDER BY id DESC LIMIT ?",
        (*states, limit),
    )
    return list(map(Entry._make, rows))


def _read_all(connection: sqlite3.Connection) -> list[Entry]:
    found: list[Entry] = []
    try:
        for row in connection.execute(f"SELECT {_COLUMNS} FROM event"):
            found.append(Entry._make(row))
    except sqlite3.Error as e:
        logger.critical("%d entries could be read, then: %s.", len(found), e)
    return found


def _insert(db: sqlite3.Connection, entry: Entry) -> int | None:
    """The id of a new row; None if the event stands already."""
    # Only what is set: Python looks in vain for an adapter of each None that is bound.
    fields = zip(Entry._fields[1:], entry[1:], strict=True)
    row = {name: value for name, value in fields if value is not None}
    cursor = db.execute(
        f"INSERT INTO event ({', '.join(row)}) VALUES ({_places(row)})"
        " ON CONFLICT DO NOTHING",
        [*row.values()],
    )
    return cursor.lastrowid if cursor.rowcount else None


def _insert_or_replace(db: sqlite3.Connection, entry: Entry) -> bool:
    news = ", ".join(f"{name} = excluded.{name}" for name in Entry._fields[1:])
    values = entry[1:]
    cursor = db.execute(
        f"INSERT INTO event ({_NEW}) VALUES ({_places(values)})"
        f" ON CONFLICT (identity, event, test) DO UPDATE SET {news}"
        " WHERE event.settled IS NULL AND excluded.settled IS NOT NULL",
        values,
    )
    return cursor.rowcount > 0


def _merge_held(db: sqlite3.Connection, other: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        held = other.execute("SELECT * FROM held").fetchall()
        db.executemany("INSERT OR IGNORE INTO held VALUES (?, ?, ?, ?)", held)


def _fact(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _set_fact(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))


def _host(db: sqlite3.Connection) -> Host:
    return Host.from_json(_fact(db, "host"))


def _remember(db: sqlite3.Connection, host: Host, before: Host | None) -> None:
    if host != before:
        _set_fact(db, "host", host.to_json())


def _start(
    db: sqlite3.Connection, identity: str, name: str, test: bool, now: int
) -> tuple[State, int | None]:
    """What an event begins as: a ``qualified`` goes by its ``registered``."""
    if name == "registered":
        return begin(name, None, now)
    row = db.execute(
        "SELECT state FROM event"
        " WHERE identity = ? AND event = 'registered' AND test = ?",
        (identity, test),
    ).fetchone()
    return begin(name, row and row[0], now)


def _in_flight(db: sqlite3.Connection, now: int) -> int:
    ((count,),) = db.execute(
        "SELECT count(*) FROM event"
        " WHERE state = 'pending' AND due > ? AND claim IS NOT NULL",
        (now,),
    )
    return int(count)


def _due(
    db: sqlite3.Connection,
    state: State,
    now: int,
    limit: int,
    ids: t.Collection[int] | None,
) -> list[Entry]:
    only = "" if ids is None else f" AND id IN ({_places(ids)})"
    found: list[Entry] = []
    for condition, moment in (("due <= ?", now), ("due > ?", now + HORIZON)):
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM event WHERE state = ? AND {condition}{only}"
            " ORDER BY due LIMIT ?",
            (state, moment, *(ids or ()), limit - len(found)),
        )
        found += map(Entry._make, rows)
    return found


def _settle(
    db: sqlite3.Connection, settlements: t.Sequence[Settlement], now: int
) -> list[tuple[Entry, State]]:
    """What is changed, as it is now, with the states in which it was claimed."""
    rows = _read_anew(db, [settlement.entry for settlement in settlements])
    changed = []
    for settlement in settlements:
        row = rows.get(settlement.entry.key)
        if row is not None and stands(settlement, row):
            columns = settled(settlement, now)
            columns["referral_id"] = columns["referral_id"] or row.referral_id
            rows[row.key] = row._replace(**columns)
            changed.append((rows[row.key], settlement.entry.state))
    db.executemany(
        "UPDATE event SET state = ?, due = ?, claim = NULL, attempts = ?, crashes = ?,"
        " settled = ?, status = ?, answer = ?, referral_id = ?, history = ?"
        " WHERE id = ?",
        [
            (
                *(e.state, e.due, e.attempts, e.crashes),
                *(e.settled, e.status, e.answer, e.referral_id, e.history),
                e.id,
            )
            for e, _ in changed
        ],
    )
    return changed


def _follow(db: sqlite3.Connection, changed: t.Iterable[Entry], now: int) -> None:
    """Let each ``registered`` draw its ``qualified`` along."""
    for (state, due, test), players in drawn(changed, now).items():
        db.execute(
            "UPDATE event SET state = ?, due = ? WHERE event = 'qualified'"
            f" AND test = ? AND identity IN ({_places(players)})"
            # With the plus it goes by the players, not by all that is pending.
            " AND +state = 'pending' AND due IS NULL",
            (state, due, test, *players),
        )


def _redrive(db: sqlite3.Connection, entry: Entry, now: int, attempts: int = 0) -> None:
    state, due = _start(db, entry.identity, entry.event, bool(entry.test), now)
    db.execute(
        "UPDATE event SET state = ?, due = ?, attempts = ?, crashes = 0 WHERE id = ?",
        (state, due, attempts, entry.id),
    )


def _hasten(db: sqlite3.Connection, now: int) -> None:
    """The host is well again: what failed meanwhile need not wait any longer."""
    db.execute(
        "UPDATE event SET due = ? WHERE state = 'pending' AND due > ?"
        " AND claim IS NULL",
        (now, now),
    )


def _readdress(db: sqlite3.Connection, server_id: str) -> None:
    """The id of the server stands inside the bytes, so they are made anew."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM event WHERE state = 'pending' AND server_id != ?",
        (server_id,),
    ).fetchall()
    for entry in map(Entry._make, rows):
        event = entry.addressed_to(server_id)
        db.execute(
            "UPDATE event SET server_id = ?, body = ? WHERE id = ?",
            (event.server_id, event.encode(), entry.id),
        )
