"""A round of ``@mmolove.milestone`` beside the bare query for the same friends."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
import typing as t
from pathlib import Path

from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.report import Report
from flask_mmolove.state import State

from .row import Row

#: Friends who have signed up, and of whom none will ever qualify.
FRIENDS = 100_000

_REPEATS = 5
_BATCH = 5000

_QUERY = """
SELECT identity FROM event friend
WHERE event = 'registered' AND test = 0 AND state IN ('pending', 'accepted')
AND NOT EXISTS (
    SELECT 1 FROM event milestone WHERE milestone.identity = friend.identity
    AND milestone.event = 'qualified' AND milestone.test = friend.test
)
"""


def measure_round() -> t.Iterator[Row]:
    """Ask about all friends, in calls of 500."""
    with tempfile.TemporaryDirectory() as folder:
        app = Flask(__name__, instance_path=folder)
        app.config.update(
            SECRET_KEY="-",
            MMOLOVE_SERVER_ID="srv",
            MMOLOVE_REFERRAL_SECRET="-",
            MMOLOVE_DELIVERY="manual",
        )
        MMOLove(app).milestone(lambda friends: [])
        state: State = app.extensions["mmolove"]
        _fill(state)
        with contextlib.closing(sqlite3.connect(Path(folder, "mmolove.db"))) as db:
            runs = [(_ask(state), _query(db)) for _ in range(_REPEATS)]
        state.outbox.close()
    ratios = [ours / bare for ours, bare in runs]
    seconds = min(ours for ours, _ in runs)
    note = f"{FRIENDS // 1000} k friends in {seconds:.2f} s, every five minutes"
    yield Row("a round of milestones", "the bare query", ratios, 20, note=note)


def _fill(state: State) -> None:
    now = milliseconds()
    for first in range(0, FRIENDS, _BATCH):
        reports = [
            Report(str(player), f"tok-{player}", ["registered"], False, now)
            for player in range(first, first + _BATCH)
        ]
        state.outbox.record_all(reports, "srv")


def _ask(state: State) -> float:
    outbox = state.outbox
    # The next round is due at once.
    outbox.run(lambda db: db.set_fact("milestone", "{}"))
    begun = time.perf_counter()
    assert state.asker.ask() == FRIENDS
    return time.perf_counter() - begun


def _query(db: sqlite3.Connection) -> float:
    begun = time.perf_counter()
    assert len(db.execute(_QUERY).fetchall()) == FRIENDS
    return time.perf_counter() - begun
