"""``referrers``, ``forget`` and ``purge``: the best players, and what to erase."""

from __future__ import annotations

import json

import click

from ...clock import milliseconds
from ...outbox.counters import DAY
from ...state import State
from ...text import printable
from .. import actions
from ..wording import plural
from .site import check_player
from .site import json_option
from .site import print_table
from .site import progress
from .site import with_site
from .site import yes_option


@click.command()
@click.argument("player", callback=check_player)
@yes_option
@with_site
def forget(state: State, player: str, yes: bool) -> None:
    """Erase everything stored about the player with the id PLAYER.

    Events that were not sent yet never will be, and no reward is granted any more.
    Friends that PLAYER referred stay, without a referrer. What stays of PLAYER are the
    daily counts and a digest of the token, so that the token still counts only once.
    """
    found = state.outbox.inspector.page(player=player)
    count = state.outbox.inspector.count_friends(player)
    friends = plural(count, "friend")
    if not yes:
        for entry in found:
            click.echo(f"Event {entry.id}: {entry.event}, {entry.state}")
        what = f"{plural(len(found), 'event')} of player {printable(player)}"
        as_referrer = f", who referred {friends}" if count else ""
        click.confirm(f"Erase {what}{as_referrer}?", abort=True)
    erased = actions.forget(state, player)
    click.echo(f"{plural(len(erased), 'event')} of player {printable(player)} erased.")
    if count:
        have = "has" if count == 1 else "have"
        click.echo(f"{friends} that they referred now {have} no referrer.")
    elif not erased:
        click.echo("If you expected some: PLAYER is the account's id, not its name.")
    unsent = sum(entry.state == "pending" for entry in erased)
    if unsent:
        had = "had not been sent, and never will be"
        click.echo(f"{plural(unsent, 'pending event')} {had}.")


@click.command()
@click.option(
    "--older-than",
    "days",
    type=click.IntRange(1),
    required=True,
    metavar="DAYS",
    help="For how many days everything must have been done.",
)
@yes_option
@with_site
def purge(state: State, days: int, yes: bool) -> None:
    """Remove the events of players for whom everything is done.

    That is so once a milestone was rewarded or needs no reward, or another referrer
    came first. A signup without a milestone stays, and so do events that wait for you.
    The daily counts stay, and so does a digest of each token.
    """
    if not yes:
        age = plural(days, "day")
        click.confirm(
            f"Remove the events of players for whom everything was done {age} ago or "
            "earlier?",
            abort=True,
        )
    rows = sum(state.outbox.inspector.summary().counts.values())
    with progress(rows, "Purging") as bar:
        count = state.outbox.purge(milliseconds() - days * DAY, bar.update)
    click.echo(f"{plural(count, 'event')} removed.")


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="N",
    help="How many at most.",
)
@json_option
@with_site
def referrers(state: State, limit: int, as_json: bool) -> None:
    """List the players who referred the most friends.

    A friend counts once MMOLove has accepted the signup. Friends who came by another
    link than one of mmolove.invite() have no known referrer. Arrived is about how many
    visitors came by the link.
    """
    best = state.outbox.inspector.best_referrers(limit)
    if as_json:
        click.echo(json.dumps([each._asdict() for each in best]))
    elif not best:
        click.echo("No invite link has brought a friend yet.")
    else:
        # An identity can be long, and only the last column may be cut.
        rows = [
            (
                *map(str, (e.arrived, e.accepted, e.qualified, e.rewarded)),
                printable(e.player),
            )
            for e in best
        ]
        head = ("Arrived", "Friends", "Qualified", "Rewarded", "Player")
        print_table([head, *rows])
