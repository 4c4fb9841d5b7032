"""``retry``: send rejected events again."""

from __future__ import annotations

import json
import sys

import click

from ...state import State
from .. import actions
from ..wording import retried
from .site import json_option
from .site import show_entries
from .site import with_site


@click.command()
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--list", "listing", is_flag=True, help="Only list rejected events.")
@json_option
@with_site
def retry(state: State, ids: tuple[int, ...], listing: bool, as_json: bool) -> None:
    """Send rejected events again, once the cause is fixed.

    Without an ID, all of them.
    """
    if listing:
        rejected = state.outbox.inspector.page(state="rejected", limit=1000)
        show_entries(rejected, as_json, "No event is rejected.")
        return
    entries = actions.retry(state, ids or None)
    missing = sorted(set(ids) - {entry.id for entry in entries})
    if as_json:
        click.echo(json.dumps({"retried": [e.id for e in entries], "missing": missing}))
    else:
        click.echo(retried(len(entries)))
        if not (entries or ids):
            click.echo(
                "Pending events are retried automatically; 'flask mmolove deliver "
                "--now' sends them now."
            )
        for id in missing:
            click.echo(_why_not(state, id))
    if missing:
        sys.exit(1)


def _why_not(state: State, id: int) -> str:
    entry = state.outbox.inspector.get(id)
    if entry is None:
        return f"There is no event {id}."
    words = f"Event {id} is {entry.state}, not rejected."
    if entry.state == "pending":
        words += (
            " It is retried automatically; 'flask mmolove deliver --now' sends it now."
        )
    return words
