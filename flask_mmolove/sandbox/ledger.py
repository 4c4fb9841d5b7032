"""What the stand-in remembers: referrals, accepted events, and everything that arrived.

One SQLite database, in memory or in a file. It decides nothing; the rules do.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import typing as t
import weakref
from contextlib import contextmanager
from contextlib import suppress
from dataclasses import astuple
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import replace

from ..protocol.wire import shorten

_SCHEMA = """
CREATE TABLE IF NOT EXISTS referral (
    token TEXT PRIMARY KEY,
    server_id TEXT NOT NULL,
    ref TEXT NOT NULL,
    expires INTEGER NOT NULL,
    state TEXT NOT NULL,
    referee_identity TEXT
);
-- The anchor: one referee belongs to one referral.
CREATE UNIQUE INDEX IF NOT EXISTS anchor ON referral (server_id, referee_identity)
    WHERE referee_identity IS NOT NULL;
CREATE TABLE IF NOT EXISTS accepted (
    token TEXT NOT NULL,
    event TEXT NOT NULL,
    server_event_id TEXT NOT NULL,
    PRIMARY KEY (token, event, server_event_id)
);
CREATE TABLE IF NOT EXISTS arrival (
    number INTEGER PRIMARY KEY,
    "when" REAL NOT NULL,
    outcome TEXT NOT NULL,
    status INTEGER,
    answer TEXT NOT NULL,
    reason TEXT NOT NULL,
    hint TEXT NOT NULL,
    lost INTEGER NOT NULL,
    body BLOB NOT NULL,
    event TEXT,
    token TEXT,
    server_id TEXT,
    server_event_id TEXT,
    referee_identity TEXT
);
"""


@dataclass(frozen=True)
class Referral:
    """One minted token and what became of it.

    :param ref: The code of the player who shared the link.
    :param expires: Unix seconds after which it cannot be registered any more.
    :param state: ``"clicked"``, ``"registered"``, ``"qualified"``, ``"reversed"`` or
        ``"rejected"``; ``"ignored"``, the stand-in's own word, once its ``registered``
        lost to another referrer.
    :param referee_identity: The account that it registered.
    """

    token: str = field(repr=False)
    server_id: str
    ref: str
    expires: int
    state: str = "clicked"
    referee_identity: str | None = None

    @property
    def id(self) -> str:
        """The ``referral_id`` of the answers."""
        return f"rfl_{hashlib.sha256(self.token.encode()).hexdigest()[:16]}"

    @property
    def short_token(self) -> str:
        """The token as a page may show it."""
        return shorten(self.token)


@dataclass(frozen=True)
class Arrival:
    """One request to the events endpoint, and what was answered.

    The fields of the event are as far as they could be read: they are there for a
    refused request as well.

    :param when: Unix seconds, by the stand-in's clock.
    :param outcome: ``"accepted"``, ``"duplicate"``, ``"ignored"``, ``"test"``,
        ``"refused"`` or ``"fault"``.
    :param status: The status answered, or ``None`` if there was no answer to give.
    :param answer: The JSON answered.
    :param reason: Why, in plain words.
    :param hint: What to fix at the site, if anything.
    :param lost: Whether a fault kept the answer from the site.
    :param body: The raw bytes.
    """

    when: float
    outcome: str
    status: int | None
    answer: str
    reason: str
    hint: str
    lost: bool
    body: bytes = field(repr=False)
    event: str | None = None
    token: str | None = field(default=None, repr=False)
    server_id: str | None = None
    server_event_id: str | None = None
    referee_identity: str | None = None

    @property
    def short_token(self) -> str | None:
        """The token as a page may show it."""
        return None if self.token is None else shorten(self.token)


def _close_to_others(path: str | os.PathLike[str]) -> None:
    """Create a file that this user alone can read, for tokens stand in it; or make one
    that is there such a file, with what SQLite has put beside it.
    """
    with suppress(OSError):  # SQLite will say what is wrong with it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            os.chmod(os.fspath(path) + suffix, 0o600)


_REFERRAL = ", ".join(column.name for column in fields(Referral))
_ARRIVAL = ", ".join(f'"{column.name}"' for column in fields(Arrival))


class Ledger:
    """The book of the stand-in, safe to use from several threads.

    :param path: A file that outlives a restart; in memory, unless given. Only this
        user can read it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is not None:
            _close_to_others(path)
        # One connection, as each connection to ":memory:" is a database of its own.
        self._db = sqlite3.connect(
            ":memory:" if path is None else path,
            isolation_level=None,
            check_same_thread=False,
        )
        self._lock = threading.RLock()
        self._db.executescript(_SCHEMA)
        #: Closes the database; a ledger that is forgotten is closed by itself.
        self.close = weakref.finalize(self, self._db.close)

    @contextmanager
    def transaction(self) -> t.Iterator[None]:
        """All that is written inside is written together, or not at all."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, referral: Referral) -> None:
        """Note a freshly minted token."""
        self._query(
            f"INSERT INTO referral ({_REFERRAL}) VALUES (?, ?, ?, ?, ?, ?)",
            *astuple(referral),
        )

    def referral(self, token: str) -> Referral | None:
        """The referral of a token."""
        return self._referral("token = ?", token)

    def anchored(self, server_id: str, referee_identity: str) -> Referral | None:
        """The referral that registered a referee."""
        return self._referral(
            "server_id = ? AND referee_identity = ?", server_id, referee_identity
        )

    def move(self, token: str, state: str, referee_identity: str | None = None) -> None:
        """Put a referral into a state, and anchor a referee if one is given."""
        self._query(
            "UPDATE referral SET state = ?,"
            " referee_identity = coalesce(?, referee_identity) WHERE token = ?",
            state,
            referee_identity,
            token,
        )

    def accept(self, token: str, event: str, server_event_id: str) -> None:
        """Remember an event, so that its repetition is known as one."""
        self._query(
            "INSERT INTO accepted (token, event, server_event_id) VALUES (?, ?, ?)",
            token,
            event,
            server_event_id,
        )

    def has_accepted(self, token: str, event: str, server_event_id: str) -> bool:
        """Whether this very event was accepted before."""
        found = self._query(
            "SELECT 1 FROM accepted"
            " WHERE token = ? AND event = ? AND server_event_id = ?",
            token,
            event,
            server_event_id,
        )
        return bool(found)

    def record(self, arrival: Arrival) -> None:
        """Add to the list of what arrived."""
        self._query(
            f"INSERT INTO arrival ({_ARRIVAL})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(arrival),
        )

    def arrivals(self) -> list[Arrival]:
        """Everything that arrived, oldest first."""
        rows = self._query(f"SELECT {_ARRIVAL} FROM arrival ORDER BY number")
        found = [Arrival(*row) for row in rows]
        return [replace(arrival, lost=bool(arrival.lost)) for arrival in found]

    def referrals(self) -> list[Referral]:
        """Every referral, oldest first."""
        rows = self._query(f"SELECT {_REFERRAL} FROM referral ORDER BY rowid")
        return [Referral(*row) for row in rows]

    def _referral(self, condition: str, *values: str) -> Referral | None:
        statement = f"SELECT {_REFERRAL} FROM referral WHERE {condition}"
        rows = self._query(statement, *values)
        return Referral(*rows[0]) if rows else None

    def _query(self, statement: str, *values: t.Any) -> list[tuple[t.Any, ...]]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()
