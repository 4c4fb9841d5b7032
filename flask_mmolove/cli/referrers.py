"""``referrers``: who brings players."""

from __future__ import annotations

import json

import click

from ..state import State
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
    best = state.outbox.journal.best_referrers(limit)
    if as_json:
        click.echo(json.dumps([each._asdict() for each in best]))
    elif not best:
        click.echo("Nobody yet whose invite link brought a friend.")
    else:
        rows = [tuple(map(str, each)) for each in best]
        width = max(len("PLAYER"), *(len(player) for player, *_ in rows))
        head = ("PLAYER", "FRIENDS", "QUALIFIED", "REWARDED")
        print_table([head, *rows], [width, 7, 9])
