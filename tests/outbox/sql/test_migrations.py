"""The site's own migrations make the outbox's tables, and nothing else does."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy import inspect
from sqlalchemy import MetaData
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from flask_mmolove import OutboxError
from flask_mmolove import registered
from flask_mmolove.outbox.sql.tables import SQLAlchemyTransaction
from flask_mmolove.outbox.sql.tables import tables
from flask_mmolove.testing import SiteSandbox
from tests import sites
from tests.conftest import find_url

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

WHAT_TO_DO = (
    "The site has Flask-Migrate, .*'flask db migrate' and 'flask db upgrade'.* "
    "'flask mmolove init-db --yes'"
)

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


@pytest.mark.slow
def test_a_migration_makes_the_tables_and_nothing_else_does(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    app, db, Player = site.load()
    state = app.extensions["mmolove"]
    # The site is deployed before it is migrated: somebody signs up.
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
    with pytest.raises(OutboxError, match="not exist.*" + WHAT_TO_DO):
        state.make_delivery().drain()
    assert len(state.spool.read()) == 1
    for command in ("init-db", "check"):
        assert re.search(WHAT_TO_DO, site.flask("mmolove", command, ends=1))
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


@pytest.mark.slow
@pytest.mark.parametrize("site", [MIGRATE_FIRST], indirect=True)
def test_it_does_not_matter_which_extension_comes_first(site: Site) -> None:
    site.flask("db", "init")
    found = site.flask("db", "migrate")
    assert all(f"Detected added table '{name}'" in found for name in OURS)


@pytest.mark.slow
def test_where_the_migrations_are_not_the_owner_s_a_command_makes_the_tables(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    """They come with an application that was installed by pip."""
    assert "was created" in site.flask("mmolove", "init-db", "--yes")
    assert "exists already" in site.flask("mmolove", "init-db", "--yes")
    assert site.tables == OURS
    assert "ok    outbox" in site.flask("mmolove", "check")
    app, db, Player = site.load()
    with app.app_context():
        db.create_all()
        player = Player(id=8, name="anna")
        db.session.add(player)
        registered(player, token=mmolove_sandbox.mint())
        db.session.commit()
    state = app.extensions["mmolove"]
    assert state.spool.read() == []
    assert [*state.outbox.of("8", False)] == ["registered"]
    state.outbox.close()


# -- without migrations ----------------------------------------------------------------


@pytest.fixture
def bare(
    url: URL, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> t.Iterator[sites.Site]:
    """A site that has made its own tables and none of ours."""
    config = {**mmolove_sandbox.config, "MMOLOVE_DELIVERY": "manual"}
    site = sites.Site(url.render_as_string(False), config, str(tmp_path))
    with site.app.app_context():
        ours = site.db.metadata.tables
        site.db.metadata.drop_all(site.db.engine, [ours[name] for name in OURS])
    yield site
    site.close()


def names(site: sites.Site) -> set[str]:
    return {*inspect(site.db.engine).get_table_names()}


@pytest.mark.parametrize("flushed", [False, True])
def test_the_first_signup_makes_the_tables_and_is_recorded(
    bare: sites.Site, mmolove_sandbox: SiteSandbox, log: io.StringIO, flushed: bool
) -> None:
    with bare.app.app_context():
        assert not OURS & names(bare)
        for name in ("anna", "ben"):
            player = bare.add(name, mmref=mmolove_sandbox.mint(name))
            if flushed:  # the site's own changes are in the transaction already
                bare.db.session.flush()
            registered(player)
            bare.db.session.commit()
        assert names(bare) >= OURS
    assert bare.count(sites.Player) == 2
    assert [*bare.entries(1)] == [*bare.entries(2)] == ["registered"]
    assert bare.state.spool.read() == []
    assert "is spooled in" not in log.getvalue()


def test_a_first_signup_that_is_rolled_back_leaves_nothing_and_harms_no_second(
    bare: sites.Site, mmolove_sandbox: SiteSandbox
) -> None:
    with bare.app.app_context():
        registered(bare.add("anna", mmref=mmolove_sandbox.mint()))
        bare.db.session.flush()
        bare.db.session.rollback()
        assert bare.count(sites.Player) == 0
        player = bare.add("ben", mmref=mmolove_sandbox.mint("ben"))
        registered(player)
        bare.db.session.commit()
        assert [*bare.entries(player.id)] == ["registered"]
    assert bare.state.spool.read() == []


def test_first_signups_at_once_make_the_tables_once(
    bare: sites.Site, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    together = threading.Barrier(4)

    def sign_up(name: str, token: str) -> None:
        with bare.app.app_context():
            together.wait(20)
            registered(bare.add(name, mmref=token))
            bare.db.session.commit()

    people = {name: mmolove_sandbox.mint(name) for name in "abcd"}
    threads = [threading.Thread(target=sign_up, args=each) for each in people.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bare.count(sites.Player) == 4
    bare.state.make_delivery().drain()
    assert len(mmolove_sandbox.reported) == 4
    assert "is spooled in" not in log.getvalue()


def test_tables_that_may_not_be_made_cost_no_signup(
    bare: sites.Site, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = OperationalError("", None, Exception("permission denied"))

    def refuse(transaction: SQLAlchemyTransaction) -> t.NoReturn:
        raise refused

    monkeypatch.setattr(SQLAlchemyTransaction, "create", refuse)
    with bare.app.app_context():
        registered(bare.add("anna", mmref=mmolove_sandbox.mint()))
        bare.db.session.commit()
    assert bare.count(sites.Player) == 1
    assert [note.identity for _, note in bare.state.spool.read()] == ["1"]
    with pytest.raises(OutboxError, match="the user may make its tables"):
        bare.state.outbox.probe()
    monkeypatch.undo()
    bare.state.make_delivery().drain()
    assert mmolove_sandbox.reported == [("registered", "1")]


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
