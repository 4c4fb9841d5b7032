"""``qualify``: report milestones from a list of players."""

from __future__ import annotations

import sys
import typing as t
from collections import Counter

import click

from ...errors import IdentityError
from ...errors import OutboxError
from ...identity import identify
from ...rewards.many import batches
from ...rewards.many import qualify_all
from ...rewards.many import Result
from ...state import State
from ...text import printable
from .site import progress
from .site import with_site


@click.command()
@click.argument("players", nargs=-1, metavar="ID... | -")
@click.option(
    "--dry-run", is_flag=True, help="Store nothing, and print what would be recorded."
)
@with_site
def qualify(state: State, players: tuple[str, ...], dry_run: bool) -> None:
    """Report players who have reached the milestone.

    Give their ids, or - to read ids from standard input, one a line. You can send the
    whole list each time: a player who is known already is not reported again.
    """
    if not players:
        raise click.UsageError("Name one player at least, or - for standard input.")
    counts: t.Counter[Result] = Counter()
    failed, trouble = 0, ""
    ids = list(_read(players))
    with progress(len(ids), "Recording") as bar:
        for batch in batches(ids):
            try:
                results = qualify_all(state, batch, dry_run=dry_run)
            except OutboxError as e:
                failed, trouble = failed + len(batch), str(e)
            else:
                counts.update(results.values())
            bar.update(len(batch))
    done = "would be recorded" if dry_run else "recorded"
    click.echo(
        f"{counts['recorded']:,} {done}, {counts['known']:,} known already, "
        f"{counts['not referred']:,} not referred."
    )
    if failed:
        click.echo(
            f"{failed:,} could not be stored: {trouble} Send the list again.", err=True
        )
        sys.exit(1)


def _read(players: tuple[str, ...]) -> t.Iterator[str]:
    """The ids that are ids."""
    lines: t.Iterable[str] = players
    if players == ("-",):
        # A list that was saved on Windows may begin with a byte order mark.
        lines = (line.decode("utf-8-sig", "replace") for line in sys.stdin.buffer)
    for player in filter(None, map(str.strip, lines)):
        try:
            yield identify(player)
        except IdentityError as e:
            click.echo(f"Skipped {printable(player[:80])!r}: {e}", err=True)
