"""``rewards``: the ones that a person has to decide."""

from __future__ import annotations

from functools import partial

import click

from .. import desk
from ..state import State
from .site import json_option
from .site import show_entries
from .site import with_site


@click.command()
@click.option("--paid", type=int, multiple=True, metavar="ID", help="It was given.")
@click.option("--again", type=int, multiple=True, metavar="ID", help="Give it now.")
@json_option
@with_site
def rewards(
    state: State, paid: tuple[int, ...], again: tuple[int, ...], as_json: bool
) -> None:
    """Show and decide rewards that are in doubt.

    An "unknown" one may have been given when its process died; an "unpaid" one failed
    too often, or the site had no @mmolove.reward. Check in the game whether it was
    given, then say --paid or --again.
    """
    if not (paid or again):
        page = partial(state.outbox.journal.page, limit=1000)
        found = page(state="unknown") + page(state="unpaid")
        show_entries(found, as_json)
        if found and not as_json:
            click.echo(
                "Where it was given: flask mmolove rewards --paid ID\n"
                "Where it was not:   flask mmolove rewards --again ID"
            )
    for id in paid:
        desk.settle_reward(state, id, given=True)
        click.echo(f"The reward of event {id} is noted as given.", err=as_json)
    for id in again:
        desk.settle_reward(state, id, given=False)
        click.echo(f"The reward of event {id} will be given now.", err=as_json)
