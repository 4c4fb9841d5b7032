"""Eight processes that create or migrate one outbox at the same moment.

Measured: whether each of them gets its event in, with the timeout of a request, and
whether the file is whole afterwards. In turn there is no file yet, an empty one, and
one of an older schema. It can fail: to run a migration twice is an error, so who comes
second must see that it is done. The processes wait at a pipe, so that they begin
together; in how many rounds at least two were inside at once is counted, for a race in
which nobody meets anybody shows nothing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import struct
import time
from functools import partial
from pathlib import Path

import click

from flask_mmolove.outbox.sqlite import schema
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.recording.recorder import REQUEST_TIMEOUT
from tests.outbox.recording import add

from . import processes
from .report import Counters
from .report import Findings
from .report import harness
from .report import progress

PROCESSES = 8

#: What they find.
STARTS = ["no file", "an empty file", "an older schema"]

#: A schema to come: to run it twice is an error.
MIGRATIONS = [*schema.MIGRATIONS, "ALTER TABLE event ADD COLUMN note TEXT"]

#: What each process says at its end: when it began and when its event was in.
_TIMES = struct.Struct("dd")


def run(rounds: int) -> Findings:
    """Start eight processes at once on one new file, again and again."""
    counters = Counters()
    faults: list[str] = []
    meetings = 0
    slowest = 0.0
    with processes.scratch() as folder:
        old = folder / "old.db"
        _add(SQLiteOutbox(old), "0")
        for number in progress(range(rounds), "Racing"):
            start = STARTS[number % len(STARTS)]
            path = folder / f"{number}.db"
            if start == "an empty file":
                path.touch()
            elif start == "an older schema":
                shutil.copy(old, path)
            times = _race(path)
            meetings += _met(times)
            slowest = max([slowest, *(end - begin for begin, end in times)])
            found = _read(path)
            told = PROCESSES + (start == "an older schema")
            counters += Counters(
                attempted=told,
                acknowledged=len(times) + told - PROCESSES,
                delivered=len(found),
                lost=told - len(found),
                file_intact=_is_whole(path),
            )
            if len(times) < PROCESSES:
                faults.append(f"{start}: {PROCESSES - len(times)} processes failed")
            path.unlink()
    return Findings(
        "startrace",
        counters,
        figures={
            "rounds": rounds,
            "rounds_in_which_two_met": meetings,
            "slowest_ms": round(slowest * 1000),
        },
        faults=faults if meetings else [*faults, "no two processes ever met"],
    )


def _race(path: Path) -> list[tuple[float, float]]:
    """Let all begin at once, and give their times; who failed has none."""
    gate, opener = os.pipe()
    results, teller = os.pipe()

    def work(name: str) -> None:
        os.close(opener)
        os.read(gate, 1)
        begin = time.monotonic()
        outbox = SQLiteOutbox(path)
        outbox._db._schema = schema.Schema(MIGRATIONS, schema.SIGNS)
        _add(outbox, name)
        os.write(teller, _TIMES.pack(begin, time.monotonic()))

    names = map(str, range(1, PROCESSES + 1))
    pids = [processes.fork(partial(work, name)) for name in names]
    os.close(opener)
    for pid in pids:
        os.waitpid(pid, 0)
    for descriptor in (gate, teller):
        os.close(descriptor)
    with open(results, "rb") as file:
        return sorted(_TIMES.iter_unpack(file.read()))


def _add(outbox: SQLiteOutbox, name: str) -> None:
    add(outbox, name, now=1_790_000_000_000, timeout=REQUEST_TIMEOUT)
    outbox.close()


def _met(times: list[tuple[float, float]]) -> bool:
    """Whether at least two were inside at once."""
    pairs = itertools.pairwise(times)
    return any(second[0] < first[1] for first, second in pairs)


def _read(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT identity FROM event").fetchall()
    connection.close()
    return {identity for (identity,) in rows}


def _is_whole(path: Path) -> bool:
    connection = sqlite3.connect(path)
    verdict = connection.execute("PRAGMA integrity_check").fetchall()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return verdict == [("ok",)] and version == len(MIGRATIONS)


command = harness(
    click.option("--rounds", default=50, show_default=True, help="How many races."),
)(run)
command.name = "startrace"
