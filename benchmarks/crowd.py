"""Signups that come at once, in the threads of one process and in several processes."""

from __future__ import annotations

import sqlite3
import threading
import time
import typing as t
from pathlib import Path

from flask_mmolove.outbox.entry import make_event
from flask_mmolove.outbox.sqlite import SQLiteOutbox

Record = t.Callable[[str], object]


class Crowd(t.NamedTuple):
    """How it went.

    :param rate: Signups a second.
    :param waits: Seconds that each waited, shortest first.
    """

    rate: float
    waits: list[float]

    def at(self, share: float) -> float:
        """The wait that this share of the signups stayed within."""
        return self.waits[min(int(len(self.waits) * share), len(self.waits) - 1)]


class Ours:
    """Our outbox: one for all threads."""

    def __init__(self, path: Path) -> None:
        self._outbox = SQLiteOutbox(path)
        self._outbox.create()

    def record(self, player: str) -> None:
        event = make_event(
            "registered", player, "t" * 60, "srv", 1_790_000_000_000, False
        )
        self._outbox.add(player, [event], 1_790_000_000_000, 60.0)

    def close(self) -> None:
        self._outbox.close()


class Plain:
    """What one would write: a connection for each thread, SQLite's own wait, and the
    same durability.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        with sqlite3.connect(path) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY,"
                " player TEXT UNIQUE, body BLOB)"
            )
        connection.close()

    def record(self, player: str) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = sqlite3.connect(
                self._path, timeout=60, isolation_level=None
            )
            connection.execute("PRAGMA journal_mode=TRUNCATE")
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO event (player, body) VALUES (?, ?)", (player, b"b" * 200)
        )
        connection.execute("COMMIT")

    def close(self) -> None:
        pass


def crowd_of_threads(store: t.Any, threads: int, each: int) -> Crowd:
    waits: list[float] = []

    def work(number: int) -> None:
        for turn in range(each):
            begun = time.perf_counter()
            store.record(f"{number}-{turn}")
            waits.append(time.perf_counter() - begun)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Crowd(len(waits) / (time.perf_counter() - begun), sorted(waits))
