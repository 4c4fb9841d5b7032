from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sqlite3
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine
from sqlalchemy import URL

from example_app import servers
from flask_mmolove import MMOLove
from flask_mmolove.testing import SiteSandbox

MakeApp = t.Callable[..., Flask]

# A run that was started in the background ignores SIGINT, and so would every server
# that its tests start and mean to stop by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, or one worker would still be at them when all is done."""
    items.sort(key=lambda item: "reliability" not in item.path.parts)


S = t.TypeVar("S")


def serve(start: t.Callable[[], t.ContextManager[S]]) -> t.Iterator[S]:
    """A server for the whole run."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(start())
        except servers.Missing as e:
            if os.environ.get("CI") and not isinstance(e, servers.Unavailable):
                pytest.fail(f"Not installed: {e}")
            pytest.skip(f"Not installed: {e}")
        yield server


@pytest.fixture(scope="session")
def postgresql() -> t.Iterator[URL]:
    yield from serve(servers.postgresql)


@pytest.fixture(scope="session")
def mariadb() -> t.Iterator[URL]:
    yield from serve(servers.mariadb)


@pytest.fixture(scope="session")
def valkey() -> t.Iterator[servers.Broker]:
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

    At the end of each test, no secret may stand in a log or a file, and no token in a
    log.
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
        for file in folder.glob("*") if folder.is_dir() else []:
            assert file.is_dir() or secret.encode() not in file.read_bytes()
    for referral in mmolove_sandbox.sandbox.referrals:
        assert referral.token not in log.getvalue()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


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
EMPTY = {
    "postgresql": ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"),
    "mariadb": ("DROP DATABASE site", servers.MARIADB_SITE),
}


def find_url(name: str, request: pytest.FixtureRequest) -> URL:
    """A database that is empty."""
    if name == "sqlite":
        folder = request.getfixturevalue("tmp_path")
        return URL.create("sqlite+pysqlite", database=str(folder / "site.db"))
    url: URL = request.getfixturevalue(name)
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in EMPTY[name]:
            connection.exec_driver_sql(statement)
    engine.dispose()
    return url


@pytest.fixture(params=SQL)
def url(request: pytest.FixtureRequest) -> URL:
    """Of each kind of database; one that is to itself for the test."""
    return find_url(request.param, request)
