"""SIGKILL at random moments, with the outbox in the site's own database.

**What runs.** As in ``soak.py``: two workers of one site sign up, qualify, deliver and
reward, the server meets a quarter of the posts with a fault, and every 5 to 60 ms a
worker is killed. But the site has accounts and gifts in tables of its own, and the
outbox stands beside them (``MMOLove(app, db=db)``). A signup makes an account, hands it
over before the commit, or in one of four after it, and commits. A milestone is a change
of the account and a commit; with ``--milestone`` the game alone knows it, and the site
asks. The reward callback adds a gift and looks for no earlier one.

With ``--server-kills`` PostgreSQL is killed too, with all its processes, and started
again on the same data a while later. What fails meanwhile is not acknowledged. The
workers live through it, and each has to have an event acknowledged afterwards before
the next kill.

**What is measured, and why it can fail.** As in ``soak.py``, and two things more. The
tables are compared: a change that was committed without its event (``changes without
event``: an account that was handed over before the commit, or a milestone), and an
event in the outbox or at MMOLove whose change is not there (``events without change``).
And nothing honours the key of a reward: ``double rewards`` counts each second gift and
``missing rewards`` each credited referral without one. ``repeated calls`` are those of
a callback whose first attempt was killed before its commit: there have to be some.

**What is not.** The loss of power is not tried: the database waits for the disk, and
what it has given to the system survives a SIGKILL.
"""

from __future__ import annotations

import contextlib
import random
import time
import typing as t
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click

from example_app import servers

from . import processes
from .accounts import AccountSite
from .accounts import Rows
from .evidence import Evidence
from .report import Findings
from .report import harness
from .report import progress
from .server import Arrival
from .server import Mood
from .server import StandIn
from .site import read_diary
from .site import warm_up
from .soak import RATE
from .soak import Workers

#: Seconds between two kills.
SOONEST, LATEST = 0.005, 0.060

#: Seconds between two signups of a worker.
PACE = 0.02

#: Seconds for which the database is away, at the most, and in which each worker has to
#: go on afterwards.
AWAY = 0.5
BACK = 20.0


def run(
    kills: int,
    server_kills: int = 0,
    pauses: int = 0,
    mariadb: bool = False,
    milestone: bool = False,
) -> Findings:
    """Kill a site whose database has the outbox as well."""
    if mariadb and server_kills:
        raise click.UsageError("--server-kills is for PostgreSQL.")
    warm_up()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(processes.scratch())
        server = stack.enter_context(StandIn(Mood(rate=RATE)))
        database: servers.Database | None = None
        if mariadb:
            where = stack.enter_context(servers.mariadb(durable=True))
        else:
            database = stack.enter_context(servers.postgresql_server(durable=True))
            where = database.url
        url = where.render_as_string(hide_password=False)
        site = AccountSite(
            folder,
            server.endpoint,
            url,
            outages=server_kills > 0,
            delivery="thread",
            timeout=0.3,
            asks=milestone,
        )
        faults = _soak(site, folder, kills, server_kills, database, pauses)
        server.behave(Mood())
        processes.was_killed(processes.fork(site.drain))
        history = server.history()
        rows = site.rows()
        evidence = Evidence.of(folder, database=url)
        site.close()
    report = weigh(evidence, rows, history)
    report.figures = {
        "kills": kills,
        "server_kills": server_kills,
        "pauses": pauses,
        **report.figures,
    }
    report.faults += faults
    return report


def weigh(evidence: Evidence, rows: Rows, history: t.Sequence[Arrival]) -> Findings:
    """Compare what the site was told, its tables, and the server's history."""
    # Each gift counts, as each call of an at-most-once callback does.
    given = replace(evidence, rewards=rows.gifts, at_most_once=True)
    counters = given.weigh(history)
    calls = Counter(evidence.rewards)
    counters.repeated_calls = calls.total() - len(calls)
    arrived = {e.server_event_id for e in history if e.outcome != "fault"}
    without_event = rows.certain - evidence.states.keys()
    without_change = (evidence.states.keys() | arrived) - rows.made
    promised = {
        "changes_without_event": len(without_event),
        "events_without_change": len(without_change),
        "acknowledged_without_change": len(evidence.acknowledged - rows.made),
        "rewards_in_doubt": Counter(evidence.states.values())["reward_unconfirmed"],
    }
    return Findings(
        "database",
        counters,
        figures={
            **promised,
            "changes": len(rows.made),
            "posts": len(history),
            "faults_met": sum(e.outcome == "fault" for e in history),
            "rewards": len(rows.gifts),
        },
        faults=evidence.faults()
        + [f"{k.replace('_', ' ')}: {v}" for k, v in promised.items() if v],
    )


def _soak(
    site: AccountSite,
    folder: Path,
    kills: int,
    server_kills: int,
    database: servers.Database | None,
    pauses: int,
) -> list[str]:
    workers = Workers(site, PACE)
    faults: list[str] = []
    done = paused = 0
    for number in progress(range(1, kills + 1), "Killing"):
        time.sleep(random.uniform(SOONEST, LATEST))
        if database is not None and done * kills < number * server_kills:
            done += 1
            database.kill()
            time.sleep(random.uniform(0, AWAY))
            database.start()
            faults += _wait_for(workers.names, folder)
        if paused * kills < number * pauses:
            paused += 1
            workers.pause_one()
        workers.replace_one()
    workers.kill()
    return faults


def _wait_for(names: t.Sequence[str], folder: Path) -> list[str]:
    """Wait until each worker has an event acknowledged from now on."""
    before = len(read_diary(folder, "K"))
    deadline = time.monotonic() + BACK
    while time.monotonic() < deadline:
        told = read_diary(folder, "K")[before:]
        if {key.split("-")[-2] for key in told} >= set(names):
            return []
        time.sleep(0.02)
    return [f"a worker did not go on after the database did: {' '.join(names)}"]


command = harness(
    click.option("--kills", default=300, show_default=True, help="How many."),
    click.option(
        "--server-kills",
        default=0,
        show_default=True,
        help="How often the database is killed meanwhile, at most as often.",
    ),
    click.option(
        "--pauses",
        default=0,
        show_default=True,
        help="How often a worker is paused meanwhile, at most as often.",
    ),
    click.option("--mariadb", is_flag=True, help="In MariaDB, not in PostgreSQL."),
    click.option("--milestone", is_flag=True, help="Find milestones by asking."),
)(run)
