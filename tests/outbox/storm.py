"""Many processes on one outbox in a SQL database, and what they did to it."""

from __future__ import annotations

import multiprocessing
import time
import typing as t
from collections import Counter

from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.states import EntryState
from tests.outbox.recording import add

NAMES = ("registered", "qualified")

# The time does not pass, so no lease ever ends: a second claim would be a fault.
NOW = 1_700_000_000_000
LEASE = 60_000

# Seconds that a worker may go without anything to do.
_IDLE = 20.0


class Result(t.NamedTuple):
    """What came of a storm.

    :param claims: How often each event was claimed.
    :param settled: How often each event was settled.
    :param too_early: Those ``qualified`` that were claimed before their ``registered``
        was settled.
    :param seconds: For claiming and settling.
    """

    claims: Counter[tuple[str, str]]
    settled: Counter[tuple[str, str]]
    too_early: list[str]
    seconds: float
    counts: dict[EntryState, int]


def processes_context() -> t.Any:
    """Makes processes that are forked from one that has no threads, and that has
    imported all of this once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def start(url: str, barrier: t.Any, number: int) -> None:
    """Begin to use an outbox together with other processes."""
    outbox = SQLAlchemyOutbox(url)
    barrier.wait(60)
    identity = str(number)
    add(outbox, identity, now=NOW)
    outbox.close()


def storm(url: str, workers: int = 8, events: int = 10_000, batch: int = 16) -> Result:
    """Let processes record, claim and settle events, each as soon as it can."""
    context = processes_context()
    barrier = context.Barrier(workers)
    results: t.Any = context.Queue()
    processes = [
        context.Process(
            target=_work,
            args=(url, number, events // workers // 2, batch, barrier, results),
        )
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        done = [results.get(timeout=300) for _ in processes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    outbox = SQLAlchemyOutbox(url)
    counts = outbox.inspector.summary().counts
    outbox.close()
    return _judge(done, counts)


def _work(
    url: str, number: int, players: int, batch: int, barrier: t.Any, results: t.Any
) -> None:
    outbox = SQLAlchemyOutbox(url)
    barrier.wait(60)
    for player in range(players):
        identity = f"{number}-{player}"
        add(outbox, identity, *NAMES, now=NOW)
    claimed: list[tuple[str, str, float]] = []
    settled: list[tuple[str, str, float]] = []
    begun = rested = time.monotonic()
    while outbox.next_due(NOW) is not None and time.monotonic() < rested + _IDLE:
        entries = outbox.claim("pending", NOW, LEASE, batch)
        moment = time.monotonic()
        claimed += [(entry.identity, entry.event, moment) for entry in entries]
        sure = [Settlement(entry, "accepted", is_fact=True) for entry in entries]
        for entry in outbox.settle(sure, NOW) if sure else []:
            settled.append((entry.identity, entry.event, moment))
            rested = time.monotonic()
    outbox.close()
    results.put((claimed, settled, begun, time.monotonic()))


def _judge(done: list[t.Any], counts: dict[EntryState, int]) -> Result:
    claimed = [row for each in done for row in each[0]]
    settled = [row for each in done for row in each[1]]
    # None can have been settled before this moment.
    since = {(identity, name): moment for identity, name, moment in settled}
    return Result(
        claims=Counter((identity, name) for identity, name, _ in claimed),
        settled=Counter((identity, name) for identity, name, _ in settled),
        too_early=[
            identity
            for identity, name, moment in claimed
            if name == "qualified" and moment <= since[identity, "registered"]
        ],
        seconds=max(each[3] for each in done) - min(each[2] for each in done),
        counts=counts,
    )
