"""The outbox in a SQLite file of its own: no server and no set-up."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import typing as t
from pathlib import Path

from ...log import logger
from ..counters import taken
from ..dialect import Dialect
from ..entry import Entry
from ..entry import TIMEOUT
from ..invitation import Invitation
from ..rows import COLUMNS
from ..rows import Values
from ..rules import HELD_FOR
from ..statements import Transaction
from ..store import Outbox
from ..tokens import TOKEN_USED
from .file import Database
from .file import patiently
from .recover import read_remains
from .schema import MIGRATIONS
from .schema import Schema
from .schema import SIGNS

R = t.TypeVar("R")

_DIALECT = Dialect()


class SQLiteTransaction(Transaction):
    """A transaction in a SQLite file.

    :param deadline: Until when it waits for other processes, by :func:`time.monotonic`.
    """

    is_alone = True

    def __init__(self, db: sqlite3.Connection, deadline: float) -> None:
        super().__init__(_DIALECT)
        self._db = db
        self._deadline = deadline

    def execute(self, sql: str, values: Values | list[Values]) -> list[t.Any]:
        run = self._db.executemany if isinstance(values, list) else self._db.execute
        return patiently(lambda: run(sql, values).fetchall(), self._deadline)

    def change(self, sql: str, values: Values) -> int:
        return patiently(lambda: self._db.execute(sql, values).rowcount, self._deadline)

    def entries(self, where: str, values: Values, hint: str = "") -> list[Entry]:
        sql = f"SELECT {COLUMNS} FROM event {hint} WHERE {where}"
        return [_entry(row) for row in self.execute(sql, values)]

    def merge(self, entries: t.Iterable[Entry]) -> int:
        """Put entries of another file in; one that has come further than ours replaces
        it, or a reward that was granted could be granted again.
        """
        new = [entry for entry in entries if self._insert_or_replace(entry)]
        for entry in new:
            if entry.event == "registered":
                self.own_token(self.of(entry.identity, entry.test)[entry.event])
        self.keep_numbers(new)
        self.count(mark for entry in new for mark in taken(entry))
        return len(new)

    def merge_held(self, other: sqlite3.Connection) -> None:
        """The same for invitations that are held there, and for used tokens."""
        with contextlib.suppress(sqlite3.Error):
            held = other.execute("SELECT name, token, referrer, expires FROM held")
            for key, token, referrer, expires in held.fetchall():
                self.hold(key, Invitation(token, referrer), expires - HELD_FOR)
            self.use(digest for (digest,) in other.execute("SELECT digest FROM used"))

    def _insert(self, entry: Entry) -> int | None:
        # Only what is set: Python looks in vain for an adapter of each bound None.
        fields = zip(Entry._fields[1:], entry[1:], strict=True)
        row = {name: value for name, value in fields if value is not None}
        cursor = self._db.execute(
            f"{self.insertion(row)} ON CONFLICT DO NOTHING",
            {**row, "used": entry.digest},
        )
        return cursor.lastrowid if cursor.rowcount else None

    def _insert_or_replace(self, entry: Entry) -> bool:
        # Whose the token is, is seen afterwards.
        names, places = Entry._fields[1:], ", ".join("?" * len(Entry._fields[1:]))
        news = ", ".join(f"{name} = excluded.{name}" for name in names)
        cursor = self._db.execute(
            f"INSERT INTO event ({', '.join(names)}) VALUES ({places})"
            f" ON CONFLICT (identity, event, test) DO UPDATE SET {news}"
            " WHERE event.settled IS NULL AND excluded.settled IS NOT NULL"
            # It was shut out by one that it came before, or not at all.
            f" OR event.answer = '{TOKEN_USED}'",
            entry._replace(digest=None)[1:],
        )
        return cursor.rowcount > 0


class SQLiteOutbox(Outbox):
    """An :class:`~flask_mmolove.outbox.store.Outbox` in a SQLite file.

    :param path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_DIALECT)
        self._db = Database(path, Schema(MIGRATIONS, SIGNS))

    def __str__(self) -> str:
        return str(self._db.path)

    def run(
        self,
        work: t.Callable[[SQLiteTransaction], R],
        timeout: float | None = None,
        *,
        writes: bool = True,
    ) -> R:
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout

        def within(db: sqlite3.Connection) -> R:
            return work(SQLiteTransaction(db, deadline))

        # Requests share commits with one another. A worker waits longer: its work is
        # not theirs to wait for, and it must not give up when they do.
        is_request = timeout < TIMEOUT
        if writes and is_request:
            return self._db.together(within, timeout)
        begin = self._db.transaction if writes else self._db.reading
        with begin(timeout) as db:
            return within(db)

    def create(self) -> bool:
        was_there = self._db.path.exists()
        with self._db.reading():
            return not was_there

    def close(self) -> None:
        self._db.close()

    @property
    def incident(self) -> bool:
        return self._db.incident

    def recover(self) -> int:
        if not self._db.incident:
            return 0
        # Cleared first: what happens from now on is for the next time.
        self._db.incident = False
        try:
            self._db.check()
            count = sum(map(self._recover_orphan, self._db.orphans()))
            return count + sum(map(self._recover_file, self._db.files_aside()))
        except BaseException:
            self._db.incident = True  # what is left of it is for the next time too
            raise

    def _recover_orphan(self, connection: sqlite3.Connection) -> int:
        def work(db: SQLiteTransaction) -> int:
            db.merge_held(connection)
            return db.merge(_read_all(connection))

        count = self.run(work)
        self._db.close_orphan(connection)
        return count

    def _recover_file(self, file: Path) -> int:
        name = f"rescued {file.name}"  # so stored by the first version too
        if self.run(lambda db: db.fact(name), writes=False) is not None:
            return 0
        remains = read_remains(file, self._db.read_aside)

        def work(db: SQLiteTransaction) -> int:
            db.use(remains.used)
            count = db.merge(remains.entries)
            db.set_fact(name, str(count))
            return count

        count = self.run(work)
        logger.critical(
            "%d entries were recovered from %s. The file is kept: remove it when you "
            "like.",
            count,
            file,
        )
        return count


def _entry(row: tuple[t.Any, ...]) -> Entry:
    id, identity, event, test, *rest = row
    return Entry(id, identity, event, bool(test), *rest)


def _read_all(connection: sqlite3.Connection) -> list[Entry]:
    found: list[Entry] = []
    try:
        for row in connection.execute(f"SELECT {COLUMNS} FROM event"):
            found.append(_entry(row))
    except sqlite3.Error as e:
        logger.critical("%d entries could be read, then: %s.", len(found), e)
    return found
