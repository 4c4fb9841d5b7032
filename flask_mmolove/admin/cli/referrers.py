"""``referrers``: who brings players."""

from __future__ import annotations

import json

import click

from ...state import State
from ...text import printable
from .site import json_option
from .site import print_table
from .site import with_site


@click.command()
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True)
@json_option
@with_site
def referrers(state: State, limit: int, as_json: bool) -> None:
    """Show the players who brought most friends.

    They are known where friends come by the site's own invite links. Counted is since
    then, and a friend counts once MMOLove has accepted the signup.
    """
    best = state.outbox.inspector.best_referrers(limit)
    if as_json:
        click.echo(json.dumps([each._asdict() for each in best]))
    elif not best:
        click.echo("No invite link has brought a friend yet.")
    else:
        # An identity can be long, and the last column is what may be cut.
        rows = [(*map(str, counts), printable(player)) for player, *counts in best]
        head = ("FRIENDS", "QUALIFIED", "REWARDED", "PLAYER")
        print_table([head, *rows], [len(name) for name in head[:-1]])
