"""The site's own data: accounts. Levels and loot are the game's."""

from __future__ import annotations

import typing as t

from flask import current_app
from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import func
from sqlalchemy import Index
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from werkzeug.security import check_password_hash
from werkzeug.security import generate_password_hash


class Base(DeclarativeBase):
    """The models' base. ``db.Model`` would do, but type checkers prefer this."""


db = SQLAlchemy(model_class=Base)


class Player(Base, UserMixin):  # type: ignore[misc]
    """An account, which here has one character."""

    __tablename__ = "player"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))
    password_hash: Mapped[str]

    # "Anna" and "anna" are one name, which the database enforces for all processes.
    # By default SQLite would give the id of a deleted account to a new one, which would
    # inherit what others stored under it.
    __table_args__ = (
        Index("player_name", func.lower(name), unique=True),
        {"sqlite_autoincrement": True},
    )

    @property
    def is_owner(self) -> bool:
        """Whether the site is this player's: whoever joined first owns it."""
        return self.id == 1

    def set_password(self, password: str) -> None:
        method = current_app.config["PASSWORD_HASH_METHOD"]
        self.password_hash = generate_password_hash(password, method=method)

    def check_password(self, password: str) -> bool:
        return check_password_hash(self.password_hash, password)


def load_player(player_id: str) -> Player | None:
    """The player of a session, for Flask-Login."""
    return find_player_by_id(player_id)


def find_player(name: str) -> Player | None:
    return db.session.scalar(
        select(Player).where(func.lower(Player.name) == name.lower())
    )


def find_player_by_id(id: str | None) -> Player | None:
    return None if id is None else db.session.get(Player, int(id))


def find_names(ids: t.Iterable[str]) -> dict[str, str]:
    """The names of those players that are still there, by id."""
    query = select(Player.id, Player.name).where(Player.id.in_(map(int, ids)))
    return {str(id): name for id, name in db.session.execute(query)}
