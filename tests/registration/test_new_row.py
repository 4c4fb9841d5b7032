"""``new_row``: the row that a request inserts and commits is the player."""

from __future__ import annotations

import logging
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import abort
from flask import Flask
from flask import redirect
from flask import request
from flask.typing import ResponseReturnValue
from sqlalchemy import create_engine
from sqlalchemy import insert
from sqlalchemy import String
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from flask_mmolove import MMOLove
from flask_mmolove import new_row
from flask_mmolove import referral_register
from flask_mmolove.testing import SiteSandbox
from tests.conftest import find_url
from tests.conftest import SQL


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "new_row_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    kind: Mapped[str] = mapped_column(String(10), default="user")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "user"}


class Hero(User):
    __mapper_args__ = {"polymorphic_identity": "hero"}


class Letter(Base):
    __tablename__ = "new_row_letter"

    id: Mapped[int] = mapped_column(primary_key=True)


class Site:
    """A site with SQLAlchemy of its own, and a view for each way to make an account.

    :param pool: How many connections it has.
    """

    def __init__(
        self, sandbox: SiteSandbox, url: t.Any, folder: Path, pool: int = 5
    ) -> None:
        self.sandbox = sandbox
        self.engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=pool,
            max_overflow=0,
            connect_args={"timeout": 30} if "sqlite" in str(url) else {},
        )
        Base.metadata.drop_all(self.engine)
        Base.metadata.create_all(self.engine)
        self.app = Flask(__name__, instance_path=str(folder))
        self.app.config.update(sandbox.config, SECRET_KEY="not a secret")
        self.app.config["MMOLOVE_DELIVERY"] = "manual"
        MMOLove(self.app)
        self.app.post("/register")(referral_register(player=new_row(User))(self.view))
        self.ways: dict[str, t.Callable[[str], ResponseReturnValue]] = {}

    def view(self) -> ResponseReturnValue:
        return self.ways[request.args["way"]](request.args["name"])

    def sign_up(self, way: str, name: str) -> str:
        """Sign up as a visitor with a token, and give the token."""
        token = self.sandbox.mint()
        client = self.app.test_client()
        client.get(f"/?mmref={token}")
        client.post(f"/register?way={way}&name={name}")
        return token

    @property
    def reported(self) -> dict[str, str]:
        """The tokens of the players who are reported, by their ids."""
        outbox = self.app.extensions["mmolove"].outbox
        entries = outbox.inspector.page(limit=1000)
        return {entry.identity: entry.token for entry in entries}

    def id_of(self, name: str) -> str:
        with Session(self.engine) as session:
            return str(session.query(User.id).filter_by(name=name).scalar())

    def close(self) -> None:
        self.app.extensions["mmolove"].outbox.close()
        Base.metadata.drop_all(self.engine)
        self.engine.dispose()


def plain(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session:
        session.add(User(name=name))
        session.commit()
    return redirect("/")


def block(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session, session.begin():
        session.add_all([User(name=name), Letter()])
    return "welcome"


def subclass(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine, expire_on_commit=False) as session:
        session.add(Hero(name=name))
        session.commit()
    return "welcome", 201


def savepoint(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session, session.begin():
        with session.begin_nested():
            session.add(User(name=name))
    return "welcome"


def second_try(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session, session.begin():
        try:
            with session.begin_nested():
                session.add_all([User(name=name), User(name=name)])
        except IntegrityError:
            session.add(User(name=name))
    return "welcome"


@pytest.mark.parametrize("way", [plain, block, subclass, savepoint, second_try])
def test_the_row_is_the_player(
    mmolove_sandbox: SiteSandbox, tmp_path: Path, way: t.Any
) -> None:
    site = Site(mmolove_sandbox, f"sqlite:///{tmp_path}/site.db", tmp_path)
    site.ways["way"] = lambda name: way(site, name)
    token = site.sign_up("way", "anna")
    assert site.reported == {site.id_of("anna"): token}
    site.close()


def rolled_back(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session:
        session.add(User(name=name))
        session.flush()
        session.rollback()
    return "the form again"


def never_committed(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session:
        session.add(User(name=name))
        session.flush()
    return "the form again"


def savepoint_only(site: Site, name: str) -> ResponseReturnValue:
    session = Session(site.engine)
    with session.begin_nested():
        session.add(User(name=name))
    session.rollback()
    session.close()
    return "the form again"


def rolled_back_savepoint(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session, session.begin():
        savepoint = session.begin_nested()
        session.add(User(name=name))
        session.flush()
        savepoint.rollback()
        session.add(Letter())
    return "the form again"


def deleted(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session:
        session.add(user := User(name=name))
        session.commit()
        session.delete(user)
        session.commit()
    return "changed my mind"


def updated(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session:
        session.query(User).filter_by(name="somebody").one().name = name
        session.commit()
    return "a login"


def another_model(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session:
        session.add(Letter())
        session.commit()
    return "sent"


def refused(site: Site, name: str) -> ResponseReturnValue:
    plain(site, name)
    abort(403)


def failed_commit(site: Site, name: str) -> ResponseReturnValue:
    with Session(site.engine) as session:
        session.add(User(name="somebody"))
        try:
            session.commit()
        except IntegrityError:
            session.rollback()
    return "the name is taken"


@pytest.mark.parametrize(
    "way",
    [
        rolled_back,
        never_committed,
        savepoint_only,
        rolled_back_savepoint,
        deleted,
        updated,
        another_model,
        failed_commit,
    ],
)
def test_what_is_no_new_account_reports_nobody(
    mmolove_sandbox: SiteSandbox, tmp_path: Path, way: t.Any
) -> None:
    site = Site(mmolove_sandbox, f"sqlite:///{tmp_path}/site.db", tmp_path)
    plain(site, "somebody")
    site.ways["way"] = lambda name: way(site, name)
    site.sign_up("way", "anna")
    assert site.reported == {}
    site.close()


def test_of_several_rows_none_is_the_player(
    mmolove_sandbox: SiteSandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def family(name: str) -> ResponseReturnValue:
        with Session(site.engine) as session, session.begin():
            session.add_all([User(name=name), User(name=f"{name} junior")])
        return "welcome"

    site = Site(mmolove_sandbox, f"sqlite:///{tmp_path}/site.db", tmp_path)
    site.ways["way"] = family
    site.sign_up("way", "anna")
    assert site.reported == {}
    assert "one commit had 2 rows of User" in caplog.text
    assert "registered(player)" in caplog.text
    site.close()


def test_a_bulk_statement_is_not_seen(
    mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    def bulk(name: str) -> ResponseReturnValue:
        with Session(site.engine) as session, session.begin():
            session.execute(insert(User), [{"name": name}])
        return "welcome"

    site = Site(mmolove_sandbox, f"sqlite:///{tmp_path}/site.db", tmp_path)
    site.ways["way"] = bulk
    site.sign_up("way", "anna")
    assert site.reported == {}
    site.close()


@pytest.mark.slow
@pytest.mark.parametrize("pool", [1, 5])
@pytest.mark.parametrize("name", SQL)
def test_forty_at_once_are_each_reported_with_their_own_token(
    mmolove_sandbox: SiteSandbox,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    pool: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    site = Site(mmolove_sandbox, find_url(name, request), tmp_path, pool)
    site.ways["way"] = lambda player: plain(site, player)
    gate = threading.Barrier(40)

    def sign_up(number: int) -> tuple[str, str]:
        gate.wait(30)
        player = f"player-{number}"
        return player, site.sign_up("way", player)

    with ThreadPoolExecutor(40) as threads:
        signed_up = dict(threads.map(sign_up, range(40)))
    state = site.app.extensions["mmolove"]
    state.make_delivery().import_spool()
    assert site.reported == {site.id_of(p): token for p, token in signed_up.items()}
    site.close()


@pytest.mark.parametrize("model", [dict, "User", User(name="anna"), None, object])
def test_what_is_no_model_is_refused(model: t.Any) -> None:
    with pytest.raises(TypeError, match="takes a model of SQLAlchemy"):
        new_row(model)


def test_a_model_in_its_place_is_told_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"write player=new_row\(User\)"):
        referral_register(player=User)  # type: ignore[arg-type]
