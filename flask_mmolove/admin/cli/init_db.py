"""``init-db``: the outbox's tables."""

from __future__ import annotations

from pathlib import Path

import click

from ...state import State
from .site import with_site


@click.command()
@click.option("--yes", is_flag=True, help="Make them although Flask-Migrate is there.")
@with_site
def init_db(state: State, yes: bool) -> None:
    """Make the outbox's tables now, or bring them up to date.

    The first use does so too, except where the site has Flask-Migrate.
    """
    if state.session is not None and "migrate" in state.app.extensions and not yes:
        raise click.ClickException(
            "The site has Flask-Migrate, so its migrations make the outbox's tables: "
            "run 'flask db migrate' and 'flask db upgrade'. If the migrations are not "
            "yours to change, run 'flask mmolove init-db --yes' instead."
        )
    words = "was made" if state.outbox.create() else "is there already"
    click.echo(f"The outbox {words}: {state.outbox}")
    if isinstance(state.settings.outbox, Path) and state.session is None:
        click.echo("A file is also made by itself, when it is first needed.")
