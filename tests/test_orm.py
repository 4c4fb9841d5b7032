"""A site with SQLAlchemy's own sessions: they are closed before we hear of a player."""

from __future__ import annotations

import io
import typing as t
import uuid
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import Session
from sqlalchemy.orm import sessionmaker
from werkzeug.local import LocalProxy

from flask_mmolove import IdentityError
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

UUID = uuid.UUID(int=7)

Make = sessionmaker[Session]
Reported = list[tuple[str, str | None]]


class Base(DeclarativeBase):
    pass


class Player(Base):
    __tablename__ = "player"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="anna")
    mmref: Mapped[str | None]


class Knight(Player):
    """Its table has a key of its own, which is a player's."""

    __tablename__ = "knight"
    id: Mapped[int] = mapped_column(ForeignKey("player.id"), primary_key=True)


class Login(Base):
    """Its key has another name, and is asked for as Flask-Login does."""

    __tablename__ = "login"
    key: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=lambda: UUID)

    def get_id(self) -> str:
        return str(self.key)


class Guild(Base):
    """It has two keys."""

    __tablename__ = "guild"
    world: Mapped[int] = mapped_column(primary_key=True, default=1)
    number: Mapped[int] = mapped_column(primary_key=True, default=2)

    @property
    def id(self) -> str:
        return f"{self.world}-{self.number}"


@pytest.fixture
def make(tmp_path: Path) -> t.Iterator[Make]:
    engine = create_engine(f"sqlite:///{tmp_path}/players.db")
    Base.metadata.create_all(engine)
    yield sessionmaker(engine)
    engine.dispose()


def join(app: Flask, sandbox: SiteSandbox, view: t.Callable[[], object]) -> Reported:
    """What is reported of a visitor with a token who fills in the signup form."""

    @app.post("/register")
    @referral_register
    def register() -> str:
        view()
        return "welcome"

    client = app.test_client()
    client.get(f"/?mmref={sandbox.mint()}")
    client.post("/register")
    return sandbox.reported


@pytest.mark.parametrize("when", ["pending", "flushed", "closed"])
@pytest.mark.parametrize(
    ("model", "identity"),
    [(Player, "1"), (Knight, "1"), (Login, str(UUID)), (Guild, "1-2")],
)
def test_a_player_whose_session_is_closed(
    app: Flask,
    make: Make,
    mmolove_sandbox: SiteSandbox,
    model: type[Base],
    identity: str,
    when: str,
) -> None:
    def view() -> None:
        with make.begin() as db:
            db.add(player := model())
            if when == "pending":
                registered(player)
            if when == "flushed":
                db.flush()
                registered(player)
        if when == "closed":
            registered(player)

    assert join(app, mmolove_sandbox, view) == [("registered", identity)]


def test_a_rule_may_read_the_primary_key(
    make_app: MakeApp, make: Make, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    mmolove.identity(lambda player: str(player.key))

    def view() -> None:
        with make.begin() as db:
            db.add(player := Login())
        registered(LocalProxy(lambda: player))

    reported = join(make_app(mmolove), mmolove_sandbox, view)
    assert reported == [("registered", str(UUID))]


def test_a_player_who_was_never_flushed_is_nobody(
    app: Flask, make: Make, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    def view() -> None:
        with make() as db:
            db.add(player := Login())
            registered(player)

    assert join(app, mmolove_sandbox, view) == []
    assert "The identity of a new Login is 'None'" in log.getvalue()


@pytest.mark.parametrize("how", ["rollback", "delete"])
def test_a_player_whose_row_is_undone_after_they_were_named_is_nobody(
    app: Flask, make: Make, mmolove_sandbox: SiteSandbox, log: io.StringIO, how: str
) -> None:
    def view() -> None:
        with make() as db:
            db.add(player := Player())
            db.flush()
            registered(player)
            if how == "delete":
                db.delete(player)
                db.commit()
            else:
                db.rollback()

    assert join(app, mmolove_sandbox, view) == []
    assert "named player 1, who was not reported: its row was rolled back" in (
        log.getvalue()
    )


def test_a_player_who_is_in_no_session_is_taken_as_named(
    app: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    def view() -> None:
        registered(Player(id=7))

    assert join(app, mmolove_sandbox, view) == [("registered", "7")]


def test_what_else_is_not_loaded_is_told_with_a_cure(
    make_app: MakeApp, make: Make, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    mmolove = MMOLove()
    mmolove.identity(lambda player: player.name)

    def view() -> None:
        with make.begin() as db:
            db.add(player := Player())
        registered(player)

    assert join(make_app(mmolove), mmolove_sandbox, view) == []
    assert "The database session of this Player is closed" in log.getvalue()
    assert "expire_on_commit=False" in log.getvalue()
    assert "Traceback" not in log.getvalue()


def test_what_a_rule_raises_is_its_own(
    make_app: MakeApp, make: Make, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove)

    @mmolove.identity
    def identity(player: Player) -> str:
        raise LookupError("no such player")

    with app.app_context(), pytest.raises(LookupError, match="no such player"):
        qualify(Player(id=1))


def test_a_milestone_of_a_player_whose_session_is_closed(
    app: Flask, make: Make, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    players = []

    def view() -> None:
        with make.begin() as db:
            db.add(player := Player())
        players.append(player)
        registered(player)

    join(app, mmolove_sandbox, view)
    with app.app_context():
        assert qualify(players[0])
    assert mmolove_sandbox.reported == [("registered", "1"), ("qualified", "1")]
    # Had the signup not been recorded, the token would have been there.
    assert "The token in Player.mmref could not be read" in log.getvalue()


def test_a_player_without_an_identity_is_an_error_still(app: Flask) -> None:
    with app.app_context(), pytest.raises(IdentityError, match="is None"):
        qualify(Player())
