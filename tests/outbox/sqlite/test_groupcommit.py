"""Threads that write at the same moment share a commit."""

from __future__ import annotations

import contextlib
import ctypes
import sqlite3
import threading
import typing as t
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_mmolove import OutboxBusy
from flask_mmolove.outbox.sqlite.groupcommit import Group


class Store:
    """A database that makes its first writer wait until it is let go."""

    def __init__(self) -> None:
        self.group = Group()
        self.commits: list[list[str]] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.interrupts: list[BaseException] = []
        self.threads: dict[str, int] = {}

    @contextlib.contextmanager
    def begin(self, timeout: float) -> t.Iterator[sqlite3.Connection]:
        self.entered.set()
        assert self.go.wait(20)
        if self.interrupts:
            raise self.interrupts.pop()
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE TABLE name (name TEXT)")
            yield connection
            rows = connection.execute("SELECT name FROM name").fetchall()
        self.commits.append([name for (name,) in rows])

    def write(self, name: str, timeout: float = 20) -> str:
        def work(db: sqlite3.Connection) -> str:
            if name == "bad":
                raise ValueError("bad")
            db.execute("INSERT INTO name VALUES (?)", (name,))
            return name

        self.threads[name] = threading.get_ident()
        return self.group.run(self.begin, work, timeout)

    def interrupt(self, name: str) -> None:
        """Have an exception raised in the thread of one who waits, once it wakes."""
        thread = ctypes.c_ulong(self.threads[name])
        error = ctypes.py_object(SystemExit)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error) == 1

    def waits(self, count: int) -> None:
        """Wait until so many wait for the leader."""
        while len(self.group._waiting) < count:
            threading.Event().wait(0.001)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def pool() -> t.Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def lead(store: Store, pool: ThreadPoolExecutor) -> Future[str]:
    """A writer who is held up in its transaction."""
    first = pool.submit(store.write, "first")
    assert store.entered.wait(20)
    return first


def gather(store: Store, pool: ThreadPoolExecutor, *names: str) -> list[Future[str]]:
    """Writers who come meanwhile, one after another."""
    found = []
    for name in names:
        found.append(pool.submit(store.write, name))
        store.waits(len(found))
    return found


def test_what_gathers_is_committed_together(
    store: Store, pool: ThreadPoolExecutor
) -> None:
    first = lead(store, pool)
    others = gather(store, pool, "a", "b", "c")
    store.go.set()
    assert first.result() == "first"
    assert [other.result() for other in others] == ["a", "b", "c"]
    assert store.commits == [["first"], ["a", "b", "c"]]
    assert store.write("later") == "later"


def test_the_fault_of_one_is_no_other_s(store: Store, pool: ThreadPoolExecutor) -> None:
    first = lead(store, pool)
    a, bad, b = gather(store, pool, "a", "bad", "b")
    store.go.set()
    assert (first.result(), a.result(), b.result()) == ("first", "a", "b")
    with pytest.raises(ValueError, match="bad"):
        bad.result()
    assert store.commits == [["first"], ["a"], ["b"]]


def test_who_waits_too_long_is_told_so(store: Store, pool: ThreadPoolExecutor) -> None:
    first = lead(store, pool)
    with pytest.raises(OutboxBusy, match="other threads"):
        store.write("hasty", timeout=0.01)
    store.go.set()
    first.result()
    assert store.write("next") == "next"
    assert store.commits == [["first"], ["next"]]


def test_a_leader_who_is_interrupted_leaves_nobody_waiting(
    store: Store, pool: ThreadPoolExecutor
) -> None:
    store.interrupts = [SystemExit()]
    first = lead(store, pool)
    (a,) = gather(store, pool, "a")
    store.go.set()
    with pytest.raises(SystemExit):
        first.result()
    assert a.result() == "a"


def test_one_who_is_interrupted_when_it_is_to_lead_leaves_it_to_the_next(
    store: Store, pool: ThreadPoolExecutor
) -> None:
    first = lead(store, pool)
    a, b = gather(store, pool, "a", "b")
    store.interrupt("a")
    store.go.set()
    assert first.result() == "first"
    with pytest.raises(SystemExit):
        a.result()
    assert b.result() == "b"
    assert store.write("next") == "next"
    assert store.commits == [["first"], ["b"], ["next"]]


def test_those_who_gathered_with_one_who_is_interrupted_are_told_so(
    store: Store, pool: ThreadPoolExecutor
) -> None:
    first = lead(store, pool)
    a, b = gather(store, pool, "a", "b")
    store.interrupts = [SystemExit(), RuntimeError()]  # taken from the end
    store.go.set()
    outcomes = [first, a, b]
    # "first" met the RuntimeError; "a" led, was stopped, and "b" was in its hands.
    with pytest.raises(RuntimeError):
        outcomes[0].result()
    with pytest.raises(SystemExit):
        outcomes[1].result()
    with pytest.raises(OutboxBusy, match="interrupted"):
        outcomes[2].result()
    assert store.write("next") == "next"
