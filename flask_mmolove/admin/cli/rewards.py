"""``rewards``: settle the ones that failed or are unconfirmed."""

from __future__ import annotations

from functools import partial

import click

from ...state import State
from .. import actions
from ..wording import rewards_retried
from ..wording import settled
from .site import json_option
from .site import show_entries
from .site import with_site

_NOTHING = "No reward is failed or unconfirmed."


@click.command()
@click.option(
    "--granted",
    type=int,
    multiple=True,
    metavar="ID",
    help="Record that it was granted. Repeatable.",
)
@click.option(
    "--retry",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="ID",
    help="Have it granted. Repeatable.",
)
@click.option(
    "--all", "all_", is_flag=True, help="With --retry: have all granted that failed."
)
@json_option
@with_site
def rewards(
    state: State,
    granted: tuple[int, ...],
    retry: tuple[str, ...],
    all_: bool,
    as_json: bool,
) -> None:
    """List or settle rewards that failed or are unconfirmed.

    reward_unconfirmed: an at-most-once callback did not finish, so the reward may have
    been granted. reward_failed: the callback failed for days, or the site has none.

    Check in the game whether the reward was granted, then use --granted ID or --retry
    ID. Once the cause is fixed, --retry --all has all granted that failed. The next
    delivery does it.
    """
    ids = _ids(retry, all_)
    if not (granted or retry):
        _show(state, as_json)
    for id in granted:
        actions.settle_reward(state, id, granted=True)
        click.echo(settled(id, granted=True), err=as_json)
    for id in ids:
        actions.settle_reward(state, id, granted=False)
        click.echo(settled(id, granted=False), err=as_json)
    if all_:
        click.echo(rewards_retried(actions.retry_rewards(state)), err=as_json)


def _ids(retry: tuple[str, ...], all_: bool) -> list[int]:
    """The ids after ``--retry``, which has none before ``--all``."""
    if all_ != ("" in retry):
        raise click.UsageError("Write '--retry ID', or '--retry --all'.")
    try:
        return [int(id) for id in retry if id]
    except ValueError:
        raise click.UsageError(
            "The ID after --retry is the number that 'flask mmolove rewards' shows."
        ) from None


def _show(state: State, as_json: bool) -> None:
    page = partial(state.outbox.inspector.page, limit=1000)
    found = page(state="reward_unconfirmed") + page(state="reward_failed")
    failing = state.outbox.inspector.failing_rewards()
    nothing = "No reward waits for you." if failing else _NOTHING
    show_entries(found, as_json, nothing)
    if found and not as_json:
        click.echo(
            "If it was granted: flask mmolove rewards --granted ID\n"
            "If it was not:     flask mmolove rewards --retry ID"
        )
    if failing and not as_json:
        click.echo("\nThese could not be granted yet, and are retried automatically:")
        show_entries(failing, as_json, "")
