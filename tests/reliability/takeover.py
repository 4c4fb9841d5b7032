"""How soon another process takes over what a killed one was at work on.

**What runs.** Three processes of one site, with the leases that sites have. One hangs
in the reward callback, one while it sends an event, and one is idle. Both are killed
with SIGKILL, and the idle one has to find out and do both.

**What is measured, and why it can fail.** The seconds from the kill to the second call
of the callback, and to the event's arrival at the server. More than thirty are a fault,
on a file and in each database.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from functools import partial

import click

from example_app import servers
from flask_mmolove import Referral
from flask_mmolove import ReferralClient
from flask_mmolove.delivery.lease import LEASE

from . import processes
from .report import Findings
from .report import harness
from .server import Mood
from .server import StandIn
from .site import hasten_leases
from .site import KEYS
from .site import read_diary
from .site import Site
from .site import warm_up

#: Seconds within which it has to be taken over, and after which nobody waits any more.
PROMISED, WAITED = 30.0, 60.0

#: The players whose reward is granted, and whose event is sent, when the kill comes.
REWARDED, SENT = "rewarded", "sent"

#: What can be tried, and how each database is started.
STORES: dict[str, t.Callable[[], t.ContextManager[t.Any]] | None] = {
    "file": None,
    "postgresql": partial(servers.postgresql, durable=True),
    "mariadb": partial(servers.mariadb, durable=True),
}


def run(store: tuple[str, ...]) -> Findings:
    """Kill who sends and who grants, and wait for another."""
    warm_up()
    rows = [_try(name) for name in store or STORES]
    return Findings(
        "takeover",
        rows=rows,
        faults=[
            f"{row['store']}: taken over after {row[what]} s"
            for row in rows
            for what in ("event", "reward")
            if row[what] > PROMISED
        ],
    )


def _try(store: str) -> dict[str, t.Any]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(processes.scratch())
        server = stack.enter_context(StandIn(Mood()))
        start, url = STORES[store], None
        if start is not None:
            where = stack.enter_context(start())
            url = where.render_as_string(hide_password=False)
        site = HangingSite(folder, server.endpoint, database=url, delivery="thread")
        hasten_leases(LEASE)
        granting = _start(site.grant)
        idle = _start(site.wait)
        sending = _start(site.send)
        since = time.monotonic()
        for pid in (granting, sending):
            processes.kill(pid)
        event = reward = WAITED
        while max(event, reward) == WAITED and time.monotonic() - since < WAITED:
            time.sleep(0.05)
            arrived = [each.server_event_id for each in server.history()]
            now = time.monotonic() - since
            if KEYS["registered"] + SENT in arrived:
                event = min(event, now)
            if read_diary(folder, "R"):
                reward = min(reward, now)
        processes.kill(idle)
        site.close()
    return {"store": store, "event": round(event, 1), "reward": round(reward, 1)}


class HangingSite(Site):
    """One that hangs in the middle of its work, where it is told to."""

    _tell: t.Callable[[], object] | None = None

    def grant(self, tell: t.Callable[[], object]) -> None:
        """Hang in the reward callback, once it is called."""
        self._tell = tell
        self.sign_up(REWARDED)
        self.qualify(REWARDED)

    def send(self, tell: t.Callable[[], object]) -> None:
        """Hang while an event is sent."""

        def hang(client: ReferralClient, body: bytes) -> t.NoReturn:
            _hang(tell)

        ReferralClient.send = hang  # type: ignore[assignment, method-assign]
        self.sign_up(SENT)

    def wait(self, tell: t.Callable[[], object]) -> None:
        """Be idle."""
        self.app.test_client().get("/")  # its first request starts its delivery
        while self.state.outbox.inspector.worker() is None:
            time.sleep(0.01)
        time.sleep(0.5)  # for its last look
        tell()

    def _reward(self, referral: Referral) -> None:
        if self._tell is not None:
            _hang(self._tell)
        super()._reward(referral)


def _start(work: t.Callable[[t.Callable[[], object]], None]) -> int:
    """A process that does something, and has come to where it stays."""
    reader, writer = os.pipe()

    def child() -> None:
        work(lambda: os.write(writer, b"!"))
        time.sleep(2 * WAITED)

    pid = processes.fork(child)
    os.close(writer)
    told = os.read(reader, 1)
    os.close(reader)
    if not told:
        raise RuntimeError("A process ended before it was at work.")
    return pid


def _hang(tell: t.Callable[[], object]) -> t.NoReturn:
    tell()
    time.sleep(2 * WAITED)
    raise RuntimeError("Nobody killed it.")


command = harness(
    click.option(
        "--store",
        multiple=True,
        type=click.Choice(list(STORES)),
        help="Try only this one; may be repeated.",
    )
)(run)
