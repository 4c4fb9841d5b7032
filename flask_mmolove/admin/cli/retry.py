"""``retry``: send rejected events again."""

from __future__ import annotations

import json
import sys

import click

from ...state import State
from .. import actions as desk
from ..wording import many
from .site import json_option
from .site import show_entries
from .site import with_site


@click.command()
@click.argument("ids", nargs=-1, type=int)
@click.option("--list", "listing", is_flag=True, help="Only show them.")
@json_option
@with_site
def retry(state: State, ids: tuple[int, ...], listing: bool, as_json: bool) -> None:
    """Send rejected events again, once the cause is fixed.

    All of them, or those named by their ids.
    """
    if listing:
        show_entries(state.outbox.inspector.page(state="rejected", limit=1000), as_json)
        return
    entries = desk.send_again(state, ids or None)
    missing = sorted(set(ids) - {entry.id for entry in entries})
    if as_json:
        click.echo(json.dumps({"retried": [e.id for e in entries], "missing": missing}))
    else:
        click.echo(f"{many(len(entries), 'rejected event')} will be sent again.")
        if not (entries or ids):
            click.echo(
                "What is pending is retried by itself; 'flask mmolove deliver --now' "
                "sends it now."
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
        words += " It is retried by itself; 'flask mmolove deliver --now' sends it now."
    return words
