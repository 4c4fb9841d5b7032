"""What a signup pays for the event that is recorded, beside a bare commit and beside a
post in the view.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import statistics
import tempfile
import typing as t
from pathlib import Path

import requests

from example_app import servers
from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.outbox.report import make_event

from . import host
from .clock import in_turns
from .clock import ratios
from .clock import Work
from .probes import make_app
from .probes import TOKEN
from .probes import token_of
from .row import Row
from .scale import Place

_REPEATS = 7
_TIMES = 40

#: Seconds to MMOLove and back.
_AWAY = 0.05


@contextlib.contextmanager
def _bare_commit() -> t.Iterator[Work]:
    """A row as long as ours into a SQLite file, with the same durability."""
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder, "bare.db"), isolation_level=None)
        db.execute("PRAGMA journal_mode=TRUNCATE")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(
            "CREATE TABLE event (id INTEGER PRIMARY KEY, player TEXT, token TEXT,"
            " body BLOB, UNIQUE (player))"
        )
        numbers = itertools.count()

        def commit() -> None:
            db.execute("BEGIN IMMEDIATE")
            row = (str(next(numbers)), TOKEN, b"b" * 220)
            db.execute("INSERT INTO event (player, token, body) VALUES (?, ?, ?)", row)
            db.execute("COMMIT")

        yield commit
        db.close()


@contextlib.contextmanager
def _record(endpoint: str, delivery: str) -> t.Iterator[Work]:
    """``registered(player)``, in a site whose events go there."""
    settings = {"MMOLOVE_ENDPOINT": endpoint, "MMOLOVE_DELIVERY": delivery}
    with make_app(MMOLove, **settings) as app:
        numbers = itertools.count()

        def record() -> None:
            with app.app_context():
                player = str(next(numbers))
                registered(player, token=token_of(player))

        yield record


def measure_session() -> t.Iterator[Row]:
    """What the event adds to a signup's commit, where both are one transaction."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.postgresql(durable=True) as url,
    ):
        place = Place(Path(folder), url.render_as_string(hide_password=False))
        with place.app.app_context():
            bares, both = in_turns(_REPEATS, _TIMES, place.bare, place.together)
        place.state.outbox.close()
        with place.app.app_context():
            place.db.engine.dispose()
    ms = [statistics.median(all) * 1000 for all in (both, bares)]
    yield Row(
        "what the event adds, same transaction",
        "the commit of a row, PostgreSQL",
        [one / other - 1 for one, other in zip(both, bares, strict=True)],
        0.8,
        note=f"{ms[0]:.2f} ms and {ms[1]:.2f} ms",
    )


def measure_signup() -> t.Iterator[Row]:
    """One signup after another."""
    with (
        _bare_commit() as bare,
        host.serve(latency=_AWAY) as away,
        host.serve() as well,
        _record(away, "manual") as record,
        _record(well, "thread") as while_well,
        _record("http://127.0.0.1:9/events", "thread") as while_down,
        requests.Session() as session,
    ):
        body = make_event("registered", "7", TOKEN, "srv", 10**12, False).encode()
        post = in_turns(3, 5, lambda: session.post(away, data=body, timeout=10))[0]
        times = in_turns(_REPEATS, _TIMES, bare, record, while_well, while_down)
    bares, records, wells, downs = times
    ms = [statistics.median(all) * 1000 for all in (*times, post)]
    yield Row(
        "a signup's event on disk",
        "a bare SQLite commit",
        ratios(records, bares),
        1.25,
        note=f"{ms[1]:.2f} ms, {ms[0]:.2f} ms",
    )
    yield Row(
        "the same while MMOLove is down",
        "while MMOLove answers and events go out",
        ratios(downs, wells),
        1,
        note=f"{ms[3]:.2f} ms, {ms[2]:.2f} ms",
    )
    yield Row(
        "a post in the view, 50 ms away",
        "a signup's event on disk",
        [statistics.median(post) / each for each in records],
        45,
        is_least=True,
        note=f"{ms[4]:.0f} ms",
    )
