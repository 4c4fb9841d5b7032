"""``retry``: send rejected events again."""

from __future__ import annotations

import json
import sys

import click

from .. import desk
from ..state import State
from ..words import many
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
        show_entries(state.outbox.journal.page(state="rejected", limit=1000), as_json)
        return
    entries = desk.send_again(state, ids or None)
    missing = sorted(set(ids) - {entry.id for entry in entries})
    if as_json:
        click.echo(json.dumps({"retried": [e.id for e in entries], "missing": missing}))
    else:
        click.echo(f"{many(len(entries), 'rejected event')} will be sent again.")
        if not (entries or ids):
            click.echo("What is pending needs no retry: see 'flask mmolove status'.")
        for id in missing:
            click.echo(f"Event {id} is not rejected, or not there.")
    if missing:
        sys.exit(1)
