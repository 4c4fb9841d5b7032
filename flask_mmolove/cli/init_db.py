"""``init-db``: the outbox's tables."""

from __future__ import annotations

from pathlib import Path

import click

from ..state import State
from .site import with_site


@click.command()
@with_site
def init_db(state: State) -> None:
    """Make the outbox's tables, where no migration does."""
    if state.session is not None and "migrate" in state.app.extensions:
        raise click.ClickException(
            "The site has Flask-Migrate, which would meet tables that it did not make. "
            "'flask db migrate' and 'flask db upgrade' make the outbox's with the "
            "site's own."
        )
    words = "was made" if state.outbox.create() else "is there already"
    click.echo(f"The outbox {words}: {state.outbox}")
    if isinstance(state.settings.outbox, Path) and state.session is None:
        click.echo("A file is also made by itself, when it is first needed.")
