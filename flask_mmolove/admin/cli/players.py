"""``forget`` and ``purge``: what is erased."""

from __future__ import annotations

import click

from ...outbox.counters import DAY
from ...state import milliseconds
from ...state import State
from ...text import printable
from .. import actions as desk
from ..wording import many
from .site import check_player
from .site import with_site
from .site import yes_option


@click.command()
@click.argument("player", callback=check_player)
@yes_option
@with_site
def forget(state: State, player: str, yes: bool) -> None:
    """Erase everything stored about PLAYER, named by id.

    What was not sent yet never will be, and no reward is given any more. Friends whom
    PLAYER invited stay, and nobody is known to have invited them. The counts of
    the days stay.
    """
    found = state.outbox.inspector.page(player=player)
    count = state.outbox.inspector.count_friends(player)
    friends = many(count, "friend")
    if not yes:
        for entry in found:
            click.echo(f"Event {entry.id}: {entry.event}, {entry.state}")
        what = f"{many(len(found), 'event')} of player {printable(player)}"
        click.confirm(f"Erase {what}, and that they invited {friends}?", abort=True)
    erased = desk.forget(state, player)
    click.echo(f"{many(len(erased), 'event')} of player {printable(player)} erased.")
    if count:
        click.echo(f"Nobody is known any more to have invited {friends} of theirs.")
    elif not erased:
        click.echo("If you expected some: PLAYER is the account's id, not its name.")
    unsent = sum(entry.state == "pending" for entry in erased)
    if unsent:
        click.echo(f"{unsent} of them had not been sent, and never will be.")


@click.command()
@click.option(
    "--older-than",
    "days",
    type=click.IntRange(1),
    required=True,
    metavar="DAYS",
    help="Only what finished at least this many days ago.",
)
@yes_option
@with_site
def purge(state: State, days: int, yes: bool) -> None:
    """Remove the events of players with nothing left to do.

    Finished is a milestone that was rewarded or needs no reward, and a player whom
    another referrer brought first. A signup whose milestone is still to come stays, and
    so does what waits for you. The counts stay.
    """
    if not yes:
        click.confirm(f"Remove what was finished {days} days ago?", abort=True)
    count = state.outbox.purge(milliseconds() - days * DAY)
    click.echo(f"{many(count, 'event')} removed.")
