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

#: Pending events from which ``deliver`` shows its progress.
_MUCH = 50


@click.command()
@click.option("--forever", is_flag=True, help="Deliver until stopped, as a service.")
@click.option("--now", is_flag=True, help="Skip the pauses after failures.")
@with_site
def deliver(state: State, forever: bool, now: bool) -> None:
    """Ask for milestones, send what is due, and grant due rewards.

    Once the cause of a failure is fixed, --now retries at once.
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
    waiting = state.outbox.inspector.count("pending")
    click.echo(f"{became}; {waiting:,} pending.")
    health = examine(state, delivery.now())
    if health.level != "ok":
        click.echo(str(health))
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
