"""Small programs whose instructions are counted.

Run one with ``python -m tests.benchmarks.probes NAME TURNS``.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import sqlite3
import sys
import tempfile
import typing as t
from pathlib import Path

import requests
from flask import Flask
from flask import request
from flask import session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.test import create_environ

from flask_mmolove import MMOLove
from flask_mmolove.clock import milliseconds
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox

from . import host

TOKEN = "t" * 60


def token_of(player: object) -> str:
    """A token of that length, for one player alone."""
    return f"{player!s:t>60}"


#: Events of one turn of the delivery, with the settings as they are.
BATCH = 32

#: Events of one claim in the outbox alone.
CLAIMED = 100

Probe = t.Callable[..., t.ContextManager[t.Callable[[], object]]]
Extend = t.Callable[[Flask], object]

PROBES: dict[str, Probe] = {}


def probe(function: t.Callable[..., t.Iterator[t.Callable[[], object]]]) -> Probe:
    """Register a probe: it makes ready, and yields one turn."""
    made = contextlib.contextmanager(function)
    PROBES[function.__name__] = made
    return made


# -- a request that has nothing to do with referrals -----------------------------------


def _with_hook(app: Flask) -> None:
    app.before_request(lambda: None)


def _with_snippet(app: Flask) -> None:
    """The lines that MMOLove's guide gives, in Flask's words."""

    @app.before_request
    def capture() -> None:
        token = request.args.get("mmref") or request.cookies.get("mmref")
        if token:
            session["mmref"] = token


def _with_login(app: Flask) -> None:
    from flask_login import LoginManager

    LoginManager(app).user_loader(lambda id: None)


def _with_csrf(app: Flask) -> None:
    from flask_wtf.csrf import CSRFProtect

    CSRFProtect(app)


EXTENSIONS: dict[str, Extend] = {
    "nothing": lambda app: None,
    "hook": _with_hook,
    "mmolove": MMOLove,
    "snippet": _with_snippet,
    "login": _with_login,
    "csrf": _with_csrf,
}


@contextlib.contextmanager
def make_app(extend: Extend, **settings: t.Any) -> t.Iterator[Flask]:
    """A site of one page."""
    with tempfile.TemporaryDirectory() as folder:
        app = Flask(__name__, instance_path=folder)
        app.config.update(
            SECRET_KEY="k", MMOLOVE_SERVER_ID="srv", MMOLOVE_REFERRAL_SECRET="s"
        )
        app.config.update(settings)
        app.add_url_rule("/", view_func=lambda: "hello", endpoint="home")
        extend(app)
        yield app
        state = app.extensions.get("mmolove")
        if state is not None:
            state.engine.stop()
            state.outbox.close()


def call(app: Flask, environ: dict[str, t.Any]) -> list[tuple[str, str]]:
    """One request through the WSGI callable; gives the answer's headers."""
    headers: list[tuple[str, str]] = []

    def start_response(status: str, found: t.Any, exc_info: t.Any = None) -> t.Any:
        headers.extend(found)

    answer = app.wsgi_app(environ.copy(), start_response)
    b"".join(answer)
    close = getattr(answer, "close", None)
    if close is not None:
        close()
    return headers


# So that no thread of ours runs beside what is counted. The hook is the same.
_QUIET = {"MMOLOVE_DELIVERY": "manual"}


@probe
def page(extension: str) -> t.Iterator[t.Callable[[], object]]:
    """A page for somebody who was not invited."""
    with make_app(EXTENSIONS[extension], **_QUIET) as app:
        environ = create_environ("/")
        yield lambda: call(app, environ)


@probe
def again(extension: str) -> t.Iterator[t.Callable[[], object]]:
    """A page for an invited visitor whose token is in the session already, and who
    comes by the link once more.
    """
    with make_app(EXTENSIONS[extension], **_QUIET) as app:
        environ = create_environ(f"/?mmref={TOKEN}")
        session = SecureCookieSessionInterface().get_signing_serializer(app)
        assert session is not None
        environ["HTTP_COOKIE"] = f"session={session.dumps({'mmref': TOKEN})}"
        yield lambda: call(app, environ)


# -- the delivery ----------------------------------------------------------------------


@contextlib.contextmanager
def make_delivery(
    endpoint: str, count: int, concurrency: int = 4
) -> t.Iterator[Delivery]:
    """A delivery, and so many events that wait for it."""
    settings: dict[str, t.Any] = {"MMOLOVE_CONCURRENCY": concurrency}
    settings |= {"MMOLOVE_DELIVERY": "manual", "MMOLOVE_ENDPOINT": endpoint}
    with make_app(MMOLove, **settings) as app:
        state = app.extensions["mmolove"]
        for number in range(count):
            invitation = Invitation(token_of(number))
            report = state.recorder.report(str(number), invitation, "registered")
            state.recorder.record(report)
        yield state.make_delivery()


@probe
def delivered() -> t.Iterator[t.Callable[[], object]]:
    """A batch of events: claimed, signed, sent one by one, and settled."""
    with host.serve() as endpoint, make_delivery(endpoint, 15 * BATCH) as delivery:

        def turn() -> None:
            assert delivery.step() == BATCH

        yield turn


@probe
def posted() -> t.Iterator[t.Callable[[], object]]:
    """As many posts of requests, and nothing besides."""
    with host.serve() as endpoint, requests.Session() as session:
        body = make_event("registered", "7", TOKEN, "srv", 10**12, False).encode()

        def turn() -> None:
            for _ in range(BATCH):
                assert session.post(endpoint, data=body, timeout=10).ok

        yield turn


# -- the outbox alone ------------------------------------------------------------------


@probe
def claimed(path: str) -> t.Iterator[t.Callable[[], object]]:
    """A batch of events that wait in a file: claimed and settled."""
    outbox = SQLiteOutbox(Path(path))

    def turn() -> None:
        now = milliseconds()
        entries = outbox.claim("pending", now, 60_000, CLAIMED)
        assert len(entries) == CLAIMED
        outbox.settle([Settlement(e, "accepted", is_fact=True) for e in entries], now)

    yield turn
    outbox.close()


@probe
def stated(path: str) -> t.Iterator[t.Callable[[], object]]:
    """The least that can be asked of SQLite for the same, and no Python besides."""
    SQLiteOutbox(Path(path)).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")
    marks = ", ".join("?" * CLAIMED)

    def turn() -> None:
        now = milliseconds()
        db.execute("BEGIN IMMEDIATE")
        rows = db.execute(
            "SELECT * FROM event WHERE state = 'pending' AND due <= ?"
            " ORDER BY due LIMIT ?",
            (now, CLAIMED),
        ).fetchall()
        ids = [row[0] for row in rows]
        db.execute(
            "UPDATE event SET due = ?, claim = 'c', attempts = attempts + 1"
            f" WHERE id IN ({marks})",
            (now + 60_000, *ids),
        )
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "UPDATE event SET state = 'accepted', due = NULL, claim = NULL,"
            f" settled = ?, status = 200 WHERE id IN ({marks})",
            (now, *ids),
        )
        db.execute("COMMIT")

    yield turn
    db.close()


def main() -> None:
    name, turns, *arguments = sys.argv[1:]
    with PROBES[name](*arguments) as turn:
        # How often the collector comes hangs on all that was ever made and imported.
        gc.disable()
        for _ in range(int(turns)):
            turn()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB


if __name__ == "__main__":
    main()
