"""SIGKILL in a Celery worker, and in its broker, while a site takes signups.

**What runs.** A site on PostgreSQL takes signups in requests and milestones beside
them, with ``MMOLOVE_DELIVERY="celery"``. A real worker with two children delivers and
rewards, over a real Valkey; a real beat sweeps once a second. The server meets some of
the posts with a fault, see ``server.py``. Now and then the worker is killed: mostly one
of its children, which Celery replaces, and each third time the main process with all
its children, and another is started. Celery's main process ends by itself where a child
dies before it was ready (``workers ended``); then another is started too, as a service
manager does. After every tenth kill the broker is killed, with every message that it
held, and started again a while later. At the end the server behaves, and the worker
delivers what is left. What then still waits for a lease of the killed to run out is
delivered with the clock moved on (``left to leases``).

**What is measured, and why it can fail.** As in ``soak.py``. That the kills hit the
moments that matter is shown by ``duplicate posts``. ``messages lost`` are those that
died with a broker: the sweep makes up for them.

**What is not.** The site itself is not killed here; ``soak.py`` does that. The
breaker's pauses shape the run, so there are fewer faults than there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import click

from example_app import servers

from . import processes
from .evidence import Evidence
from .report import Findings
from .report import harness
from .report import progress
from .server import Mood
from .server import StandIn
from .server import TAKEN
from .site import Site
from .site import warm_up

#: Seconds between two kills.
SOONEST, LATEST = 0.3, 1.0

#: Seconds between two signups.
PACE = 0.02

#: The share of posts that meet a fault.
RATE = 0.1

#: Seconds for which a broker that was killed is away, at the most.
AWAY = 2.0

#: Seconds in which the worker has to deliver what is left, and from which on a pause is
#: one that need not be waited for.
DRAIN = 120.0
LONG = 10.0

_BROKER = "RELIABILITY_BROKER"
_SITE = ("RELIABILITY_FOLDER", "RELIABILITY_ENDPOINT", "RELIABILITY_DATABASE")


def run(kills: int, each_broker: int = 10) -> Findings:
    """Kill a Celery worker and its broker while a site takes signups."""
    warm_up()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(processes.scratch())
        server = stack.enter_context(StandIn(Mood(rate=RATE)))
        broker = stack.enter_context(servers.valkey())
        url = stack.enter_context(servers.postgresql())
        database = url.render_as_string(hide_password=False)
        values = (str(folder), server.endpoint, database)
        os.environ.update(
            {_BROKER: broker.url, **dict(zip(_SITE, values, strict=True))}
        )
        beat = _start(folder, "beat", "--schedule", folder / "beat")
        stack.callback(beat.wait)
        stack.callback(beat.kill)
        worker = _Worker(folder)
        stack.callback(worker.kill)
        harness = os.getpid()
        signups = processes.fork(lambda: _sign_up(harness))
        figures = _kill(kills, each_broker, worker, broker)
        processes.kill(signups)
        server.behave(Mood())
        site = make_site()
        faults = _wait_for_the_end(site, worker)
        figures["workers_ended"] = worker.ended
        worker.kill()
        counts = site.state.outbox.inspector.summary().counts
        rewarded = counts.get("rewarded", 0)
        pending = counts.get("pending", 0)
        processes.was_killed(processes.fork(site.drain))
        counts = site.state.outbox.inspector.summary().counts
        figures["left_to_leases"] = pending + counts.get("rewarded", 0) - rewarded
        site.close()
        evidence = Evidence.of(folder, database=database)
        history = server.history()
    counters = evidence.weigh(history)
    return Findings(
        "celery",
        counters,
        figures={
            "kills": kills,
            **figures,
            "posts": len(history),
            "faults_met": sum(e.outcome == "fault" for e in history),
            "rewards": len(evidence.rewards) - counters.repeated_calls,
        },
        faults=evidence.faults() + faults,
    )


def make_site() -> Site:
    """The site as the environment describes it, in whichever process."""
    from celery import Celery

    from flask_mmolove.delivery.celery import BEAT_SCHEDULE

    folder, endpoint, database = (os.environ[name] for name in _SITE)
    site = Site(
        Path(folder), endpoint, database=database, delivery="celery", timeout=0.5
    )
    celery = Celery("reliability", broker=os.environ[_BROKER])
    celery.conf.beat_schedule = {
        name: {**entry, "schedule": 1.0} for name, entry in BEAT_SCHEDULE.items()
    }
    celery.conf.beat_max_loop_interval = 1
    celery.conf.broker_connection_retry_on_startup = True
    site.app.extensions["celery"] = celery
    return site


class _Worker:
    """A Celery worker with two children, as a process group."""

    def __init__(self, folder: Path) -> None:
        self.ended = 0
        self._folder = folder
        self.start()

    def start(self) -> None:
        self._process = _start(
            *(self._folder, "worker", "--pool", "prefork", "--concurrency", "2"),
            *("--without-gossip", "--without-mingle", "--hostname", "worker@here"),
        )

    def kill(self) -> None:
        """Kill it with its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def keep_up(self) -> None:
        """Start another if it has ended."""
        if self._process.poll() is not None:
            self.ended += 1
            self.kill()
            self.start()

    def kill_a_child(self) -> bool:
        """Kill one of the processes that run tasks, if it has any yet."""
        children = servers.children(self._process.pid)
        if len(children) < 2:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(children), signal.SIGKILL)
            return True
        return False


def _start(folder: Path, *command: str | Path) -> subprocess.Popen[bytes]:
    """Start a command of Celery."""
    celery = (sys.executable, "-m", "celery", "-A", "tests.reliability.celeryapp")
    with (folder / "celery.log").open("ab") as log:
        return subprocess.Popen(
            (*celery, *command, "--loglevel", "warning"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _kill(
    kills: int, each_broker: int, worker: _Worker, broker: servers.Broker
) -> dict[str, int]:
    counts = {"children_killed": 0, "workers_killed": 0, "brokers_killed": 0}
    counts["messages_lost"] = 0
    for number in progress(range(1, kills + 1), "Killing"):
        time.sleep(random.uniform(SOONEST, LATEST))
        worker.keep_up()
        if number % 3 and worker.kill_a_child():
            counts["children_killed"] += 1
        else:
            worker.kill()
            worker.start()
            counts["workers_killed"] += 1
            time.sleep(2)  # it has to work before it is killed again
        if number % each_broker == 0:
            counts["brokers_killed"] += 1
            counts["messages_lost"] += _waiting(broker)
            broker.kill()
            time.sleep(random.uniform(0, AWAY))
            broker.start()
    return counts


def _waiting(broker: servers.Broker) -> int:
    import redis

    with redis.Redis.from_url(broker.url) as client:
        return int(t.cast(int, client.llen("celery")))


def _sign_up(harness: int) -> None:
    """Sign up and qualify until killed."""
    site = make_site()
    random.seed()
    for number in itertools.count():
        if os.getppid() != harness:
            return
        player = f"{TAKEN if random.random() < 1 / 16 else ''}{number}"
        site.sign_up(player)
        if random.random() < 3 / 5:
            site.qualify(player)
        time.sleep(random.uniform(0, 2 * PACE))


def _wait_for_the_end(site: Site, worker: _Worker) -> list[str]:
    """Let the worker deliver what is left."""
    end = time.monotonic() + DRAIN
    while time.monotonic() < end:
        worker.keep_up()
        now = time.time() * 1000
        due = site.state.outbox.next_due(int(now))
        if due is None or due - now > LONG * 1000:
            return []
        time.sleep(0.2)
    return ["the worker did not come to an end"]


command = harness(
    click.option("--kills", default=100, show_default=True, help="How many."),
    click.option(
        "--each-broker",
        default=10,
        show_default=True,
        help="Kills for one of the broker.",
    ),
)(run)
