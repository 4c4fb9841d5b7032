"""``events``, ``show`` and ``export``: the delivery log."""

from __future__ import annotations

import csv
import json
import time
import typing as t
from datetime import datetime
from functools import wraps

import click

from ...clock import as_datetime
from ...clock import midnight
from ...clock import milliseconds
from ...errors import ActionError
from ...outbox.counters import DAY
from ...outbox.entry import Entry
from ...outbox.states import EntryState
from ...state import State
from ...text import printable
from .. import attempts as history
from ..health import planned
from ..wording import attempts
from ..wording import data
from ..wording import EVENTS
from ..wording import hint
from ..wording import next_step
from ..wording import plural
from ..wording import state_of
from ..wording import STATES
from .site import check_player
from .site import json_option
from .site import print_table
from .site import progress
from .site import with_site

#: Seconds between two reads of ``--follow``, and how many rows each reads.
_PAUSE = 1.0
_FOLLOWED = 200

_HEAD = ("ID", "Event", "Player", "Referrer", "State", "Recorded (UTC)", "Response")

# The widths of a table whose rows are yet to come.
_USUAL = (4, 10, 8, 8, 8, 19)

# What a spreadsheet takes for the beginning of a formula: = + - @, full-width or not.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")

# Rows read at a time for an export.
_PAGE = 1000

_DAY = click.DateTime(["%Y-%m-%d"])

_FILTERS = (
    click.option(
        "--state",
        type=click.Choice(list(STATES)),
        metavar="STATE",
        help=f"Only those in this state: {', '.join(STATES)}.",
    ),
    click.option(
        "--player",
        callback=check_player,
        metavar="ID",
        help="Only those of this player.",
    ),
    click.option(
        "--referrer",
        callback=check_player,
        metavar="ID",
        help="Only those of this player's friends.",
    ),
    click.option("--event", type=click.Choice(EVENTS), help="Only those of this name."),
    click.option(
        "--since",
        type=_DAY,
        metavar="DAY",
        help="From this day on, as YYYY-MM-DD in UTC.",
    ),
    click.option("--until", type=_DAY, metavar="DAY", help="Up to this day."),
)

Filters = dict[str, t.Any]


def _filtered(command: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Add the options that choose events. The command gets those that were given, as
    :meth:`Inspector.page` takes them.
    """

    @wraps(command)
    def wrapper(
        *,
        state: EntryState | None,
        player: str | None,
        referrer: str | None,
        event: str | None,
        since: datetime | None,
        until: datetime | None,
        **options: t.Any,
    ) -> t.Any:
        chosen = {
            "state": state,
            "player": player,
            "referrer": referrer,
            "event": event,
            "since": since and midnight(since),
            "until": until and midnight(until) + DAY,
        }
        filters = {name: value for name, value in chosen.items() if value is not None}
        return command(filters=filters, **options)

    for option in reversed(_FILTERS):
        option(wrapper)
    return wrapper


@click.command()
@_filtered
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many at most.",
)
@click.option(
    "--before", type=int, metavar="ID", help="Only those older than this event."
)
@click.option(
    "--follow", is_flag=True, help="Print changes as they happen, until Ctrl+C."
)
@json_option
@with_site
def events(
    state: State,
    filters: Filters,
    limit: int,
    before: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """List events, newest last.

    --json prints one event a line.
    """
    entries = state.outbox.inspector.page(**filters, before=before, limit=limit + 1)
    is_more, entries = len(entries) > limit, entries[:limit]
    if not entries and not (follow or as_json):
        click.echo("No events match." if filters or before else "No events yet.")
        return
    widths = _print(entries[::-1], as_json, _USUAL if follow else (), [_HEAD])
    if follow:
        for changed in _changes(state, filters):
            widths = _print(changed, as_json, widths)
    elif is_more and not as_json:
        click.echo(f"Older events: --before {entries[-1].id}")


def _changes(state: State, filters: Filters) -> t.Iterator[list[Entry]]:
    """What is new or changed among the newest events, again and again."""
    ask = state.outbox.inspector.page
    seen = {e.id: e for e in ask(**filters, limit=_FOLLOWED)}
    while True:
        try:
            time.sleep(_PAUSE)
        except KeyboardInterrupt:
            return
        found = ask(**filters, limit=_FOLLOWED)
        new = [e for e in found if _mark(e) != _mark(seen.get(e.id))]
        seen = {entry.id: entry for entry in found}
        yield new[::-1]


def _mark(entry: Entry | None) -> tuple[t.Any, ...] | None:
    return entry and (entry.state, entry.settled)


def _print(
    entries: t.Sequence[Entry],
    as_json: bool,
    widths: t.Sequence[int],
    head: t.Sequence[tuple[str, ...]] = (),
) -> t.Sequence[int]:
    """Print entries, and return the widths of their columns."""
    if not as_json:
        return print_table([*head, *map(_row, entries)], widths)
    for entry in entries:
        click.echo(json.dumps(data(entry)))
    return widths


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        str(entry.id),
        entry.event,
        printable(entry.identity),
        printable(entry.referrer or "-"),
        state_of(entry),
        _when(entry.recorded),
        history.summary(entry),
    )


def _when(milliseconds: int) -> str:
    return as_datetime(milliseconds).strftime("%Y-%m-%d %H:%M:%S")


@click.command()
@click.argument("id", type=int)
@json_option
@with_site
def show(state: State, id: int, as_json: bool) -> None:
    """Show one event, its attempts and responses, and what to do."""
    entry = state.outbox.inspector.get(id)
    if entry is None:
        raise ActionError(f"There is no event {id}.")
    now = milliseconds()
    moment = planned(state, entry, now)
    request = history.request_of(entry, state.settings)
    if as_json:
        answers = [answer._asdict() for answer in entry.answers]
        more = {"next": moment, "request": request and request._asdict()}
        click.echo(json.dumps(data(entry) | {"answers": answers, **more}))
        return
    click.echo(f"Event {entry.id}: {entry.event} of player {printable(entry.identity)}")
    click.echo(f"state     {state_of(entry)}: {STATES[entry.state]}")
    click.echo(f"referrer  {printable(entry.referrer or 'not known')}")
    click.echo(f"recorded  {_when(entry.recorded)} UTC")
    due = f"{_when(moment)} UTC: " if moment else ""
    then = next_step(entry, moment, now)
    click.echo(f"next      {due}{then}")
    click.echo(f"attempts  {attempts(entry)}")
    if entry.referral_id:
        click.echo(f"referral  {printable(entry.referral_id)}")
    deliveries, rewards = history.of(entry)
    _print_attempts("response", deliveries)
    _print_attempts("reward", rewards)
    if request:
        headers = (f"{name}: {value}" for name, value in request.headers.items())
        click.echo(f"request   POST {request.url}")
        _print_below(*headers, "", *request.body.splitlines())
    if hint(entry) not in ("", then):
        click.echo(f"\n{hint(entry)}")


def _print_attempts(label: str, attempts: list[history.Attempt]) -> None:
    for attempt in reversed(attempts):
        took = f", after {attempt.took}" if attempt.took else ""
        moment = f"{_when(attempt.ended)} UTC{took}"
        click.echo(f"{label:8}  {moment}: {attempt.result}")
        _print_below(*attempt.words.splitlines())


def _print_below(*lines: str) -> None:
    for line in lines:
        click.echo(f"          {line}".rstrip())


@click.command()
@_filtered
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    default="csv",
    show_default=True,
    help="CSV for a spreadsheet, or JSON lines for a program.",
)
@click.option(
    "--output",
    type=click.File("w", encoding="utf-8"),
    default="-",
    metavar="FILE",
    help="Where to write them. Standard output, unless given.",
)
@with_site
def export(state: State, filters: Filters, form: str, output: t.TextIO) -> None:
    """Write events as CSV or JSON lines, newest first.

    Tokens are left out. Times are milliseconds since 1970, UTC.
    """
    count = 0
    writer = csv.writer(output, lineterminator="\n", quoting=csv.QUOTE_ALL)
    with progress(_length(state, filters, output), "Exporting") as bar:
        for entry in _all(state, filters, bar.update):
            values = data(entry)
            if form == "jsonl":
                output.write(json.dumps(values) + "\n")
            else:
                if not count:
                    writer.writerow(values)
                writer.writerow(map(_cell, values.values()))
            count += 1
    click.echo(f"{plural(count, 'event')} written.", err=True)


def _length(state: State, filters: Filters, output: t.TextIO) -> int:
    """How many events an export writes, if that is known and worth a progress bar."""
    if output.isatty() or filters.keys() - {"state"}:
        return 0
    if filters:
        return state.outbox.inspector.count(filters["state"])
    return sum(state.outbox.inspector.summary().counts.values())


def _cell(value: t.Any) -> t.Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _all(
    state: State, filters: Filters, progress: t.Callable[[int], object]
) -> t.Iterator[Entry]:
    before = None
    while page := state.outbox.inspector.page(**filters, before=before, limit=_PAGE):
        yield from page
        before = page[-1].id
        progress(len(page))
