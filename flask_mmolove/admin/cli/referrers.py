"""``referrers``: the players with the most friends."""

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
    """List the players whose invite links brought the most friends.

    A friend counts once MMOLove has accepted the signup. Friends who came by another
    link have no known referrer.
    """
    best = state.outbox.inspector.best_referrers(limit)
    if as_json:
        click.echo(json.dumps([each._asdict() for each in best]))
    elif not best:
        click.echo("No invite link has brought a friend yet.")
    else:
        # An identity can be long, and only the last column may be cut.
        rows = [(*map(str, counts), printable(player)) for player, *counts in best]
        head = ("FRIENDS", "QUALIFIED", "REWARDED", "PLAYER")
        print_table([head, *rows], [len(name) for name in head[:-1]])
