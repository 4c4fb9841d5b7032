"""``deliver``: send what is due, once or as a service."""

from __future__ import annotations

import contextlib
import signal
import sys

import click

from ...clock import milliseconds
from ...delivery import Senders
from ...delivery import ThreadEngine
from ...state import State
from ..health import examine
from .site import wait_for_a_signal
from .site import with_site

#: Pending events from which on ``deliver`` shows its progress.
_MUCH = 50


@click.command()
@click.option("--forever", is_flag=True, help="Keep on until stopped: for a service.")
@click.option("--now", is_flag=True, help="Do not wait for pauses after failures.")
@with_site
def deliver(state: State, forever: bool, now: bool) -> None:
    """Send what is due, and give due rewards.

    Once a cause is fixed, --now tries at once what would be retried later.
    """
    if now:
        state.outbox.resume(milliseconds())
    if forever:
        _deliver_forever(state)
        return
    delivery = state.make_delivery()
    due = state.outbox.inspector.summary().counts.get("pending", 0)
    handled = 0
    run = Senders(state.settings.concurrency).run
    quiet = due < _MUCH or not sys.stderr.isatty()
    bar = click.progressbar(length=due, label="Sending", file=sys.stderr)
    with contextlib.nullcontext() if quiet else bar:
        while count := delivery.step(run):
            handled += count
            if not quiet:
                bar.update(count)
    counts = sorted(delivery.counts.items())
    became = ", ".join(f"{n:,} {name}" for name, n in counts if name != "pending")
    if not became:
        became = f"{handled:,} tried, none accepted" if handled else "Nothing was due"
    waiting = state.outbox.inspector.summary().counts.get("pending", 0)
    click.echo(f"{became}; {waiting:,} pending.")
    health = examine(state, delivery.now())
    if health.level != "good":
        click.echo(str(health))
    if health.level == "bad":
        sys.exit(1)


def _deliver_forever(state: State) -> None:
    # The engine's own thread works, so that a signal finds this one with empty hands.
    engine = ThreadEngine(state.make_delivery, state.settings.concurrency)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    click.echo("Delivering until stopped (Ctrl+C).", err=True)
    try:
        engine.wake()
        wait_for_a_signal()
    finally:
        engine.stop()
