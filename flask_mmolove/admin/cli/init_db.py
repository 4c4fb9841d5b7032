"""``init-db``: create the outbox's tables."""

from __future__ import annotations

from pathlib import Path

import click

from ...state import State
from .site import with_site


@click.command()
@click.option(
    "--yes", is_flag=True, help="Create them although the site has Flask-Migrate."
)
@with_site
def init_db(state: State, yes: bool) -> None:
    """Create the outbox's tables, or bring them up to date.

    The first use does the same. With MMOLove(app, db=db) and Flask-Migrate, the site's
    migrations do it instead: run 'flask db migrate' and 'flask db upgrade'.
    """
    if state.session is not None and "migrate" in state.app.extensions and not yes:
        raise click.ClickException(
            "The site has Flask-Migrate, so its migrations create the outbox's tables: "
            "run 'flask db migrate' and 'flask db upgrade'. If the migrations are not "
            "yours to change, run 'flask mmolove init-db --yes' instead."
        )
    words = "was created" if state.outbox.create() else "exists already"
    click.echo(f"The outbox {words}: {state.outbox}")
    if isinstance(state.settings.outbox, Path) and state.session is None:
        click.echo("The first use creates a file too, so this command is optional.")
