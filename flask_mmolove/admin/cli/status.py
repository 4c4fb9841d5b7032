"""``status``: the health, the funnel and the counts."""

from __future__ import annotations

import json
import sys
import typing as t

import click

from ...clock import milliseconds
from ...errors import OutboxError
from ...outbox.inspector import Summary
from ...state import State
from ...text import mask
from ..funnel import periods
from ..funnel import read_days
from ..health import Health
from ..health import survey
from ..health import unreadable_outbox
from ..wording import ago
from ..wording import approximate
from ..wording import counted
from ..wording import MANY
from ..wording import NEEDS_ACTION
from ..wording import plural
from ..wording import STATES
from ..wording import uncounted
from ..wording import unreferred
from .site import json_option
from .site import print_health
from .site import with_site


@click.command()
@json_option
@with_site
def status(state: State, as_json: bool) -> None:
    """Show what needs attention, and how far referred players got.

    A monitor reads 'health.level' of --json: ok, warning or critical. The exit status
    is 1 if the outbox cannot be read.
    """
    try:
        summary = state.outbox.inspector.summary(MANY)
    except OutboxError as e:
        _print_trouble(unreadable_outbox(e), as_json)
        sys.exit(1)
    spooled = len(state.spool.read())
    now = milliseconds()
    found = survey(state, now)
    if as_json:
        data = {"health": found[0]._asdict()} | _status_data(summary, now)
        data["problems"] = [each._asdict() for each in found if each.level != "ok"]
        data["spooled"] = spooled
        click.echo(json.dumps(data))
        return
    for health in found:
        print_health(health)
    click.echo()
    settings = state.settings
    click.echo(f"server    {settings.server_id} at {mask(settings.endpoint)}")
    click.echo(f"outbox    {state.outbox}")
    dry = ", every event a dry run (MMOLOVE_TEST)" if settings.test else ""
    click.echo(f"delivery  {settings.delivery}{dry}")
    click.echo()
    _print_funnel(state, summary, now)
    _print_counts(summary)
    if spooled:
        events = plural(spooled, "event")
        click.echo(f"\nThe spool has {events} more, for the next delivery to import.")
    if summary.oldest is not None:
        waited = ago(summary.oldest, now)
        click.echo(f"\nThe oldest pending event has waited for {waited}.")


def _print_trouble(health: Health, as_json: bool) -> None:
    if as_json:
        found = health._asdict()
        click.echo(json.dumps({"health": found, "problems": [found]}))
    else:
        print_health(health)


def _print_counts(summary: Summary) -> None:
    if not summary.counts:
        click.echo("No events yet: no player who had a token was reported.")
    shown = {name: counted(count) for name, count in summary.counts.items()}
    width, column = max(map(len, STATES)), max(map(len, shown.values()), default=0)
    for name, meaning in STATES.items():
        if name in shown:
            where = f": see {NEEDS_ACTION[name]}" if name in NEEDS_ACTION else ""
            click.echo(f"{name:<{width}} {shown[name]:>{column}}  {meaning}{where}")
    if summary.waiting:
        click.echo(f"\n{_waiting(summary)}")


def _waiting(summary: Summary) -> str:
    verb = "waits" if summary.waiting == 1 else "wait"
    more = " or more" if summary.counts["pending"] >= MANY else ""
    words = (
        f"{plural(summary.waiting, 'milestone')}{more} {verb} until MMOLove has "
        "accepted the player's signup."
    )
    if "rejected" not in summary.counts:
        return words
    return f"{words} If that was rejected, send it again: 'flask mmolove retry'."


def _print_funnel(state: State, summary: Summary, now: int) -> None:
    rows = periods(read_days(state.outbox.inspector, now))
    if any(step.players for step in rows[-1].steps):
        names = [f"{step.name:>10}" for step in rows[0].steps]
        click.echo(" ".join([f"{'':<9}", *names]))
        for period in rows:
            players = [f"{step.players:>10,}" for step in period.steps]
            click.echo(" ".join([f"{period.name:<9}", *players]))
        counts = (summary.counts.get(name, 0) for name in ("pending", "rejected"))
        arrivals, *_ = rows[-1].steps
        for words in (
            approximate(arrivals.players),
            uncounted(*counts),
            unreferred(rows[-1].unreferred),
        ):
            if words:
                click.echo(f"\n{words}")
        click.echo()


def _status_data(summary: Summary, now: int) -> dict[str, t.Any]:
    oldest = summary.oldest
    return {
        "counts": {name: summary.counts.get(name, 0) for name in STATES},
        "waiting_for_registered": summary.waiting,
        "oldest_pending_seconds": None if oldest is None else (now - oldest) // 1000,
        "breaker_open_since": summary.breaker.open_since,
        "breaker_reason": summary.breaker.reason,
    }
