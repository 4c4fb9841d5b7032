"""``check``: find what loses referrals."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import typing as t
from pathlib import Path

import click

from ...callbacks import name_of
from ...capture.invite import find_page
from ...clock import milliseconds
from ...errors import MMOLoveError
from ...errors import OutboxError
from ...outbox.owner import is_root
from ...outbox.owner import strangers
from ...outbox.owner import user_name
from ...outbox.sqlite.file import SIDE_FILES
from ...outbox.sqlite.schema import lock_file
from ...protocol.proxy import read_proxy
from ...protocol.response import Outcome
from ...protocol.response import response_line
from ...recording.views import Record
from ...registration import misplaced
from ...state import State
from ...text import mask
from ...text import printable
from ..health import check_outbox
from ..health import Level
from ..health import read_views
from ..wording import ago
from ..wording import plural
from .site import COLORS
from .site import json_option
from .site import with_site

if t.TYPE_CHECKING:
    from ...delivery.celery import Answer

_NO_INVITATIONS = (
    "the site has no page for invite links, so referral.referrer is always None: "
    "app.register_blueprint(invitations)"
)

_DRY_RUNS = "MMOLOVE_TEST is on: every event is a dry run, and nobody is rewarded"

_NO_VIEWS = (
    "no view has @referral_register, so nobody is reported unless your code calls "
    "registered()"
)

#: Seconds by which a clock may be wrong without a warning.
_CLOCK_FINE = 30

_MARKS = {"ok": "ok  ", "warning": "warn", "critical": "FAIL"}


@click.command()
@json_option
@with_site
def check(state: State, as_json: bool) -> None:
    """Look for what loses referrals, and try the settings at MMOLove.

    MMOLove verifies a signed dry run of each event and stores nothing. FAIL is what
    loses referrals, warn is what may be intended. The exit status is 1 after a FAIL.
    """
    findings = []
    for finding in _check(state):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings]))
    if any(finding.level == "critical" for finding in findings):
        sys.exit(1)


class _Finding(t.NamedTuple):
    level: Level
    subject: str
    summary: str


def _print(finding: _Finding) -> None:
    mark = click.style(_MARKS[finding.level], **COLORS[finding.level])
    click.echo(f"{mark}  {finding.subject:<10}  {printable(finding.summary)}")


def _check(state: State) -> t.Iterator[_Finding]:
    settings = state.settings
    proxy = read_proxy(settings.proxy or "")
    way = f" by the proxy {proxy.address}" if proxy else ""
    summary = f"server {settings.server_id} at {mask(settings.endpoint)}{way}"
    yield _Finding("ok", "settings", summary)
    yield _check_key(state)
    yield _check_reward(state)
    yield from _check_milestone(state)
    if find_page() is None:
        yield _Finding("warning", "invite", _NO_INVITATIONS)
    yield from _check_views(state)
    for endpoint, view, _ in misplaced.misplaced(state.app):
        yield _Finding("warning", "decorators", misplaced.in_words(endpoint, view))
    yield _check_outbox(state)
    yield from _check_owner(state)
    if settings.test:
        yield _Finding("warning", "test", _DRY_RUNS)
    for health in check_outbox(state, milliseconds()):
        if health.level != "ok":
            yield _Finding(health.level, "health", str(health))
    if settings.delivery == "celery":
        yield _check_celery(state)
    client = settings.make_client()
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
        level: Level = "ok" if outcome.ok else "critical"
        yield _Finding(level, name, _in_words(outcome))


def _check_key(state: State) -> _Finding:
    if state.app.secret_key:
        return _Finding("ok", "session", "the site has a SECRET_KEY")
    summary = "tokens cannot be kept: set app.config['SECRET_KEY']"
    return _Finding("critical", "session", summary)


def _check_reward(state: State) -> _Finding:
    callbacks = state.callbacks
    if callbacks.reward is None:
        summary = (
            "no @mmolove.reward is registered: rewards wait in 'flask mmolove rewards'"
        )
        return _Finding("warning", "reward", summary)
    name = name_of(callbacks.reward)
    if callbacks.replaced:
        others = ", ".join(callbacks.replaced)
        summary = f"{name} is called, and {others} is not: a site has one callback"
        return _Finding("critical", "reward", summary)
    return _Finding("ok", "reward", f"granted by {name}")


def _check_milestone(state: State) -> t.Iterator[_Finding]:
    callback, settings = state.callbacks.milestone, state.settings
    if callback is None:
        return
    how = f"every {settings.milestone_interval:g} s"
    if settings.delivery in ("manual", "inline"):
        how = f"whenever 'flask mmolove deliver' runs, at most {how}"
    yield _Finding("ok", "milestone", f"{name_of(callback)} is called {how}")


def _check_views(state: State) -> t.Iterator[_Finding]:
    try:
        records = read_views(state)
    except OutboxError:
        return  # another finding tells
    endpoints = sorted({*misplaced.decorated(state.app), *records})
    if not endpoints:
        yield _Finding("warning", "signup", _NO_VIEWS)
    for endpoint in endpoints:
        yield _check_view(endpoint, records.get(endpoint, Record()))


def _check_view(endpoint: str, record: Record) -> _Finding:
    summary = f"{endpoint} has named {plural(record.named, 'referred player')}"
    if record.last is not None:
        summary += f", the last {ago(record.last, milliseconds())} ago"
    if not record.in_a_row:
        return _Finding("ok", "signup", summary)
    summary += (
        f"; {plural(record.in_a_row, 'visitor')} with a token posted to it since, and "
        f"nobody was named: {record.reason}"
    )
    return _Finding("warning" if record.named else "critical", "signup", summary)


def _check_outbox(state: State) -> _Finding:
    try:
        state.outbox.probe()
    except OutboxError as e:
        return _Finding("critical", "outbox", str(e))
    return _Finding("ok", "outbox", str(state.outbox))


def _check_owner(state: State) -> t.Iterator[_Finding]:
    outbox, home = state.settings.outbox, state.settings.spool.parent
    files = state.spool.files()
    if isinstance(outbox, Path):
        files += [outbox.with_name(outbox.name + suffix) for suffix in SIDE_FILES]
        files.append(lock_file(outbox))
    found = strangers(files, home)
    # Files that we can open need no other owner; root always can.
    is_open = all(os.access(file, os.R_OK | os.W_OK) for file in found)
    if not found or not is_root() and is_open:
        return
    # The spool may have many: name its folder instead.
    tops = dict.fromkeys(file if file.parent == home else file.parent for file in found)
    listed = " ".join(shlex.quote(str(file)) for file in tops)
    owner = user_name(home.stat().st_uid)
    others = " and ".join(sorted({user_name(uid) for uid in found.values()}))
    belongs, it = ("belongs", "it") if len(tops) == 1 else ("belong", "them")
    summary = (
        f"{listed} {belongs} to {others}, and the folder to {owner}. If the site runs "
        f"as {owner}, it cannot open {it}: run 'chown -R {owner}: {listed}' as root"
    )
    # The site may well run as another user than the folder's owner, but not as root.
    is_fine = is_root() and 0 not in found.values()
    yield _Finding("ok" if is_fine else "critical", "owner", summary)


def _check_celery(state: State) -> _Finding:
    from ...delivery.celery import CeleryEngine

    engine = t.cast(CeleryEngine, state.engine)
    try:
        queue = engine.queue()
        workers = engine.ask_workers()
    except MMOLoveError as e:
        return _Finding("critical", "celery", str(e))
    except Exception as e:  # each broker has its own errors
        summary = f"the broker does not answer: {type(e).__name__}: {mask(str(e))}"
        return _Finding("critical", "celery", summary)
    if not workers:
        summary = "no worker answers: start one with 'celery -A ... worker --beat'"
        return _Finding("critical", "celery", summary)
    takers = {name for name, worker in workers.items() if worker.takes_from(queue)}
    if not takers:
        return _Finding("critical", "celery", _wrong_queue(queue, workers))
    ignorant = [name for name in takers if not workers[name].knows]
    if ignorant:
        summary = (
            f"{', '.join(ignorant)}: does not know the site. Create the Flask app in "
            "the module that 'celery -A' names"
        )
        return _Finding("critical", "celery", summary)
    return _Finding("ok", "celery", f"answered by {', '.join(sorted(takers))}")


def _wrong_queue(queue: str | None, workers: t.Mapping[str, Answer]) -> str:
    taken = {name: worker.queues or [] for name, worker in workers.items()}
    listed = "; ".join(
        f"{name} takes from {', '.join(map(repr, queues)) or 'none'}"
        for name, queues in taken.items()
    )
    other = next((queue for queues in taken.values() for queue in queues), "game")
    return (
        f"no worker takes from the queue {queue!r}, where the task waits: {listed}. "
        f"Start one with '-Q {other},{queue}', or send the task to its queue: "
        f"task_routes = {{'flask_mmolove.*': {other!r}}} in the settings of Celery"
    )


def _check_clock(outcome: Outcome) -> t.Iterator[_Finding]:
    if outcome.clock is None:
        return
    wrong = abs(outcome.clock)
    summary = f"{wrong:.0f} s {'behind' if outcome.clock > 0 else 'ahead of'} MMOLove's"
    if wrong < 2:
        summary = "agrees with MMOLove's"
    if wrong <= _CLOCK_FINE:
        yield _Finding("ok", "clock", summary)
    else:
        action = "set this machine's clock (NTP); signatures more than 300 s off fail"
        yield _Finding("critical", "clock", f"{summary}: {action}")


def _in_words(outcome: Outcome) -> str:
    if outcome.ok:
        return "verified by MMOLove (a dry run)"
    return f"{response_line(outcome.status, outcome.body)}. {outcome.hint}"
