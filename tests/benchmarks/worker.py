"""Events through one process of a Celery worker, beside tasks that do nothing."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from example_app import servers
from flask_mmolove import registered

from . import host
from .probes import token_of
from .row import Row

_REPEATS = 3
_EVENTS = 500


def measure_celery() -> t.Iterator[Row]:
    """In turns, with a real worker and a real broker."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(servers.valkey())
        os.environ["BENCHMARKS_BROKER"] = broker.url
        os.environ["BENCHMARKS_FOLDER"] = str(folder)
        os.environ["BENCHMARKS_ENDPOINT"] = stack.enter_context(host.serve())
        stack.enter_context(_worker())
        tasks, events = [], []
        for turn in range(_REPEATS):
            tasks.append(_tasks_a_second(folder / f"begun-{turn}", folder / str(turn)))
            events.append(_events_a_second(turn))
        _close()
    yield Row(
        "events a second, a Celery process",
        "tasks that do nothing",
        [one / other for one, other in zip(events, tasks, strict=True)],
        0.7,
        is_least=True,
        note=f"{statistics.median(events):,.0f}/s, {statistics.median(tasks):,.0f}/s",
    )


@contextlib.contextmanager
def _worker() -> t.Iterator[None]:
    site = "tests.benchmarks.celerysite:celery_app"
    command = [sys.executable, "-m", "celery", "-A", site, "-q", "worker"]
    options = ["--concurrency", "1", "--loglevel", "critical"]
    quiet = subprocess.DEVNULL
    worker = subprocess.Popen([*command, *options], stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def _tasks_a_second(begun: Path, ended: Path) -> float:
    from .celerysite import mark
    from .celerysite import nothing

    mark.delay(str(begun))
    for _ in range(_EVENTS):
        nothing.delay()
    mark.delay(str(ended))
    moments = [_wait(path.read_text, FileNotFoundError) for path in (begun, ended)]
    return _EVENTS / (float(moments[1]) - float(moments[0]))


def _events_a_second(turn: int) -> float:
    from .celerysite import site

    outbox = site.extensions["mmolove"].outbox
    with site.app_context():
        for number in range(_EVENTS):
            player = f"{turn}-{number}"
            registered(player, token=token_of(player))

    def settled() -> list[int]:
        found = outbox.inspector.page(state="accepted", limit=_EVENTS)
        moments = [e.settled for e in found if e.identity.startswith(f"{turn}-")]
        if len(moments) < _EVENTS:
            raise LookupError
        return moments

    moments = _wait(settled, LookupError)
    # Those of the first commit are there when the clock begins.
    later = sum(moment > min(moments) for moment in moments)
    return 1000 * later / (max(moments) - min(moments))


R = t.TypeVar("R")


def _wait(ask: t.Callable[[], R], not_yet: type[Exception]) -> R:
    end = time.monotonic() + 60
    while True:
        try:
            return ask()
        except not_yet:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def _close() -> None:
    from .celerysite import site

    state = site.extensions["mmolove"]
    state.engine.stop()
    state.outbox.close()
