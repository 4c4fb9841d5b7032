"""``deliver``: send what is due, once or as a service."""

from __future__ import annotations

import signal
import sys

import click

from ...clock import milliseconds
from ...delivery.senders import Senders
from ...delivery.thread import ThreadEngine
from ...state import State
from ..health import examine
from .site import print_health
from .site import progress
from .site import wait_for_a_signal
from .site import with_site


@click.command()
@click.option("--forever", is_flag=True, help="Run until stopped, as a service.")
@click.option(
    "--now", is_flag=True, help="Retry at once what is waiting after a failure."
)
@with_site
def deliver(state: State, forever: bool, now: bool) -> None:
    """Send due events, and grant due rewards.

    First it calls the site's @mmolove.milestone, if there is one. The exit status is
    1 if nothing gets through.
    """
    if now:
        state.outbox.resume(milliseconds())
    if forever:
        _deliver_forever(state)
        return
    state.asker.ask()
    delivery = state.make_delivery()
    due = state.outbox.inspector.count("pending")
    handled = 0
    run = Senders(state.settings.concurrency).run
    with progress(due, "Sending") as bar:
        while count := delivery.step(run):
            handled += count
            bar.update(count)
    counts = sorted(delivery.counts.items())
    became = ", ".join(
        f"{n:,} {name.replace('_', ' ')}" for name, n in counts if name != "pending"
    )
    if not became:
        became = f"{handled:,} tried, none accepted" if handled else "Nothing was due"
    waiting = state.outbox.inspector.count("pending")
    click.echo(f"{became}; {waiting:,} pending.")
    health = examine(state, delivery.now())
    if health.level != "ok":
        print_health(health)
    if health.level == "critical":
        sys.exit(1)


def _deliver_forever(state: State) -> None:
    # The engine's thread does the work, so that a signal interrupts nothing.
    engine = ThreadEngine(state.make_delivery, state.settings.concurrency)
    engine.ask_by(state.asker)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    click.echo("Delivering until stopped (Ctrl+C).", err=True)
    try:
        engine.wake()
        wait_for_a_signal()
    finally:
        engine.stop()
