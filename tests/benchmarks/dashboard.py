"""How long the dashboard's pages take over a million events.

Signups of a year: half of the players qualified, and of a thousand events one is
rejected, one reward unconfirmed and one to be sent. The rows are written past the
outbox, for what is measured is the reading; the counts of the days are written as the
outbox would.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
import typing as t
from collections import Counter
from datetime import date
from datetime import timedelta
from pathlib import Path

import click
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy import delete
from sqlalchemy import insert
from sqlalchemy import MetaData

from flask_mmolove import MMOLove
from flask_mmolove.admin.wording import MANY
from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.counters import DAY
from flask_mmolove.outbox.counters import Mark
from flask_mmolove.outbox.counters import taken
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.rules import new_entry
from flask_mmolove.outbox.sql.tables import tables
from flask_mmolove.outbox.states import EntryState
from flask_mmolove.outbox.store import Outbox

_ANSWER = '{"ok":true,"referral_id":"rfl_d3c0d7105b581c12","state":"registered"}'
_TIMES = 20

# A day in the middle of the year.
_AT_MIDYEAR = date.today() - timedelta(182)


def make_entries(count: int, waiting: bool) -> t.Iterator[Entry]:
    """Entries of a year, oldest first.

    :param waiting: Whether nothing was sent yet: a year's outage.
    """
    now = milliseconds()
    for number in range(count):
        moment = now - (count - number) * 365 * DAY // count
        player = str(number // 3 * 2 + (number % 3 > 1))
        name = "qualified" if number % 3 == 1 else "registered"
        event = make_event(name, player, f"tok-{player:>060}", "srv", moment, False)
        # One in three came by an invite link, of the first hundred thousand players.
        by = str(int(player) ** 2 % 100_003) if int(player) % 3 == 0 else None
        entry = new_entry(player, event, ("pending", moment), moment, by)
        state: EntryState = "rewarded" if name == "qualified" else "accepted"
        odd: dict[int, EntryState] = {
            1: "reward_unconfirmed",
            500: "rejected",
            999: "pending",
        }
        state = "pending" if waiting else odd.get(number % 1000, state)
        if state != "pending":
            entry = entry._replace(due=None, settled=moment + 900, status=200)
        yield entry._replace(id=number + 1, state=state, answer=_ANSWER)


def fill(outbox: Outbox, url: str, prefix: str, entries: t.Iterator[Entry]) -> None:
    """Write entries and their counts into tables that are there."""
    known = tables(MetaData())
    known.event.name = f"{prefix}event"
    counts: t.Counter[Mark] = Counter()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(delete(known.event))
        while batch := list(itertools.islice(entries, 5000)):
            connection.execute(insert(known.event), [e._asdict() for e in batch])
            for entry in batch:
                counts.update(taken(entry))
    outbox.run(lambda db: db.count(counts.elements()))
    if not url.startswith("sqlite"):
        # As the servers do by themselves; SQLite never does.
        with engine.connect() as connection:
            table = " TABLE" if "mariadb" in url or "mysql" in url else ""
            connection.exec_driver_sql(f"ANALYZE{table} mmolove_event")
            connection.commit()
    engine.dispose()


@click.command()
@click.option("--events", default=1_000_000, show_default=True)
@click.option("--url", help="Of a database; else a file of the outbox's own.")
@click.option("--waiting", is_flag=True, help="None of them was sent yet.")
def main(events: int, url: str | None, waiting: bool) -> None:
    """Fill an outbox and time the dashboard's pages over it."""
    with tempfile.TemporaryDirectory() as folder:
        app = Flask(__name__, instance_path=folder)
        app.config.update(
            SECRET_KEY="-", MMOLOVE_SERVER_ID="srv", MMOLOVE_REFERRAL_SECRET="-"
        )
        app.config.update(MMOLOVE_DELIVERY="manual", MMOLOVE_OUTBOX=url)
        mmolove = MMOLove(app)
        page = mmolove.dashboard(access=lambda: True)
        app.register_blueprint(page, url_prefix="/mmolove")
        outbox = app.extensions["mmolove"].outbox
        outbox.inspector.count("pending")  # makes the tables
        file = f"sqlite:///{Path(folder, 'mmolove.db')}"
        prefix = "mmolove_" if url else ""
        fill(outbox, url or file, prefix, make_entries(events, waiting))
        _time_pages(app, events)
        outbox.close()


def _time_pages(app: Flask, events: int) -> None:
    client = app.test_client()
    middle = events // 2
    for path in (
        "/",
        "/events",
        f"/events?before={middle}",
        "/events?state=accepted",
        f"/events?state=accepted&before={middle}",
        "/events?state=rejected",
        "/events?player=666",
        "/events?referrer=36",
        f"/events?event=qualified&before={middle}",
        f"/events?since={_AT_MIDYEAR}&until={_AT_MIDYEAR}",
        f"/events/{middle}",
        "/retry",
    ):
        times = []
        for _ in range(_TIMES):
            begun = time.perf_counter()
            response = client.get(f"/mmolove{path}")
            times.append((time.perf_counter() - begun) * 1000)
            assert response.status_code == 200, response.text
        median = statistics.median(times)
        click.echo(f"{path:<40} {median:>7.1f} ms, at most {max(times):>7.1f} ms")
    begun = time.perf_counter()
    app.extensions["mmolove"].outbox.inspector.summary(MANY)
    seconds = (time.perf_counter() - begun) * 1000
    click.echo(f"{'flask mmolove status, its counts':<40} {seconds:>7.1f} ms")


if __name__ == "__main__":
    main()
