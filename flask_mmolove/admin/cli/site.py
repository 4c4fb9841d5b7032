"""What the commands share: the site, options and tables."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import time
import typing as t
from functools import update_wrapper
from itertools import zip_longest

import click
from flask.cli import ScriptInfo

from ...errors import MMOLoveError
from ...outbox.entry import Entry
from ...protocol.response import response_line
from ...protocol.wire import is_trimmed
from ...state import current_state
from ...text import printable
from ..health import Health
from ..wording import data
from ..wording import hint
from ..wording import state_of

#: The colour of each level of health, as arguments of :func:`click.style`.
COLORS: dict[str, dict[str, t.Any]] = {
    "ok": {"fg": "green"},
    "warning": {"fg": "yellow"},
    "critical": {"fg": "red", "bold": True},
}

#: The widest column of a table that has others behind it: a UUID fits.
_WIDEST = 36

#: How many things to do are worth a progress bar.
_MUCH = 50

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def check_player(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | None:
    """The id of a player, exactly as it is stored."""
    if value is not None and not is_trimmed(value):
        raise click.BadParameter(
            f"{value!r} has white space around it, which no player's id has: remove it."
        )
    return value


def with_site(command: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Run a command in the site's app context, and print our errors in a line."""

    @click.pass_context
    def wrapper(ctx: click.Context, *args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            app = ctx.ensure_object(ScriptInfo).load_app()
            with app.app_context():
                state = current_state()
                if not state.settings.enabled:
                    raise click.ClickException(
                        "MMOLOVE_ENABLED is false: nothing is captured, stored or sent."
                    )
                state.engine.rest()
                return ctx.invoke(command, state, *args, **kwargs)
        except MMOLoveError as e:
            raise click.ClickException(printable(str(e))) from e

    return update_wrapper(wrapper, command)


def show_entries(entries: t.Sequence[Entry], as_json: bool, none: str) -> None:
    """Print entries with their last response and what to do.

    :param none: What to print if there are none.
    """
    if as_json:
        click.echo(json.dumps([data(entry) for entry in entries]))
        return
    if not entries:
        click.echo(none)
    for entry in entries:
        click.echo(
            f"{entry.id:>7}  {entry.event:<10}  player {printable(entry.identity)}  "
            f"{state_of(entry)}"
        )
        for line in (response_line(entry.status, entry.answer), hint(entry)):
            if line:
                click.echo(f"         {line}")


def print_table(
    rows: t.Sequence[t.Sequence[str]], least: t.Sequence[int] = ()
) -> t.Sequence[int]:
    """Print rows in columns, and cut the last one where the terminal ends.

    :param least: The least widths of the columns, for rows that continue a table.
    :return: The widths. A longer text moves the rest of its row.
    """
    if not rows:
        return least
    longest = [
        min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)
    ]
    widths = [*map(max, zip_longest(longest, least, fillvalue=0))]
    room = shutil.get_terminal_size((0, 0)).columns or sys.maxsize
    for *cells, last in rows:
        padded = map(str.ljust, cells, widths)
        line = "  ".join([*padded, last]).rstrip()
        click.echo(line if len(line) <= room else f"{line[: room - 1]}…")
    return widths


def print_health(health: Health) -> None:
    """Print a finding, and what to do about it on a line of its own."""
    level = click.style(f"{health.level:<8}", **COLORS[health.level])
    click.echo(f"{level}  {printable(health.summary)}")
    if health.action:
        click.echo(f"{'':<8}  {printable(health.action)}")


def progress(length: int, label: str) -> t.Any:
    """A progress bar on stderr, shown only on a terminal and if there is much to do.

    :param length: How much there is to do.
    """
    is_shown = length >= _MUCH and sys.stderr.isatty()
    file = sys.stderr if is_shown else io.StringIO()
    return click.progressbar(length=length, label=label, file=file)


def wait_for_a_signal() -> None:
    """Wait until Ctrl+C."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
