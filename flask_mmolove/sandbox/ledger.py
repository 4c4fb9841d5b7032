"""What the sandbox stores: referrals, accepted events, and everything that arrived.

It is one SQLite database, in memory or in a file, and decides nothing; the rules do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sqlite3
import threading
import typing as t
import weakref
from contextlib import contextmanager
from contextlib import suppress

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
-- The anchor: a referee belongs to one referral.
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


@dataclasses.dataclass(frozen=True)
class Referral:
    """A token and what became of it.

    :param ref: The code of the player who shared the link.
    :param expires: Unix seconds after which it cannot be registered any more.
    :param state: ``"clicked"``, ``"registered"``, ``"qualified"``, ``"reversed"`` or
        ``"rejected"``; or ``"ignored"``, a word of the sandbox's own, once its
        ``registered`` lost to another referrer.
    :param referee_identity: The account that registered with it.
    """

    token: str = dataclasses.field(repr=False)
    server_id: str
    ref: str
    expires: int
    state: str = "clicked"
    referee_identity: str | None = None

    @property
    def id(self) -> str:
        """The ``referral_id`` of the responses."""
        return f"rfl_{hashlib.sha256(self.token.encode()).hexdigest()[:16]}"

    @property
    def short_token(self) -> str:
        """The token as a page may show it."""
        return shorten(self.token)


@dataclasses.dataclass(frozen=True)
class Arrival:
    """One request to the events endpoint, and the response.

    The event's fields are given as far as they can be read, even if it was refused.

    :param when: Unix seconds, by the sandbox's clock.
    :param outcome: ``"accepted"``, ``"duplicate"``, ``"ignored"``, ``"test"``,
        ``"refused"`` or ``"fault"``.
    :param status: The response's status; ``None`` if there was no response.
    :param response: The response's JSON.
    :param reason: Why, in plain words.
    :param hint: What to fix at the site, if anything.
    :param lost: Whether a fault kept the response from the site.
    :param body: The raw bytes.
    """

    when: float
    outcome: str
    status: int | None
    response: str
    reason: str
    hint: str
    lost: bool
    body: bytes = dataclasses.field(repr=False)
    event: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    server_id: str | None = None
    server_event_id: str | None = None
    referee_identity: str | None = None

    @property
    def short_token(self) -> str | None:
        """The token as a page may show it."""
        return None if self.token is None else shorten(self.token)


def _make_private(path: str | os.PathLike[str]) -> None:
    """Create a file that only this user can read, for it holds tokens. If it exists,
    change its mode, and that of the files that SQLite keeps beside it.
    """
    with suppress(OSError):  # SQLite reports what is wrong with it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            os.chmod(os.fspath(path) + suffix, 0o600)


_REFERRAL = ", ".join(column.name for column in dataclasses.fields(Referral))
# The column has the name that earlier versions gave it, whose files are still read.
_ARRIVAL = ", ".join(
    f'"{column.name}"' for column in dataclasses.fields(Arrival)
).replace('"response"', '"answer"')


class Ledger:
    """The sandbox's database. Several threads may use it.

    :param path: A file only for this user, kept over a restart; in memory by default.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is not None:
            _make_private(path)
        # One connection, for each one to ":memory:" has a database of its own.
        self._db = sqlite3.connect(
            ":memory:" if path is None else path,
            isolation_level=None,
            check_same_thread=False,
        )
        self._lock = threading.RLock()
        self._db.executescript(_SCHEMA)
        #: Closes the database, which otherwise happens when the ledger is deleted.
        self.close = weakref.finalize(self, self._db.close)

    @contextmanager
    def transaction(self) -> t.Iterator[None]:
        """Write what is written inside together, or not at all."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, referral: Referral) -> None:
        """Add a new token."""
        self._query(
            f"INSERT INTO referral ({_REFERRAL}) VALUES (?, ?, ?, ?, ?, ?)",
            *dataclasses.astuple(referral),
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
        """Set a referral's state, and anchor a referee if one is given."""
        self._query(
            "UPDATE referral SET state = ?,"
            " referee_identity = coalesce(?, referee_identity) WHERE token = ?",
            state,
            referee_identity,
            token,
        )

    def accept(self, key: tuple[str, str, str]) -> None:
        """Store an accepted event's key, so that a second delivery is a duplicate."""
        columns = "token, event, server_event_id"
        self._query(f"INSERT INTO accepted ({columns}) VALUES (?, ?, ?)", *key)

    def has_accepted(self, key: tuple[str, str, str]) -> bool:
        """Whether exactly this event was accepted before."""
        wanted = "token = ? AND event = ? AND server_event_id = ?"
        return bool(self._query(f"SELECT 1 FROM accepted WHERE {wanted}", *key))

    def record(self, arrival: Arrival) -> None:
        """Add a request to the history."""
        self._query(
            f"INSERT INTO arrival ({_ARRIVAL})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *dataclasses.astuple(arrival),
        )

    def arrivals(self) -> list[Arrival]:
        """Every request, oldest first."""
        rows = self._query(f"SELECT {_ARRIVAL} FROM arrival ORDER BY number")
        found = [Arrival(*row) for row in rows]
        return [
            dataclasses.replace(arrival, lost=bool(arrival.lost)) for arrival in found
        ]

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
