from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import sqlite3
import typing as t
from collections import Counter
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import URL

from example_app import servers
from flask_mmolove import MMOLove
from flask_mmolove.testing import SiteSandbox
from tests import shared

MakeApp = t.Callable[..., Flask]

# A run that was started in the background ignores SIGINT, and so would every server
# that its tests start and mean to stop by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, or one worker would still be at them when all is done."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda i: ("reliability" not in i.path.parts, -tests[i.path]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what to install for the tests that were skipped for want of something."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
    )
    needs: Counter[str] = Counter()
    for reason, count in reasons.items():
        missing = re.search(r"(?:comes with|Not installed): (.*)", reason)
        needs[missing[1] if missing else ""] += count
    others = needs.pop("", 0)
    for need, count in needs.most_common():
        terminalreporter.line(f"{count} skipped tests need: {need}")
    if others:
        terminalreporter.line(f"{others} skipped tests do not apply here; -rs says why")


# -- servers ---------------------------------------------------------------------------

ASK = pytest.StashKey[shared.Ask]()
RUN = pytest.StashKey[shared.Servers]()


def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[ASK] = lambda name: shared.ask(worker["servers"], name)
        return
    if folder := servers.memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))
    run = config.stash[RUN] = shared.Servers()
    config.stash[ASK] = run.start
    config.add_cleanup(run.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: t.Any) -> None:
    """Tell a worker of pytest-xdist where to ask."""
    node.workerinput["servers"] = node.config.stash[RUN].listen()


S = t.TypeVar("S")


def serve(start: t.Callable[[], t.ContextManager[S]]) -> t.Iterator[S]:
    """A server for as long as the fixture lasts, or a test that is skipped."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(start())
        except servers.Missing as e:
            if os.environ.get("CI") and not isinstance(e, servers.Unavailable):
                pytest.fail(f"Not installed: {e}")
            pytest.skip(f"Not installed: {e}")
        yield server


@contextlib.contextmanager
def database(name: str, config: pytest.Config) -> t.Iterator[URL]:
    """A worker's own database, on the server that all share."""
    url = shared.find(name, config.stash[ASK])
    own = f"site_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    execute(url, f"CREATE DATABASE {own} {LETTERS[name]}")
    yield url.set(database=own)


@pytest.fixture(scope="session")
def postgresql(pytestconfig: pytest.Config) -> t.Iterator[URL]:
    yield from serve(lambda: database("postgresql", pytestconfig))


@pytest.fixture(scope="session")
def mariadb(pytestconfig: pytest.Config) -> t.Iterator[URL]:
    yield from serve(lambda: database("mariadb", pytestconfig))


@pytest.fixture(scope="session")
def valkey() -> t.Iterator[servers.Broker]:
    """A broker of the worker's own: some tests kill it."""
    yield from serve(servers.valkey)


@pytest.fixture
def log() -> t.Iterator[io.StringIO]:
    """Everything that is logged at any level, tracebacks included."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def make_app(
    tmp_path: Path, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> t.Iterator[MakeApp]:
    """Makes sites that report to the sandbox; keyword arguments are ``MMOLOVE_*``.

    At the end of each test, no log or file may hold a secret, and no log a token.
    """
    made: list[Flask] = []

    def make(mmolove: MMOLove | None = None, **settings: t.Any) -> Flask:
        app = Flask(__name__, instance_path=str(tmp_path))
        app.config.update(mmolove_sandbox.config, SECRET_KEY="not a secret")
        app.config.update({f"MMOLOVE_{key}": value for key, value in settings.items()})
        (mmolove or MMOLove()).init_app(app)
        made.append(app)
        return app

    yield make
    for app in made:
        state = app.extensions["mmolove"]
        state.engine.stop()
        state.outbox.close()
        secret = app.config["MMOLOVE_REFERRAL_SECRET"]
        assert secret not in log.getvalue()
        folder = state.settings.spool.parent
        for file in filter(Path.is_file, folder.glob("*")):
            assert secret.encode() not in file.read_bytes()
    for referral in mmolove_sandbox.sandbox.referrals:
        assert referral.token not in log.getvalue()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request waits for a held outbox no longer than a test can bear."""
    monkeypatch.setattr("flask_mmolove.recording.recorder.REQUEST_TIMEOUT", 0.2)


class Hold:
    """Another process that keeps the outbox to itself."""

    def __init__(self, app: Flask) -> None:
        outbox = app.extensions["mmolove"].outbox
        outbox.inspector.summary()  # the file is there
        self._connection = sqlite3.connect(outbox._db.path, isolation_level=None)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN EXCLUSIVE")

    def __exit__(self, *exception: object) -> None:
        self._connection.close()


# -- databases -------------------------------------------------------------------------

SERVERS = ("postgresql", "mariadb")
SQL = ("sqlite", *SERVERS)
LETTERS = {"postgresql": "", "mariadb": servers.MARIADB_LETTERS}
EMPTY = {
    "postgresql": ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"),
    "mariadb": (
        "DROP DATABASE {0}",
        f"CREATE DATABASE {{0}} {servers.MARIADB_LETTERS}",
    ),
}


def execute(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def find_url(name: str, request: pytest.FixtureRequest) -> URL:
    """A database that is empty."""
    if name == "sqlite":
        folder = request.getfixturevalue("tmp_path")
        return URL.create("sqlite+pysqlite", database=str(folder / "site.db"))
    url: URL = request.getfixturevalue(name)
    execute(url, *(statement.format(url.database) for statement in EMPTY[name]))
    return url


@pytest.fixture(autouse=True)
def _engines(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    """Close the connections that a test's Flask-SQLAlchemy leaves open. The outbox
    has engines of its own, so what it leaves open is still noticed.
    """
    make, made = SQLAlchemy._make_engine, []

    def note(db: SQLAlchemy, *args: t.Any) -> Engine:
        made.append(make(db, *args))
        return made[-1]

    monkeypatch.setattr(SQLAlchemy, "_make_engine", note)
    yield
    for engine in made:
        engine.dispose()


@pytest.fixture(params=SQL)
def url(request: pytest.FixtureRequest) -> URL:
    """Of each kind of database; one that is to itself for the test."""
    return find_url(request.param, request)
