"""How sites run their tests in a database: each way works with the fixture."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import func
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.conftest import find_url
from tests.conftest import SQL


class Site:
    """A site on Flask-SQLAlchemy.

    :param shares: Whether the outbox is in its database.
    :param early: Whether it names the player before it commits.
    """

    def __init__(
        self, sandbox: SiteSandbox, url: str, shares: bool, early: bool = False
    ) -> None:
        class Base(DeclarativeBase):
            pass

        self.sandbox = sandbox
        self.db = SQLAlchemy(model_class=Base)
        self.app = Flask("game")
        self.app.config.update(sandbox.config, SECRET_KEY="k", TESTING=True)
        self.app.config["SQLALCHEMY_DATABASE_URI"] = url
        self.given: list[str] = []

        class User(self.db.Model):  # type: ignore[name-defined, misc]
            __tablename__ = "recipe_user"
            id: Mapped[int] = mapped_column(primary_key=True)

        self.User = User
        self.db.init_app(self.app)
        mmolove = MMOLove(self.app, db=self.db if shares else None)
        mmolove.reward(lambda referral: self.given.append(referral.identity))

        @self.app.post("/register")
        @referral_register
        def register() -> ResponseReturnValue:
            self.db.session.add(user := User())
            if early:
                registered(user)
            self.db.session.commit()
            if not early:
                registered(user)
            return "welcome"

        @self.app.post("/level")
        def level() -> ResponseReturnValue:
            qualify(self.db.session.scalars(select(User)).first())
            self.db.session.commit()
            return "level 20"

        with self.app.app_context():
            self.db.drop_all()
            self.db.create_all()

    def journey(self) -> None:
        """A friend comes, signs up and reaches the milestone."""
        start = time.monotonic()
        client = self.app.test_client()
        client.get(f"/register?mmref={self.sandbox.mint()}")
        client.post("/register")
        client.post("/level")
        took = time.monotonic() - start
        names = [name for name, _ in self.sandbox.reported]
        assert names == ["registered", "qualified"]
        assert len(self.given) == 1
        assert took < 10  # it waits for no lock

    def check_rolled_back(self) -> None:
        """See that nothing is left, but on SQLite, whose driver begins too late for a
        transaction that starts with a savepoint.
        """
        if self.db.engine.dialect.name != "sqlite":
            assert self.db.session.scalar(select(func.count(self.User.id))) == 0

    def close(self) -> None:
        with self.app.app_context():
            self.db.drop_all()
            self.db.engine.dispose()
        self.app.extensions["mmolove"].outbox.close()


@contextlib.contextmanager
def tables_of_its_own(site: Site) -> t.Iterator[None]:
    """``create_all()`` and ``drop_all()`` around each test."""
    yield


@contextlib.contextmanager
def context_for_the_test(site: Site) -> t.Iterator[None]:
    """An app context that is pushed for the whole test, as pytest-flask does."""
    with site.app.app_context():
        yield


@contextlib.contextmanager
def session_on_a_connection(site: Site) -> t.Iterator[None]:
    """Another ``db.session``, as with older versions of Flask-SQLAlchemy."""
    with site.app.app_context():
        own = site.db.session
        with site.db.engine.connect() as connection:
            transaction = connection.begin()
            site.db.session = site.db._make_scoped_session(
                {
                    "bind": connection,
                    "binds": {},
                    "join_transaction_mode": "create_savepoint",
                }
            )
            try:
                yield
            finally:
                site.db.session.remove()
                site.db.session = own
                transaction.rollback()


@contextlib.contextmanager
def connection_for_the_engine(site: Site) -> t.Iterator[None]:
    """A connection in the place of the engine, whose transaction is rolled back."""
    with site.app.app_context():
        engines: t.Any = site.db.engines
        engine = engines[None]
        with engine.connect() as connection:
            transaction = connection.begin()
            engines[None] = connection
            try:
                yield
            finally:
                site.db.session.remove()
                engines[None] = engine
                transaction.rollback()
        site.check_rolled_back()


RECIPES = [
    tables_of_its_own,
    context_for_the_test,
    session_on_a_connection,
    connection_for_the_engine,
]


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("shares", [True, False], ids=["db", "file"])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", SQL)
def test_a_friend_is_reported_and_rewarded(
    mmolove_sandbox: SiteSandbox,
    request: pytest.FixtureRequest,
    name: str,
    recipe: t.Callable[[Site], t.ContextManager[None]],
    shares: bool,
    early: bool,
) -> None:
    url = find_url(name, request).render_as_string(hide_password=False)
    site = Site(mmolove_sandbox, url, shares, early)
    with recipe(site):
        site.journey()
    site.close()


@pytest.mark.parametrize("shares", [True, False], ids=["db", "file"])
def test_a_database_in_memory_works_too(
    mmolove_sandbox: SiteSandbox, shares: bool
) -> None:
    site = Site(mmolove_sandbox, "sqlite://", shares)
    site.journey()
    site.close()


def test_a_request_that_delivers_waits_no_longer_than_a_request(
    mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    site = Site(mmolove_sandbox, f"sqlite:///{tmp_path}/site.db", shares=True)
    outbox = site.app.extensions["mmolove"].outbox
    assert outbox.timeout < 2
    outbox.timeout = 0.05
    holder = sqlite3.connect(tmp_path / "site.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    with pytest.raises(Exception, match="kept busy"):
        outbox.claim("pending", 0, 1, 1)
    assert time.monotonic() - start < 10
    holder.close()
    site.close()
