"""The site's own migrations make the outbox's tables, and nothing else does."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from conftest import find_url
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy import inspect
from sqlalchemy import MetaData
from sqlalchemy import URL

from flask_mmolove import OutboxError
from flask_mmolove import registered
from flask_mmolove.outbox.rows import tables
from flask_mmolove.testing import SiteSandbox

SITE = """
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from flask_mmolove import MMOLove

app = Flask(__name__, instance_path={folder!r})
app.config.from_prefixed_env()
db = SQLAlchemy(app)
{extensions}


class Player(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(20), unique=True)
"""

OURS = {table.name for table in tables(MetaData())}


class Site:
    """A site with Flask-Migrate, as its owner has it: a module and a command line."""

    def __init__(self, folder: Path, url: URL, extensions: str) -> None:
        self.folder = folder
        self.url = url
        text = SITE.format(folder=str(folder / "instance"), extensions=extensions)
        (folder / "game.py").write_text(text)

    def flask(self, *args: str, ends: int = 0) -> str:
        """What a command prints, errors included."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "game", *args],
            cwd=self.folder,
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == ends, done.stdout
        return done.stdout

    @property
    def tables(self) -> set[str]:
        engine = create_engine(self.url)
        names = {*inspect(engine).get_table_names()}
        engine.dispose()
        return names

    def load(self) -> tuple[Flask, SQLAlchemy, type[t.Any]]:
        names = runpy.run_path(str(self.folder / "game.py"), run_name="game")
        return names["app"], names["db"], names["Player"]


MIGRATE_FIRST = "Migrate(app, db)\nMMOLove(app, db=db)"
MMOLOVE_FIRST = "MMOLove(app, db=db)\nMigrate(app, db)"


@pytest.fixture
def site(
    request: pytest.FixtureRequest,
    mmolove_sandbox: SiteSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    url = find_url("postgresql", request)
    config = {
        **mmolove_sandbox.config,
        "SQLALCHEMY_DATABASE_URI": url.render_as_string(False),
        "SECRET_KEY": "not a secret",
        "MMOLOVE_DELIVERY": "manual",
    }
    for key, value in config.items():
        monkeypatch.setenv(f"FLASK_{key}", json.dumps(str(value)))
    return Site(tmp_path, url, getattr(request, "param", MMOLOVE_FIRST))


def test_a_migration_makes_the_tables_and_nothing_else_does(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    app, db, Player = site.load()
    state = app.extensions["mmolove"]
    # The site is deployed before it is migrated: somebody signs up.
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
    with pytest.raises(
        OutboxError, match=r"not exist\. Make its tables with a migration"
    ):
        state.make_delivery().drain()
    assert len(state.spool.read()) == 1
    refused = site.flask("mmolove", "init-db", ends=1)
    assert "'flask db migrate' and 'flask db upgrade'" in refused
    assert site.tables == set()

    site.flask("db", "init")
    found = site.flask("db", "migrate")
    assert all(f"Detected added table '{name}'" in found for name in OURS)
    assert site.tables == {"alembic_version"}
    site.flask("db", "upgrade")
    assert site.tables == {"alembic_version", "player", *OURS}
    assert "No new upgrade operations detected." in site.flask("db", "check")

    with app.app_context():
        player = Player(id=8, name="anna")
        db.session.add(player)
        registered(player, token=mmolove_sandbox.mint())
        db.session.commit()
    state.make_delivery().drain()
    assert state.spool.read() == []
    assert {*mmolove_sandbox.reported} == {("registered", "7"), ("registered", "8")}
    state.outbox.close()
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("site", [MIGRATE_FIRST], indirect=True)
def test_it_does_not_matter_which_extension_comes_first(site: Site) -> None:
    site.flask("db", "init")
    found = site.flask("db", "migrate")
    assert all(f"Detected added table '{name}'" in found for name in OURS)


def test_a_second_migration_finds_no_difference(url: URL) -> None:
    metadata = MetaData()
    tables(metadata)
    engine = create_engine(url)
    metadata.create_all(engine)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    engine.dispose()
