"""Rows are watched in every kind of session, and reported with their commit."""

from __future__ import annotations

import subprocess
import sys
import threading
import typing as t
from contextlib import nullcontext
from pathlib import Path

import pytest
from flask import abort
from flask import Flask
from flask import redirect
from flask import request
from flask import Response
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy import ForeignKey
from sqlalchemy import func
from sqlalchemy import insert
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import scoped_session
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool
from werkzeug.test import TestResponse

from flask_mmolove import MMOLove
from flask_mmolove import new_row
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox

FIRST = [("registered", "1")]


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    kind: Mapped[str] = mapped_column(String(10))

    __mapper_args__ = {
        "polymorphic_on": "kind",
        "polymorphic_identity": "user",
    }


class Leader(User):
    """In a table of its own besides."""

    __tablename__ = "leader"

    id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
    guild: Mapped[str] = mapped_column(String(50), default="Owls")

    __mapper_args__ = {"polymorphic_identity": "leader"}


class Visit(Base):
    """What a signup writes besides."""

    __tablename__ = "visit"

    id: Mapped[int] = mapped_column(primary_key=True)


class Character(Base):
    __tablename__ = "game_character"

    world: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(20), primary_key=True)


class Site:
    """A site with Flask-SQLAlchemy.

    :param joined: Whether the outbox is in its database.
    """

    def __init__(
        self,
        url: str,
        joined: bool,
        config: dict[str, t.Any],
        folder: Path,
        **pool: int,
    ) -> None:
        self.db = SQLAlchemy(model_class=Base)
        self.app = Flask(__name__, instance_path=str(folder))
        self.app.config.update(config, SECRET_KEY="not a secret")
        self.app.config["SQLALCHEMY_DATABASE_URI"] = url
        self.app.config["SQLALCHEMY_ENGINE_OPTIONS"] = pool
        self.db.init_app(self.app)
        self.mmolove = MMOLove(self.app, db=self.db if joined else None)
        with self.app.app_context():
            self.db.drop_all()
            self.db.create_all()

    @property
    def state(self) -> State:
        return t.cast(State, self.app.extensions["mmolove"])

    def signup(self, model: type[Base] = User) -> t.Callable[[t.Any], t.Any]:
        """Makes a function the signup view."""

        def decorate(view: t.Any) -> t.Any:
            decorated = referral_register(player=new_row(model))(view)
            return self.app.post("/register")(decorated)

        return decorate

    def sign_up(self, token: str, name: str = "anna") -> TestResponse:
        """Somebody fills in the form."""
        client = self.app.test_client()
        client.get(f"/?mmref={token}")
        return client.post("/register", data={"name": name})

    def add(self, kind: type[User] = User, name: str | None = None) -> User:
        user = kind(name=name or request.form["name"])
        self.db.session.add(user)
        return user

    def tokens(self) -> dict[str, str]:
        """Whom the outbox has, each with the token."""
        return {
            e.identity: e.token for e in self.state.outbox.inspector.page(limit=100)
        }

    def count(self) -> int:
        with self.app.app_context():
            return self.db.session.scalar(select(func.count(User.id))) or 0

    def close(self) -> None:
        self.state.engine.stop()
        self.state.outbox.close()
        with self.app.app_context():
            self.db.drop_all()


MakeSite = t.Callable[..., Site]


@pytest.fixture(params=["own outbox", "site's outbox"])
def joined(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "site's outbox")


@pytest.fixture
def make_site(
    joined: bool, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> t.Iterator[MakeSite]:
    made: list[Site] = []

    def make(url: str, **pool: int) -> Site:
        config = {**mmolove_sandbox.config, "MMOLOVE_DELIVERY": "manual"}
        site = Site(url, joined, config, tmp_path, **pool)
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site: MakeSite, tmp_path: Path) -> Site:
    """On SQLite."""
    return make_site(f"sqlite:///{tmp_path / 'site.db'}")


@pytest.fixture
def token(mmolove_sandbox: SiteSandbox) -> str:
    return mmolove_sandbox.mint()


# -- what is reported ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["commit", "flush", "begin", "savepoint", "close"])
def test_the_row_that_a_view_commits_is_the_new_player(
    site: Site, token: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = site.db.session

    @site.signup()
    def register() -> ResponseReturnValue:
        session.add(Visit())
        if how == "begin":
            session.rollback()
            with session.begin():
                site.add()
        elif how == "savepoint":
            with session.begin_nested():
                site.add()
        else:
            site.add()
        if how == "flush":
            session.flush()
        session.commit()
        if how == "close":
            session.close()
        return "welcome"

    response = site.sign_up(token)
    assert site.tokens() == {"1": token}
    assert site.state.views.read()["register"].named == 1
    cleared = response.headers.getlist("Set-Cookie")
    assert any(cookie.startswith("mmolove_ref=;") for cookie in cleared)
    assert not caplog.records


@pytest.mark.parametrize("when", ["after_request", "teardown_request"])
def test_a_commit_that_comes_after_the_view_is_in_time(
    site: Site, token: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    if when == "after_request":

        @site.app.after_request
        def commit(response: Response) -> Response:
            site.db.session.commit()
            return response
    else:

        @site.app.teardown_request
        def commit_last(error: BaseException | None) -> None:
            site.db.session.commit()

    @site.signup()
    def register() -> str:
        site.add()
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"1": token}
    assert not caplog.records


@pytest.mark.parametrize("answer", ["200", "redirect", "403", "abort", "crash"])
def test_what_the_view_answers_does_not_matter(
    site: Site, token: str, answer: str
) -> None:
    @site.signup()
    def register() -> ResponseReturnValue:
        site.add()
        site.db.session.commit()
        if answer == "abort":
            abort(403)
        if answer == "crash":
            raise ValueError
        return redirect("/register") if answer == "redirect" else ("", int(answer))

    site.sign_up(token)
    assert site.tokens() == {"1": token}


def test_an_exception_that_reaches_the_server_loses_no_row(
    site: Site, token: str
) -> None:
    site.app.testing = True

    @site.signup()
    def register() -> t.NoReturn:
        site.add()
        site.db.session.commit()
        raise ValueError

    with pytest.raises(ValueError):
        site.sign_up(token)
    assert site.tokens() == {"1": token}


def test_a_player_of_a_subclass_counts_and_others_do_not(
    site: Site, token: str
) -> None:
    @site.signup()
    def register() -> str:
        site.db.session.add(Visit())
        site.add(Leader)
        site.db.session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"1": token}


def test_of_a_subclass_alone_its_base_does_not_count(site: Site, token: str) -> None:
    @site.signup(Leader)
    def register() -> str:
        site.add()
        site.db.session.commit()
        site.add(Leader, "ben")
        site.db.session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"2": token}


def test_a_key_of_several_columns_is_the_identity_rules_business(
    site: Site, token: str
) -> None:
    @site.mmolove.identity
    def identify(player: Character) -> str:
        return f"{player.world}/{player.name}"

    @site.signup(Character)
    def register() -> str:
        site.db.session.add(Character(world="Norrath", name=request.form["name"]))
        site.db.session.commit()
        site.db.session.close()
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"Norrath/anna": token}


def test_an_async_view_is_watched_too(site: Site, token: str) -> None:
    @site.signup()
    async def register() -> str:
        site.add()
        site.db.session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"1": token}


def test_whom_the_view_names_counts_before_the_row(site: Site, token: str) -> None:
    @site.signup()
    def register() -> str:
        registered("7")
        site.add()
        site.db.session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"7": token}


def test_naming_the_row_besides_changes_nothing(site: Site, token: str) -> None:
    @site.signup()
    def register() -> str:
        user = site.add()
        site.db.session.commit()
        registered(user)
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"1": token}


def test_a_view_that_is_decorated_twice_reports_once(
    site: Site, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    @site.signup()
    def register() -> str:
        site.add()
        site.db.session.commit()
        return "welcome"

    site.mmolove.attach(site.app, "register", player=new_row(User))
    site.sign_up(token)
    assert site.tokens() == {"1": token}
    assert not caplog.records


# -- what is not -----------------------------------------------------------------------


def test_a_commit_that_fails_reports_nobody(site: Site, token: str) -> None:
    @site.signup()
    def register() -> ResponseReturnValue:
        site.add()
        try:
            site.db.session.commit()
        except IntegrityError:
            site.db.session.rollback()
            return redirect("/")
        return "welcome"

    site.app.test_client().post("/register", data={"name": "anna"})
    assert site.sign_up(token).status_code == 302
    assert site.tokens() == {}
    site.sign_up(token, "ben")
    assert list(site.tokens().values()) == [token]


@pytest.mark.parametrize("how", ["rollback", "savepoint"])
def test_a_view_that_tries_again_reports_whom_it_commits(
    site: Site, token: str, how: str
) -> None:
    session = site.db.session

    @site.signup()
    def register() -> str:
        for name in ("anna", "anna2"):
            try:
                with session.begin_nested() if how == "savepoint" else nullcontext():
                    site.add(name=name)
                session.commit()
                break
            except IntegrityError:
                if how == "rollback":
                    session.rollback()
        return "welcome"

    site.app.test_client().post("/register", data={"name": "anna"})
    site.sign_up(token)
    with site.app.app_context():
        user = session.scalar(select(User).filter_by(name="anna2"))
        assert user is not None
        assert site.tokens() == {str(user.id): token}


@pytest.mark.parametrize(
    "how", ["rollback", "savepoint", "after savepoint", "delete", "forget"]
)
def test_a_row_that_does_not_last_is_nobody(
    site: Site, token: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = site.db.session

    @site.signup()
    def register() -> str:
        session.add(Visit())
        if "savepoint" in how:
            savepoint = session.begin_nested()
        user = site.add()
        session.flush()
        if how == "after savepoint":
            savepoint.commit()
        if how in ("rollback", "after savepoint"):
            session.rollback()
        if how == "savepoint":
            savepoint.rollback()
        if how == "delete":
            session.delete(user)
        if how != "forget":
            session.add(Visit())
            session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.count() == 0
    assert site.tokens() == {}
    assert "the row of User that it inserted was not committed" in caplog.text


def test_of_several_rows_in_one_commit_none_is_taken(
    site: Site, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    @site.signup()
    def register() -> str:
        site.add(name="ben")
        site.db.session.flush()
        site.add()
        site.db.session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.count() == 2
    assert site.tokens() == {}
    assert "one commit had 2 rows of User" in caplog.text
    assert "registered(player)" in caplog.text


def test_the_first_commit_that_has_a_row_decides(site: Site, token: str) -> None:
    @site.signup()
    def register() -> str:
        site.db.session.add(Visit())
        site.db.session.commit()
        site.add()
        site.db.session.commit()
        site.add(name="her bank")
        site.db.session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"1": token}


def test_rows_that_are_inserted_in_bulk_are_not_seen(
    site: Site, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    @site.signup()
    def register() -> str:
        site.db.session.execute(insert(User).values(name="anna", kind="user"))
        site.db.session.commit()
        return "welcome"

    site.sign_up(token)
    assert site.count() == 1
    assert site.tokens() == {}
    assert "it committed no row of User, unless by a bulk" in caplog.text


def test_without_a_token_and_in_other_views_nothing_is_watched(
    site: Site, token: str
) -> None:
    @site.signup()
    def register() -> str:
        site.add()
        site.db.session.commit()
        return "welcome"

    site.app.post("/other", endpoint="other")(register.__wrapped__)
    site.app.test_client().post("/register", data={"name": "anna"})
    site.app.test_client().post(f"/other?mmref={token}", data={"name": "ben"})
    with site.app.app_context():
        site.add(name="carl")
        site.db.session.commit()
    assert site.count() == 3
    assert site.tokens() == {}


def test_an_account_that_is_changed_is_nobody_new(
    site: Site, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    @site.signup()
    def rename() -> str:
        user = site.db.session.scalars(select(User)).one()
        user.name = request.form["name"]
        site.db.session.add(Visit())
        site.db.session.commit()
        return "renamed"

    with site.app.app_context():
        site.add(name="ben")
        site.db.session.commit()
    site.sign_up(token)
    assert site.tokens() == {}
    assert "it committed no row of User" in caplog.text


def test_rows_of_before_the_view_are_nobody(site: Site, token: str) -> None:
    @site.app.before_request
    def make_guest() -> None:
        if request.method == "POST":
            site.add(name="guest")
            site.db.session.commit()

    @site.signup()
    def register() -> str:
        return "no"

    site.sign_up(token)
    assert site.count() == 1
    assert site.tokens() == {}


# -- sessions of other kinds -----------------------------------------------------------


def make_plain_app(sandbox: SiteSandbox, folder: Path) -> Flask:
    app = Flask(__name__, instance_path=str(folder))
    app.config.update(sandbox.config, SECRET_KEY="not a secret")
    MMOLove(app)
    return app


@pytest.mark.parametrize("scoped", [True, False])
def test_a_session_of_the_sites_own_is_watched_alike(
    mmolove_sandbox: SiteSandbox, tmp_path: Path, scoped: bool
) -> None:
    app = make_plain_app(mmolove_sandbox, tmp_path)
    engine = create_engine(f"sqlite:///{tmp_path / 'site.db'}")
    Base.metadata.create_all(engine)
    make_session = sessionmaker(engine)
    registry = scoped_session(make_session)

    @app.post("/register")
    @referral_register(player=new_row(User))
    def register() -> str:
        if scoped:
            registry.add(User(name="anna"))
            registry.commit()
            registry.remove()
        else:
            with make_session.begin() as session:
                session.add(User(name="anna"))
        return "welcome"

    app.test_client().post(f"/register?mmref={mmolove_sandbox.mint()}")
    assert mmolove_sandbox.reported == FIRST
    engine.dispose()
    app.extensions["mmolove"].outbox.close()


def test_a_row_that_the_view_deletes_again_is_nobody(
    mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    app = make_plain_app(mmolove_sandbox, tmp_path)
    engine = create_engine(f"sqlite:///{tmp_path / 'site.db'}")
    Base.metadata.create_all(engine)

    @app.post("/register")
    @referral_register(player=new_row(User))
    def register() -> str:
        with sessionmaker(engine)() as session:
            session.add(user := User(name="anna"))
            session.commit()
            session.delete(user)
            session.commit()
        return "changed my mind"

    app.test_client().post(f"/register?mmref={mmolove_sandbox.mint()}")
    assert mmolove_sandbox.reported == []
    engine.dispose()
    app.extensions["mmolove"].outbox.close()


def test_a_session_beside_that_of_the_outbox_is_watched_alike(
    site: Site, token: str
) -> None:
    with site.app.app_context():
        make_session = sessionmaker(site.db.engine)

    @site.signup()
    def register() -> str:
        site.db.session.scalar(select(User))
        with make_session.begin() as session:
            session.add(User(name="anna"))
        return "welcome"

    site.sign_up(token)
    assert site.tokens() == {"1": token}


def test_a_row_in_another_database_of_the_site_counts(
    mmolove_sandbox: SiteSandbox, joined: bool, tmp_path: Path
) -> None:
    db = SQLAlchemy()
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(mmolove_sandbox.config, SECRET_KEY="not a secret")
    app.config["MMOLOVE_DELIVERY"] = "manual"
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'one.db'}"
    app.config["SQLALCHEMY_BINDS"] = {"second": f"sqlite:///{tmp_path / 'two.db'}"}
    db.init_app(app)
    MMOLove(app, db=db if joined else None)

    class Account(db.Model):  # type: ignore[name-defined, misc]
        __bind_key__ = "second"
        id = db.Column(db.Integer, primary_key=True)

    @app.post("/register")
    @referral_register(player=new_row(Account))
    def register() -> str:
        db.session.add(Account())
        db.session.commit()
        return "welcome"

    with app.app_context():
        db.create_all()
    app.test_client().post(f"/register?mmref={mmolove_sandbox.mint()}")
    state = app.extensions["mmolove"]
    assert [entry.identity for entry in state.outbox.inspector.page()] == ["1"]
    state.outbox.close()


def test_an_async_session_is_watched_alike(
    postgresql: URL, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    app = make_plain_app(mmolove_sandbox, tmp_path)
    sync = create_engine(postgresql, poolclass=NullPool)
    Base.metadata.drop_all(sync)
    Base.metadata.create_all(sync)
    make_session = async_sessionmaker(
        create_async_engine(postgresql, poolclass=NullPool)
    )

    @app.post("/register")
    @referral_register(player=new_row(User))
    async def register() -> str:
        async with make_session.begin() as session:
            session.add(User(name="anna"))
        return "welcome"

    app.test_client().post(f"/register?mmref={mmolove_sandbox.mint()}")
    assert mmolove_sandbox.reported == FIRST
    Base.metadata.drop_all(sync)
    app.extensions["mmolove"].outbox.close()


@pytest.mark.parametrize("model", [dict, "User", User(name="anna"), None, object])
def test_what_is_no_model_is_refused(model: t.Any) -> None:
    with pytest.raises(TypeError, match="takes a model of SQLAlchemy"):
        new_row(model)


def test_a_model_in_its_place_is_told_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"write player=new_row\(User\)"):
        referral_register(player=User)  # type: ignore[arg-type]


def test_sqlalchemy_is_loaded_only_where_it_is_used() -> None:
    program = "import sys, flask_mmolove; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -- many at once ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 5])
def test_forty_signups_at_once_keep_all_their_referrals(
    url: URL,
    make_site: MakeSite,
    mmolove_sandbox: SiteSandbox,
    size: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = make_site(
        url.render_as_string(False), pool_size=size, max_overflow=0, pool_timeout=60
    )
    late: list[str] = []

    @site.signup()
    def register() -> ResponseReturnValue:
        user = site.add()
        site.db.session.commit()
        assert site.db.session.get(User, user.id)  # the session has its connection
        return {"id": user.id}

    made: dict[str, str] = {}
    tokens = [mmolove_sandbox.mint() for _ in range(40)]

    def sign_up(number: int) -> None:
        response = site.sign_up(tokens[number], f"player {number}")
        identity = str(response.get_json()["id"])
        made[identity] = tokens[number]
        if "registered" not in site.state.outbox.of(identity, False):
            late.append(identity)

    threads = [threading.Thread(target=sign_up, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(made) == 40
    assert site.tokens() == made
    assert late == []
    assert not caplog.records


def test_of_two_in_a_race_for_a_name_the_winner_keeps_their_own_token(
    make_site: MakeSite, url: URL, mmolove_sandbox: SiteSandbox
) -> None:
    site = make_site(url.render_as_string(False))
    both = threading.Barrier(2)

    @site.signup()
    def register() -> ResponseReturnValue:
        site.add(name="anna")
        both.wait(20)
        try:
            site.db.session.commit()
        except IntegrityError:
            site.db.session.rollback()
            return redirect("/")
        return "welcome", 201

    won: list[str] = []

    def sign_up() -> None:
        token = mmolove_sandbox.mint()
        if site.sign_up(token).status_code == 201:
            won.append(token)

    other = threading.Thread(target=sign_up)
    other.start()
    sign_up()
    other.join(30)
    assert len(won) == 1
    assert [*site.tokens().values()] == won
