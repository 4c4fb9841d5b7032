"""Signups that come at once, in the threads of one process and in several processes."""

from __future__ import annotations

import itertools
import multiprocessing
import sqlite3
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from flask_mmolove.outbox.entry import make_event
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.recording.recorder import REQUEST_TIMEOUT

from .row import Row

_REPEATS = 5


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
            "registered", player, f"{player:t>60}", "srv", 1_790_000_000_000, False
        )
        self._outbox.add(player, [event], 1_790_000_000_000, REQUEST_TIMEOUT)

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


class Store(t.Protocol):
    """Where signups go."""

    def __init__(self, path: Path) -> None: ...

    def record(self, player: str) -> None: ...

    def close(self) -> None: ...


def of_threads(
    store: Store, threads: int = 8, each: int = 400, name: str = ""
) -> Crowd:
    """Signups in the threads of one process."""
    waits: list[float] = []

    def work(number: int) -> None:
        for turn in range(each):
            begun = time.perf_counter()
            store.record(f"{name}-{number}-{turn}")
            waits.append(time.perf_counter() - begun)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Crowd(len(waits) / (time.perf_counter() - begun), sorted(waits))


def of_processes(make: type[Store], path: Path, processes: int = 4) -> Crowd:
    """Signups in several processes."""
    make(path).close()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, _get_ready, (barrier,)) as pool:
        begun = time.perf_counter()
        each = pool.map(_work, [(make, path, n) for n in range(processes)], 1)
        took = time.perf_counter() - begun
    waits = sorted(itertools.chain(*each))
    return Crowd(len(waits) / took, waits)


_barrier: t.Any = None


def _get_ready(barrier: t.Any) -> None:
    global _barrier
    _barrier = barrier


def _work(job: tuple[type[Store], Path, int]) -> list[float]:
    make, path, number = job
    store = make(path)
    _barrier.wait()
    crowd = of_threads(store, threads=1, each=500, name=str(number))
    store.close()
    return crowd.waits


def measure_crowd() -> t.Iterator[Row]:
    """All at once, in turns with what one would write."""
    threads: dict[str, list[Crowd]] = {"ours": [], "plain": []}
    processes: dict[str, list[Crowd]] = {"ours": [], "plain": []}
    stores: dict[str, type[Store]] = {"ours": Ours, "plain": Plain}
    for _ in range(_REPEATS):
        for name, make in stores.items():
            with tempfile.TemporaryDirectory() as folder:
                store = make(Path(folder, "threads.db"))
                threads[name].append(of_threads(store))
                store.close()
                path = Path(folder, "processes.db")
                processes[name].append(of_processes(make, path))
    beside = "a connection each, SQLite's wait"
    pairs = list(zip(threads["ours"], threads["plain"], strict=True))
    yield Row(
        "8 threads at once: signups a second",
        beside,
        [ours.rate / plain.rate for ours, plain in pairs],
        2,
        is_least=True,
        note=f"{pairs[0][0].rate:,.0f}/s and {pairs[0][1].rate:,.0f}/s",
    )
    yield Row(
        "8 threads at once: 999 of 1,000 wait",
        beside,
        [ours.at(0.999) / plain.at(0.999) for ours, plain in pairs],
        1 / 40,
        note=_ms(pairs[0][0].at(0.999), pairs[0][1].at(0.999)),
    )
    pairs = list(zip(processes["ours"], processes["plain"], strict=True))
    yield Row(
        "4 processes at once: the longest wait",
        beside,
        [ours.at(1) / plain.at(1) for ours, plain in pairs],
        1 / 4,
        note=_ms(pairs[0][0].at(1), pairs[0][1].at(1)),
    )


def _ms(ours: float, plain: float) -> str:
    return f"{ours * 1000:,.0f} ms and {plain * 1000:,.0f} ms"
