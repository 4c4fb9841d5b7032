"""A site with accounts of its own, in Flask-SQLAlchemy."""

from __future__ import annotations

import typing as t
from pathlib import Path

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import func
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy import URL
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from flask_mmolove import MMOLove
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox


class Base(DeclarativeBase):
    pass


class Player(Base):
    """An account."""

    __tablename__ = "player"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    level: Mapped[int] = mapped_column(default=1)
    mmref: Mapped[str | None] = mapped_column(String(1024))


class Gift(Base):
    """What a referrer was given."""

    __tablename__ = "gift"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(300))


class Site:
    """An app whose accounts and outbox share a database.

    :param url: The database's. Its tables are made anew.
    :param config: The app's.
    """

    def __init__(self, url: str, config: t.Mapping[str, t.Any], folder: str) -> None:
        self.db = SQLAlchemy(model_class=Base)
        self.app = Flask(__name__, instance_path=folder)
        self.app.config.update(config, SECRET_KEY="not a secret")
        self.app.config["SQLALCHEMY_DATABASE_URI"] = url
        self.db.init_app(self.app)
        self.mmolove = MMOLove(self.app, db=self.db)
        with self.app.app_context():
            self.db.create_all()

    @property
    def state(self) -> State:
        return t.cast(State, self.app.extensions["mmolove"])

    def entries(self, identity: object) -> dict[str, Entry]:
        """What everybody can see of a player."""
        return self.state.outbox.of(str(identity), False)

    def count(self, model: type[Base]) -> int:
        with self.app.app_context():
            return self.db.session.scalar(select(func.count()).select_from(model)) or 0

    def add(self, name: str = "anna", **columns: t.Any) -> Player:
        """Put an account into the session."""
        player = Player(name=name, **columns)
        self.db.session.add(player)
        return player

    def close(self) -> None:
        self.state.engine.stop()
        self.state.outbox.close()
        with self.app.app_context():
            self.db.engine.dispose()


MakeSite = t.Callable[..., Site]


def make_sites(url: URL, sandbox: SiteSandbox, folder: Path) -> t.Iterator[MakeSite]:
    """For a fixture that makes sites on a database, and closes them."""
    made = []

    def make(**config: t.Any) -> Site:
        config = {**sandbox.config, **config}
        site = Site(url.render_as_string(False), config, str(folder))
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()
