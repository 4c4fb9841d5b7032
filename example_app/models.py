"""The site's own data: players, and what is in their packs."""

from __future__ import annotations

from flask import current_app
from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey
from sqlalchemy import func
from sqlalchemy import Index
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import relationship
from werkzeug.security import check_password_hash
from werkzeug.security import generate_password_hash


class Base(DeclarativeBase):
    """The models' base. ``db.Model`` would do, but type checkers prefer this."""


db = SQLAlchemy(model_class=Base)


class Player(Base, UserMixin):  # type: ignore[misc]
    """An account, which here is its one character as well."""

    __tablename__ = "player"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))
    password_hash: Mapped[str]
    level: Mapped[int] = mapped_column(default=1)
    invited_by_id: Mapped[int | None] = mapped_column(ForeignKey("player.id"))

    invited_by: Mapped[Player | None] = relationship(
        back_populates="friends", remote_side=[id]
    )
    friends: Mapped[list[Player]] = relationship(
        back_populates="invited_by", order_by=id
    )
    items: Mapped[list[Item]] = relationship(
        back_populates="owner",
        foreign_keys="Item.owner_id",
        order_by="Item.id",
        cascade="all, delete-orphan",
    )
    # Its friends keep them when the account is deleted.
    gifts: Mapped[list[Item]] = relationship(
        back_populates="friend", foreign_keys="Item.friend_id"
    )

    # "Anna" and "anna" are one name, which the database enforces for all processes.
    # By default SQLite would give the id of a deleted account to a new one, which would
    # inherit what others stored under it.
    __table_args__ = (
        Index("player_name", func.lower(name), unique=True),
        {"sqlite_autoincrement": True},
    )

    def set_password(self, password: str) -> None:
        method = current_app.config["PASSWORD_HASH_METHOD"]
        self.password_hash = generate_password_hash(password, method=method)

    def check_password(self, password: str) -> bool:
        return check_password_hash(self.password_hash, password)


class Item(Base):
    """Something in a player's pack.

    ``key`` names the gift itself, and is unique: the pack holds each gift once.
    """

    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    key: Mapped[str] = mapped_column(unique=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("player.id"))
    friend_id: Mapped[int | None] = mapped_column(ForeignKey("player.id"))

    owner: Mapped[Player] = relationship(
        back_populates="items", foreign_keys=[owner_id]
    )
    friend: Mapped[Player | None] = relationship(
        back_populates="gifts", foreign_keys=[friend_id]
    )


def load_player(player_id: str) -> Player | None:
    """The player of a session, for Flask-Login."""
    return find_player_by_id(player_id)


def find_player(name: str) -> Player | None:
    return db.session.scalar(
        select(Player).where(func.lower(Player.name) == name.lower())
    )


def find_player_by_id(id: str | None) -> Player | None:
    return None if id is None else db.session.get(Player, int(id))
