"""``flask mmolove …``, for the person who runs the game."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
import typing as t
from functools import update_wrapper
from pathlib import Path

import click
from flask.cli import ScriptInfo

from .client import judge
from .client import Outcome
from .client import ReferralClient
from .delivery import ThreadEngine
from .delivery.pay import REWARD_LEASE
from .errors import MMOLoveError
from .errors import OutboxError
from .outbox import Entry
from .outbox import Summary
from .state import current_state
from .state import milliseconds
from .state import State

if t.TYPE_CHECKING:
    from .sandbox import Sandbox

#: Pending events from which on ``deliver`` shows its progress.
_MUCH = 50

#: Seconds by which a clock may be wrong without a word about it.
_CLOCK_FINE = 30

_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group()
def mmolove() -> None:
    """Referrals with MMOLove: is it well, what waits, what went wrong."""


def _with_site(command: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Run a command in the site's app context, and put our errors in one line."""

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
                return ctx.invoke(command, state, *args, **kwargs)
        except MMOLoveError as e:
            raise click.ClickException(str(e)) from e

    return update_wrapper(wrapper, command)


@mmolove.command()
@_json_option
@_with_site
def check(state: State, as_json: bool) -> None:
    """Try the settings with two dry runs.

    MMOLove verifies a signed event of each kind and writes nothing.
    """
    findings = list(_check(state))
    if as_json:
        click.echo(json.dumps([f._asdict() for f in findings]))
    else:
        for finding in findings:
            mark = click.style("ok  ", fg="green")
            if not finding.ok:
                mark = click.style("FAIL", fg="red", bold=True)
            click.echo(f"{mark}  {finding.subject:<10}  {finding.words}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


class _Finding(t.NamedTuple):
    subject: str
    ok: bool
    words: str


def _check(state: State) -> t.Iterator[_Finding]:
    settings = state.settings
    reward = "" if state.callbacks.reward else "; no @mmolove.reward is registered"
    words = f"server {settings.server_id} at {settings.endpoint}{reward}"
    yield _Finding("settings", True, words)
    yield _check_outbox(state)
    if settings.delivery == "celery":
        yield _check_celery(state)
    client = ReferralClient.from_settings(settings)
    moment = int(time.time())
    outcomes = {
        "registered": client.registered(
            "check", referee_identity="check", server_event_id=f"c{moment}", test=True
        ),
        "qualified": client.qualified("check", server_event_id=f"c{moment}", test=True),
    }
    client.close()
    yield from _check_clock(outcomes["registered"])
    for name, outcome in outcomes.items():
        yield _Finding(name, outcome.ok, _in_words(outcome))


def _check_outbox(state: State) -> _Finding:
    try:
        state.outbox.summary()
    except OutboxError as e:
        return _Finding("outbox", False, str(e))
    return _Finding("outbox", True, str(state.outbox))


def _check_celery(state: State) -> _Finding:
    from .delivery.celery import CeleryEngine

    engine = t.cast(CeleryEngine, state.engine)
    try:
        workers = engine.ask_workers()
    except MMOLoveError as e:
        return _Finding("celery", False, str(e))
    except Exception as e:  # each broker has its own errors
        words = f"the broker does not answer: {type(e).__name__}: {e}"
        return _Finding("celery", False, words)
    if not workers:
        words = "no worker answers: start one with 'celery -A ... worker --beat'"
        return _Finding("celery", False, words)
    ignorant = [name for name, knows in workers.items() if not knows]
    if ignorant:
        words = f"{', '.join(ignorant)}: does not know the site. Make the Flask app in "
        return _Finding("celery", False, words + "the module that 'celery -A' names")
    return _Finding("celery", True, f"answered by {', '.join(workers)}")


def _check_clock(outcome: Outcome) -> t.Iterator[_Finding]:
    if outcome.clock is None:
        return
    wrong = abs(outcome.clock)
    words = f"{wrong:.0f} s {'behind' if outcome.clock > 0 else 'ahead of'} MMOLove's"
    if wrong < 2:
        words = "agrees with MMOLove's"
    if wrong <= _CLOCK_FINE:
        yield _Finding("clock", True, words)
    else:
        cure = "set this machine's clock (NTP); signatures more than 300 s off fail"
        yield _Finding("clock", False, f"{words}: {cure}")


def _in_words(outcome: Outcome) -> str:
    if outcome.ok:
        return "verified by MMOLove (a dry run)"
    said = " ".join(outcome.body[:200].split())
    where = f"HTTP {outcome.status}" if outcome.status else "no answer"
    return f"{where}: {said}. {outcome.hint}"


@mmolove.command()
@_with_site
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


@mmolove.command()
@_json_option
@_with_site
def status(state: State, as_json: bool) -> None:
    """Show what waits and what is done."""
    summary = state.outbox.summary()
    spooled = len(state.spool.read())
    now = milliseconds()
    if as_json:
        data = _status_data(summary, now) | {"in_emergency_exit": spooled}
        click.echo(json.dumps(data))
        return
    click.echo(f"server    {state.settings.server_id} at {state.settings.endpoint}")
    click.echo(f"outbox    {state.outbox}")
    click.echo(f"delivery  {state.settings.delivery}{_dry(state)}")
    click.echo(f"MMOLove   {_host_in_words(summary, now)}\n")
    if not summary.counts:
        click.echo("No events yet: nobody has signed up with an invitation.")
    for name, note in _STATES.items():
        count = summary.counts.get(name, 0)
        if count:
            click.echo(f"{name:<9} {count:>8}  {note}".rstrip())
    if summary.waiting:
        click.echo(
            f"\n{summary.waiting} of the pending wait until their player's "
            "'registered' is accepted; a rejected one blocks them until it is retried."
        )
    if spooled:
        click.echo(f"\n{spooled} more are in the emergency exit, to be taken in.")
    if summary.oldest is not None:
        click.echo(
            f"\nThe oldest pending event has waited {_ago(summary.oldest, now)}."
        )


_STATES: dict[t.Any, str] = {
    "pending": "to be sent",
    "accepted": "taken by MMOLove",
    "rewarded": "and the reward was given",
    "ignored": "another referrer was first",
    "rejected": "refused: see 'flask mmolove retry --list'",
    "unknown": "a reward to look at: see 'flask mmolove rewards'",
    "unpaid": "a reward to look at: see 'flask mmolove rewards'",
}


def _status_data(summary: Summary, now: int) -> dict[str, t.Any]:
    oldest = summary.oldest
    return {
        "counts": {name: summary.counts.get(name, 0) for name in _STATES},
        "waiting_for_registered": summary.waiting,
        "oldest_pending_seconds": None if oldest is None else (now - oldest) // 1000,
        "breaker_open_since": summary.host.open_since,
        "breaker_reason": summary.host.reason,
    }


def _dry(state: State) -> str:
    return ", every event a dry run (MMOLOVE_TEST)" if state.settings.test else ""


def _host_in_words(summary: Summary, now: int) -> str:
    host = summary.host
    if host.open_since is None:
        return "no trouble known"
    next_try = max(0, host.not_before - now) // 1000
    return (
        f"in trouble for {_ago(host.open_since, now)}, tried again in {next_try} s: "
        f"{host.reason}"
    )


def _ago(moment: int, now: int) -> str:
    seconds = max(0, now - moment) // 1000
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


@mmolove.command()
@click.option("--forever", is_flag=True, help="Keep on until stopped: for a service.")
@_with_site
def deliver(state: State, forever: bool) -> None:
    """Send what is due, and give due rewards."""
    if forever:
        _deliver_forever(state)
        return
    delivery = state.deliveries()
    due = state.outbox.summary().counts.get("pending", 0)
    handled = 0
    quiet = due < _MUCH or not sys.stderr.isatty()
    bar = click.progressbar(length=due, label="Sending", file=sys.stderr)
    with contextlib.nullcontext() if quiet else bar:
        while count := delivery.step():
            handled += count
            if not quiet:
                bar.update(count)
    left = state.outbox.summary()
    waiting = left.counts.get("pending", 0)
    click.echo(f"{handled} handled, {waiting} pending.")
    if left.host.open_since is not None:
        click.echo(f"MMOLove is {_host_in_words(left, delivery.now())}")
        sys.exit(1)


def _deliver_forever(state: State) -> None:
    # The engine's own thread works, so that a signal finds this one with empty hands.
    engine = ThreadEngine(state.deliveries, state.settings.concurrency)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    click.echo("Delivering until stopped (Ctrl+C).", err=True)
    try:
        engine.wake()
        _wait_for_a_signal()
    finally:
        engine.stop()


def _wait_for_a_signal() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


@mmolove.command()
@click.argument("ids", nargs=-1, type=int)
@click.option("--list", "listing", is_flag=True, help="Only show them.")
@_json_option
@_with_site
def retry(state: State, ids: tuple[int, ...], listing: bool, as_json: bool) -> None:
    """Send rejected events again, after the mend.

    All of them, or those named by their ids.
    """
    if listing:
        _show(state.outbox.find(["rejected"], 1000), as_json)
        return
    entries = state.outbox.retry(milliseconds(), ids or None)
    missing = sorted(set(ids) - {entry.id for entry in entries})
    if as_json:
        click.echo(json.dumps({"retried": [e.id for e in entries], "missing": missing}))
    else:
        count = f"{len(entries)} rejected event{'s' * (len(entries) != 1)}"
        click.echo(f"{count} will be sent again.")
        for id in missing:
            click.echo(f"Event {id} is not rejected, or not there.")
    state.engine.wake([entry.id for entry in entries])
    if missing:
        sys.exit(1)


@mmolove.command()
@click.option("--paid", type=int, multiple=True, metavar="ID", help="It was given.")
@click.option("--again", type=int, multiple=True, metavar="ID", help="Give it now.")
@_json_option
@_with_site
def rewards(
    state: State, paid: tuple[int, ...], again: tuple[int, ...], as_json: bool
) -> None:
    """Show and decide rewards that are in doubt.

    An "unknown" one may have been given when its process died; an "unpaid" one failed
    too often, or the site had no @mmolove.reward. Look into the game, then say which it
    is.
    """
    now = milliseconds()
    doubtful = {e.id: e for e in state.outbox.find(["unknown", "unpaid"], -1)}
    if not (paid or again):
        _show(list(doubtful.values()), as_json)
    for id in again:
        _check_again(state, doubtful.get(id), now)
    for id, name in [(i, "rewarded") for i in paid] + [(i, "accepted") for i in again]:
        if state.outbox.decide(id, t.cast(t.Any, name), now) is None:
            raise click.ClickException(f"Event {id} has no reward to decide.")
        words = "is noted as given" if name == "rewarded" else "will be given now"
        click.echo(f"The reward of event {id} {words}.", err=as_json)
    state.engine.wake([*paid, *again])


def _check_again(state: State, entry: Entry | None, now: int) -> None:
    if state.callbacks.reward is None:
        raise click.ClickException(
            "The site has no @mmolove.reward, so nothing can be given."
        )
    if entry and entry.state == "unknown":
        if now - (entry.settled or 0) < REWARD_LEASE:
            raise click.ClickException(
                f"The reward of event {entry.id} may be under way at this moment. Look "
                "again in five minutes."
            )


def _show(entries: t.Sequence[Entry], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_entry_data(entry) for entry in entries]))
        return
    if not entries:
        click.echo("None.")
    for entry in entries:
        click.echo(
            f"{entry.id:>7}  {entry.event:<10}  player {entry.identity}  {entry.state}"
        )
        said = " ".join((entry.answer or "")[:200].split())
        if entry.status:
            said = f"HTTP {entry.status}: {said}"
        click.echo(f"         {said}")
        if entry.state == "rejected" and entry.status:
            click.echo(f"         {judge(entry.status)[1]}")


def _entry_data(entry: Entry) -> dict[str, t.Any]:
    names = ("id", "event", "identity", "state", "attempts", "recorded", "settled")
    data = {name: getattr(entry, name) for name in names}
    return data | {"status": entry.status, "answer": entry.answer}


@mmolove.command()
@click.option("--port", default=8765, show_default=True, help="0 takes a free one.")
@click.option(
    "--register-url",
    default="http://127.0.0.1:5000/register",
    show_default=True,
    help="The site's signup page, where the share link leads.",
)
@click.option(
    "--server-id",
    default="demo-server",
    envvar="FLASK_MMOLOVE_SERVER_ID",
    help="From FLASK_MMOLOVE_SERVER_ID where it is set, else demo-server.",
)
@click.option(
    "--secret",
    default="demo-secret",
    envvar="FLASK_MMOLOVE_REFERRAL_SECRET",
    help="From FLASK_MMOLOVE_REFERRAL_SECRET where it is set, else demo-secret.",
)
@click.option(
    "--state", "path", type=click.Path(dir_okay=False), help="A file to keep."
)
@click.option("--fail", type=click.IntRange(300, 599), help="Answer with this status.")
@click.option(
    "--drop",
    type=click.Choice(["request", "answer"]),
    is_flag=False,
    flag_value="answer",
    help="Hang up before the event is processed, or after it (the default).",
)
@click.option("--latency", type=float, default=0.0, help="Seconds before an answer.")
@click.option(
    "--rate", type=click.FloatRange(0, 1), default=1.0, help="How often they strike."
)
def sandbox(
    port: int,
    register_url: str,
    server_id: str,
    secret: str,
    path: str | None,
    rate: float,
    **faults: t.Any,
) -> None:
    """Run a stand-in for MMOLove on this machine."""
    from .sandbox import Faults
    from .sandbox import Sandbox

    try:
        stand_in = Sandbox(
            server_id=server_id,
            secret=secret,
            registration_url=register_url,
            path=path,
            faults=Faults(rate=rate, **faults),
            port=port,
        )
    except ValueError as e:
        raise click.UsageError(str(e)) from e
    with stand_in:
        click.echo(_introduction(stand_in, secret))
        _wait_for_a_signal()


def _introduction(stand_in: Sandbox, secret: str) -> str:
    shown = secret if secret == "demo-secret" else "(as in your environment)"
    return (
        f"A stand-in for MMOLove, on this machine only. What arrives: {stand_in.url}/\n"
        f"A share link to click: {stand_in.share_link()}\n"
        "\nThe site's settings:\n"
        f"  FLASK_MMOLOVE_SERVER_ID={stand_in.server_id}\n"
        f"  FLASK_MMOLOVE_REFERRAL_SECRET={shown}\n"
        f"  FLASK_MMOLOVE_ENDPOINT={stand_in.endpoint}\n"
        "\nStop it with Ctrl+C."
    )
