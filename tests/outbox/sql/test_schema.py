"""A site that has its tables in a schema: ours are there too, and everyone who asks for
them looks there.
"""

from __future__ import annotations

import io
import typing as t
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import inspect
from sqlalchemy import Integer
from sqlalchemy import MetaData
from sqlalchemy import URL
from sqlalchemy.orm import mapped_column

from flask_mmolove import MMOLove
from flask_mmolove import OutboxError
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox

#: It has to be quoted.
SCHEMA = "my-Game"

WAYS = (
    "metadata",
    pytest.param("translated", marks=pytest.mark.slow),
    "connection",
)


class Site:
    """A site that says in one of the ways where its tables are."""

    def __init__(
        self, url: URL, way: str, config: dict[str, t.Any], folder: Path
    ) -> None:
        in_metadata = SCHEMA if way in ("metadata", "nowhere") else None
        options = {"schema_translate_map": {None: SCHEMA}}
        self.app = Flask(__name__, instance_path=str(folder))
        self.app.config.update(
            config,
            SECRET_KEY="not a secret",
            MMOLOVE_DELIVERY="manual",
            SQLALCHEMY_DATABASE_URI=url,
            SQLALCHEMY_ENGINE_OPTIONS=(
                {"execution_options": options} if way == "translated" else {}
            ),
        )
        self.db = SQLAlchemy(metadata=MetaData(schema=in_metadata))
        self.db.init_app(self.app)
        self.mmolove = MMOLove(self.app, db=self.db)
        with self.app.app_context():
            self.engine = self.db.engine
        # The site says it late.
        if url.get_backend_name() == "sqlite" and way != "nowhere":
            event.listen(self.engine, "connect", attach(folder))
        elif way == "connection":
            event.listen(self.engine, "connect", enter)

        class Player(self.db.Model):  # type: ignore[misc, name-defined]
            id = mapped_column(Integer, primary_key=True)

        self.Player: t.Any = Player

    @property
    def state(self) -> State:
        return t.cast(State, self.app.extensions["mmolove"])

    @property
    def outbox(self) -> SQLAlchemyOutbox:
        return t.cast(SQLAlchemyOutbox, self.state.outbox)

    def tables(self, schema: str | None) -> set[str]:
        names = inspect(self.engine).get_table_names(schema)
        return {name for name in names if name.startswith("mmolove_")}

    def invoke(self, *args: str) -> str:
        (command,) = entry_points(group="flask.commands", name="mmolove")
        info = ScriptInfo(create_app=lambda: self.app)
        return CliRunner().invoke(command.load(), args, obj=info).output

    def close(self) -> None:
        self.state.engine.stop()
        self.outbox.close()
        self.engine.dispose()


def attach(folder: Path) -> t.Callable[..., None]:
    def connect(connection: t.Any, record: object) -> None:
        connection.execute(f"ATTACH '{folder}/game.db' AS \"{SCHEMA}\"").close()

    return connect


def enter(connection: t.Any, record: object) -> None:
    connection.autocommit = True
    connection.execute(f'SET search_path TO "{SCHEMA}"').close()
    connection.autocommit = False


def do(url: URL, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        quote = engine.dialect.identifier_preparer.quote
        connection.exec_driver_sql(statement.format(quote(SCHEMA)))
    engine.dispose()


@pytest.fixture(params=WAYS)
def site(
    request: pytest.FixtureRequest,
    url: URL,
    mmolove_sandbox: SiteSandbox,
    tmp_path: Path,
) -> t.Iterator[Site]:
    name = url.get_backend_name()
    if request.param == "connection" and name != "postgresql":
        pytest.skip("There is no search_path")
    if name != "sqlite":
        do(url, "CREATE SCHEMA {}")
    site = Site(url, request.param, dict(mmolove_sandbox.config), tmp_path)
    yield site
    site.close()
    if name != "sqlite":
        cascade = "CASCADE" if name == "postgresql" else ""
        do(url, f"DROP SCHEMA {{}} {cascade}")


def play(site: Site, sandbox: SiteSandbox) -> dict[str, Entry]:
    with site.app.app_context():
        player = site.Player()
        site.db.session.add(player)
        registered(player, token=sandbox.mint())
        qualify(player)
        site.db.session.commit()
        id = player.id
    site.state.make_delivery().drain()
    return site.outbox.of(str(id), False)


@pytest.mark.parametrize("made", ["by the site", "by the command", "by the first use"])
def test_our_tables_are_where_the_site_s_are(
    site: Site, mmolove_sandbox: SiteSandbox, log: io.StringIO, made: str
) -> None:
    site.mmolove.reward(lambda referral: None)
    with site.app.app_context():
        if made == "by the site":
            site.db.create_all()
        else:
            site.Player.__table__.create(site.engine)
    if made == "by the command":
        assert "was created" in site.invoke("init-db")
    if made == "by the first use":
        site.outbox.probe()
    assert len(site.tables(SCHEMA)) == len(site.outbox.tables)
    assert site.tables(None) in (set(), site.tables(SCHEMA))
    assert "exists already" in site.invoke("init-db")

    entries = play(site, mmolove_sandbox)
    assert entries["registered"].state == "accepted"
    assert entries["qualified"].state == "rewarded"
    assert site.state.spool.read() == []
    assert "Traceback" not in log.getvalue()
    findings = [line.split()[:2] for line in site.invoke("check").splitlines()]
    assert ["ok", "outbox"] in findings


def test_what_a_person_asks_and_orders_is_there(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    with site.app.app_context():
        site.db.create_all()
    play(site, mmolove_sandbox)
    inspector = site.outbox.inspector
    assert inspector.summary().counts
    assert inspector.page(state="accepted") and inspector.page(player="1")
    assert "Traceback" not in "".join(
        map(site.invoke, ("status", "events", "referrers"))
    )
    assert "1" in site.invoke("forget", "1", "--yes")
    assert inspector.page() == []


def test_a_session_s_own_map_of_schemas_is_not_ours(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    """Delivery does not know it."""
    with site.app.app_context():
        site.db.create_all()
        mapped: dict[str | None, str] = {None: "tenant", SCHEMA: "tenant"}
        options = {"schema_translate_map": mapped}
        site.db.session.connection(execution_options=options)
        registered(1, token=mmolove_sandbox.mint())
    assert site.outbox.of("1", False)["registered"].state == "pending"


def test_a_schema_that_is_missing_is_named(
    url: URL, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    site = Site(url, "nowhere", dict(mmolove_sandbox.config), tmp_path)
    with pytest.raises(OutboxError, match=f"Make the schema '{SCHEMA}' first"):
        site.outbox.probe()
    site.close()


def test_a_column_that_no_migration_made_is_told(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    site.outbox.probe()
    quote = site.engine.dialect.identifier_preparer.quote
    with site.engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER TABLE {quote(SCHEMA)}.mmolove_held DROP COLUMN referrer"
        )
    assert "with a migration" in site.invoke("check")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_player_of_another_bind_signs_up_whatever_becomes_of_ours(
    mmolove_sandbox: SiteSandbox, tmp_path: Path, is_there: bool
) -> None:
    gone = "postgresql+psycopg://127.0.0.1:1/gone"
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(
        mmolove_sandbox.config,
        SECRET_KEY="not a secret",
        MMOLOVE_DELIVERY="manual",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/own.db" if is_there else gone,
        SQLALCHEMY_BINDS={"players": f"sqlite:///{tmp_path}/players.db"},
    )
    db = SQLAlchemy(app)
    MMOLove(app, db=db)

    class Player(db.Model):  # type: ignore[misc, name-defined]
        __bind_key__ = "players"
        id = mapped_column(Integer, primary_key=True)

    with app.app_context():
        db.create_all([None, "players"] if is_there else "players")
        player: t.Any = Player()
        db.session.add(player)
        registered(player, token=mmolove_sandbox.mint())
        db.session.commit()
        assert db.session.get(Player, 1)
    state = app.extensions["mmolove"]
    if is_there:
        assert state.outbox.of("1", False)["registered"].state == "pending"
    else:
        [(_, note)] = state.spool.read()
        assert note.identity == "1"
    state.engine.stop()
    state.outbox.close()
