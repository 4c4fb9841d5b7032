"""Events in an outbox, and how far they get, without a site."""

from __future__ import annotations

import typing as t

from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.states import EntryState
from flask_mmolove.outbox.store import Outbox

SERVER_ID = "srv"

#: Milliseconds.
LEASE = 60_000


def add(
    outbox: Outbox,
    identity: str = "7",
    *names: str,
    token: str | None = None,
    now: int = 1000,
    server_id: str = SERVER_ID,
    test: bool = False,
    referrer: str | None = None,
    timeout: float | None = None,
) -> list[Entry]:
    """Record what happened to a player at one moment, a signup unless named."""
    token = f"tok-{identity}" if token is None else token
    note = Report(identity, token, names or ("registered",), test, now, referrer)
    return outbox.record(note, server_id, timeout)


def claim_one(outbox: Outbox, now: int = 1000) -> Entry:
    (entry,) = outbox.claim("pending", now, LEASE, 1)
    return entry


def through(outbox: Outbox, state: EntryState, now: int = 1000) -> Entry:
    """Settle what is to be sent next."""
    return outbox.settle(
        [Settlement(claim_one(outbox, now), state, is_fact=True)], now
    )[0]


def invite(
    outbox: Outbox,
    identity: str,
    referrer: str | None,
    name: str = "registered",
    *,
    test: bool = False,
) -> None:
    """Record an event of a player who came by another's link."""
    add(outbox, identity, name, test=test, referrer=referrer)


def pay(outbox: Outbox, state: EntryState, now: int = 1000) -> None:
    """Settle the reward of what was taken last."""
    (entry,) = outbox.inspector.page(state="accepted", limit=1)
    outbox.settle([Settlement(entry, state, is_fact=True)], now)


def explain(own: SQLiteOutbox, sql: str) -> list[t.Any]:
    return own.run(lambda db: db.execute(f"EXPLAIN QUERY PLAN {sql}", {}), writes=False)


def start_together(context: t.Any, work: t.Callable[..., None], where: object) -> None:
    """Let four processes do a work at the same moment."""
    barrier = context.Barrier(4)
    processes = [
        context.Process(target=work, args=(where, barrier, number))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4


def states(outbox: Outbox) -> dict[tuple[str, str], str]:
    """The state of each event, by player and name."""
    found = outbox.inspector.page(limit=99)
    return {(entry.identity, entry.event): entry.state for entry in found}
