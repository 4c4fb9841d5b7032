"""``rewards``: the ones that a person has to decide."""

from __future__ import annotations

from functools import partial

import click

from ...state import State
from .. import actions as desk
from ..wording import many
from .site import json_option
from .site import show_entries
from .site import with_site


@click.command()
@click.option("--paid", type=int, multiple=True, metavar="ID", help="It was given.")
@click.option(
    "--again",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="ID",
    help="Give it now; with --all, all that failed.",
)
@click.option("--all", "all_", is_flag=True, help="With --again: all that failed.")
@json_option
@with_site
def rewards(
    state: State,
    paid: tuple[int, ...],
    again: tuple[str, ...],
    all_: bool,
    as_json: bool,
) -> None:
    """Show and decide rewards that are in doubt.

    A "reward_unconfirmed" one may have been given when its process died; a
    "reward_failed" one failed for days while others were granted, or the site had no
    @mmolove.reward. Check in the game whether it was given, then say --paid or --again.
    Once the cause is fixed, --again --all gives all that are "reward_failed".
    """
    ids = _ids(again, all_)
    if not (paid or again):
        _show(state, as_json)
    for id in paid:
        desk.settle_reward(state, id, given=True)
        click.echo(f"The reward of event {id} is noted as given.", err=as_json)
    for id in ids:
        desk.settle_reward(state, id, given=False)
        click.echo(f"The reward of event {id} will be given now.", err=as_json)
    if all_:
        count = many(desk.retry_rewards(state), "failed reward")
        click.echo(f"{count} will be given now.", err=as_json)


def _ids(again: tuple[str, ...], all_: bool) -> list[int]:
    """The ids after ``--again``, which has none before ``--all``."""
    if all_ != ("" in again):
        raise click.UsageError("Write '--again ID', or '--again --all'.")
    try:
        return [int(id) for id in again if id]
    except ValueError:
        raise click.UsageError(
            "The ID after --again is the number that 'flask mmolove rewards' shows."
        ) from None


def _show(state: State, as_json: bool) -> None:
    page = partial(state.outbox.inspector.page, limit=1000)
    found = page(state="reward_unconfirmed") + page(state="reward_failed")
    show_entries(found, as_json)
    if found and not as_json:
        click.echo(
            "Where it was given: flask mmolove rewards --paid ID\n"
            "Where it was not:   flask mmolove rewards --again ID"
        )
