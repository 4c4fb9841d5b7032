"""What an event costs in each place that an outbox can be, beside a row of the site.

For each place, in turns within the same minutes: a row of the site's own inserted and
committed; an event recorded on its own; the row and the event in one transaction, where
the outbox is in the site's session; and what a worker writes for each event, claim and
settlement, in batches and without the POST. Commits wait for the disk everywhere.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import tempfile
import time
import typing as t
from pathlib import Path

import click
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from example_app import servers
from flask_mmolove import MMOLove
from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.state import State

from .probes import token_of

#: Entries that a worker claims at once.
BATCH = 32

Times = dict[str, list[float]]


class Place:
    """A site with a table of its own, and an outbox in the same kind of place.

    :param url: Of the site's database; None for SQLite files.
    """

    def __init__(self, folder: Path, url: str | None) -> None:
        self.db = db = SQLAlchemy()

        class Player(db.Model):  # type: ignore[name-defined,misc]
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(String(50))

        self.player = Player
        self.app = Flask(__name__, instance_path=str(folder))
        self.app.config.update(
            SQLALCHEMY_DATABASE_URI=url or f"sqlite:///{folder / 'site.db'}",
            MMOLOVE_SERVER_ID="srv",
            MMOLOVE_REFERRAL_SECRET="s",
            MMOLOVE_DELIVERY="manual",
        )
        db.init_app(self.app)
        MMOLove(self.app, db=db if url else None)
        with self.app.app_context():
            db.create_all()
        self._numbers = itertools.count()

    def _next(self) -> tuple[str, Invitation]:
        """Another player, and by what that one came: a token counts once."""
        number = next(self._numbers)
        return str(number), Invitation(token_of(number))

    @property
    def state(self) -> State:
        return t.cast(State, self.app.extensions["mmolove"])

    def bare(self) -> None:
        """A row of the site."""
        name, _ = self._next()
        self.db.session.add(self.player(name=name))
        self.db.session.commit()

    def alone(self) -> None:
        """An event in a transaction of its own."""
        name, invitation = self._next()
        report = self.state.recorder.report(f"alone-{name}", invitation, "registered")
        self.state.recorder.record(report)

    def together(self) -> None:
        """Both in one, where the outbox is in the site's session."""
        if self.state.session is None:
            return
        name, invitation = self._next()
        player = self.player(name=name)
        self.db.session.add(player)
        report = self.state.recorder.report("", invitation, "registered")
        self.state.recorder.prepare(report, player).submit()
        self.db.session.commit()

    def deliver(self) -> int:
        """Claim a batch and settle it; gives how many entries that were."""
        outbox, now = self.state.outbox, milliseconds()
        entries = outbox.claim("pending", now, 60_000, BATCH)
        outbox.settle(
            [Settlement(each, "accepted", is_fact=True) for each in entries], now
        )
        return len(entries)


def measure(place: Place, rounds: int) -> Times:
    """Microseconds of each thing, in turns."""
    times: Times = {"bare": [], "alone": [], "together": [], "deliver": []}
    with place.app.app_context():
        for _ in range(rounds):
            for name in ("bare", "alone", "together"):
                for _ in range(BATCH // 2):
                    begun = time.perf_counter()
                    getattr(place, name)()
                    times[name].append((time.perf_counter() - begun) * 1e6)
            begun = time.perf_counter()
            if count := place.deliver():
                each = (time.perf_counter() - begun) * 1e6 / count
                times["deliver"].append(each)
    place.state.outbox.close()
    with place.app.app_context():
        place.db.engine.dispose()
    return times


@contextlib.contextmanager
def open_places() -> t.Iterator[dict[str, Place]]:
    with contextlib.ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory()))

        places = {"a file": Place(folder(), None)}
        for name, serve in (
            ("PostgreSQL", servers.postgresql),
            ("MariaDB", servers.mariadb),
        ):
            with contextlib.suppress(servers.Missing):
                url = stack.enter_context(serve(durable=True))
                places[name] = Place(folder(), url.render_as_string(False))
        yield places


@click.command()
@click.option("--rounds", default=20, show_default=True, help="Turns for each place.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def main(rounds: int, as_json: bool) -> None:
    """Measure what an event costs, as a ratio to a bare row of the site."""
    with open_places() as places:
        rows = {}
        for name, place in places.items():
            times = measure(place, rounds)
            middle = {key: statistics.median(all) for key, all in times.items() if all}
            rows[name] = middle
    if as_json:
        click.echo(json.dumps(rows))
        return
    click.echo("| outbox | bare row | event alone | both together | claim and settle |")
    click.echo("|---|---|---|---|---|")
    for name, row in rows.items():
        bare = row["bare"]
        shown = [f"{bare:.0f} µs"]
        for key in ("alone", "together", "deliver"):
            # Where the outbox has no part in the session nothing is done together.
            is_there = key != "together" or name != "a file"
            shown.append(f"{row[key] / bare:.2f} ×" if is_there else "")
        click.echo(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main(prog_name="python -m tests.benchmarks.scale")
