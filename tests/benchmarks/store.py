"""What the outbox costs when a million events wait in it, and when none does."""

from __future__ import annotations

import functools
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.sqlite.store import SQLiteTransaction
from flask_mmolove.signals import event_accepted

from . import host
from .dashboard import fill
from .dashboard import make_entries
from .instructions import count
from .probes import CLAIMED
from .probes import make_app
from .probes import token_of
from .row import Row

_MANY = 1_000_000
_FEW = 10_000

#: What was wanted: instructions and bytes of an event, MiB of a process.
_INSTRUCTIONS = 30_000
_BYTES = 500
_MIB = 4

#: Seconds for which a site is watched that has nothing to do.
_IDLE = 60
_STATEMENTS = 6
_AWAKE_MS = 20


def measure_pending() -> t.Iterator[Row]:
    """Claim and settle, memory and disk, with few events that wait and with many."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_fill(Path(folder, f"{n}.db"), n) for n in (_FEW, _MANY))
        size = many.stat().st_size / _MANY
        memory = [_peak(few), _peak(many)]
        other = shutil.copy(few, Path(folder, "other.db"))
        bare, *costs = [
            count(probe, str(path), turns=(10, 60)) / CLAIMED
            for probe, path in (("stated", other), ("claimed", few), ("claimed", many))
        ]
    words = f"{costs[1] / 1e3:.0f} k, the bare statements {bare / 1e3:.0f} k"
    yield Row(
        f"claim and settle, {_MANY:,} pending",
        f"{_INSTRUCTIONS / 1e3:.0f} k instructions an event",
        [costs[1] / _INSTRUCTIONS],
        1,
        note=words,
    )
    yield Row(
        f"claim and settle, {_MANY:,} pending",
        f"with {_FEW:,} pending",
        [costs[1] / costs[0]],
        1.1,
        note=f"{costs[1] / 1e3:.1f} k and {costs[0] / 1e3:.1f} k instructions",
    )
    yield Row(
        f"memory of a process, {_MANY:,} pending",
        f"{_MIB} MiB more than with {_FEW:,}",
        [(memory[1] - memory[0]) / _MIB],
        1,
        note=f"{memory[1]:.1f} MiB and {memory[0]:.1f} MiB at most",
    )
    yield Row(
        "disk",
        f"{_BYTES} bytes an event",
        [size / _BYTES],
        1,
        note=f"{size:.0f} bytes",
    )


def _fill(path: Path, events: int) -> Path:
    outbox = SQLiteOutbox(path)
    outbox.create()
    fill(outbox, f"sqlite:///{path}", "", make_entries(events, waiting=True))
    outbox.close()
    return path


def _peak(path: Path) -> float:
    """The memory of a process that delivers from there, at its most, in MiB."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.probes",
        "claimed",
        "5",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def measure_idle() -> t.Iterator[Row]:
    """A site where nothing happens, and then something does."""
    statements = 0
    execute = SQLiteTransaction.execute

    @functools.wraps(execute)
    def counted(*args: t.Any, **kwargs: t.Any) -> t.Any:
        nonlocal statements
        statements += 1
        return execute(*args, **kwargs)

    with (
        host.serve() as endpoint,
        make_app(MMOLove, MMOLOVE_ENDPOINT=endpoint) as app,
        app.app_context(),
    ):
        accepted = threading.Event()
        receiver = functools.partial(_hear, accepted)
        event_accepted.connect(receiver, app)
        _report("first", accepted)  # loads what a delivery needs
        time.sleep(3)
        SQLiteTransaction.execute = counted  # type: ignore[method-assign]
        try:
            time.sleep(_IDLE)
            idle = statements
        finally:
            SQLiteTransaction.execute = execute  # type: ignore[method-assign]
        waits = [_report(str(number), accepted) for number in range(20)]
    yield Row(
        "statements a minute, nothing to do",
        f"{_STATEMENTS} a minute",
        [idle / _STATEMENTS],
        1,
        note=f"{idle}",
    )
    yield Row(
        "from a signup to MMOLove's answer taken",
        f"{_AWAKE_MS} ms",
        [1000 * wait / _AWAKE_MS for wait in waits],
        1,
        note=f"{1000 * statistics.median(waits):.1f} ms",
    )


def _hear(accepted: threading.Event, sender: object, **arguments: t.Any) -> None:
    accepted.set()


def _report(player: str, accepted: threading.Event) -> float:
    accepted.clear()
    begun = time.perf_counter()
    registered(player, token=token_of(player))
    assert accepted.wait(20)
    return time.perf_counter() - begun
