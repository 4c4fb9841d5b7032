"""Who is new: only who was not there before the view."""

from __future__ import annotations

import json
import logging
import re
import threading
import typing as t

import pytest
from flask import Flask
from flask import g
from flask import redirect
from flask import request
from flask import Response
from flask import session
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column
from sqlalchemy.orm import scoped_session
from sqlalchemy.orm import sessionmaker

from flask_mmolove import new_by_field
from flask_mmolove import new_in_json
from flask_mmolove import new_in_session
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox

SEVEN = [("registered", "7")]


@pytest.fixture
def visitor(client: FlaskClient, mmolove_sandbox: SiteSandbox) -> FlaskClient:
    """A browser that came by a share link."""
    with client.session_transaction() as kept:
        kept["mmref"] = mmolove_sandbox.mint()
    return client


# -- a key of the session --------------------------------------------------------------


@pytest.fixture
def app_with_sessions(app: Flask) -> Flask:
    @app.post("/join/<int:id>")
    @referral_register(player=new_in_session("user_id"))
    def join(id: int) -> ResponseReturnValue:
        session.clear()
        if id:
            session["user_id"] = id
        return redirect("/")

    @app.post("/login/<int:id>")
    def log_in(id: int) -> str:
        session["user_id"] = id
        return ""

    return app


def test_an_id_that_the_view_puts_into_the_session_is_new(
    app_with_sessions: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    visitor.post("/join/7")
    assert mmolove_sandbox.reported == SEVEN


def test_an_id_that_was_in_the_session_is_nobody_new(
    app_with_sessions: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    visitor.post("/login/7")
    visitor.post("/join/7")
    assert mmolove_sandbox.reported == []


def test_an_id_that_leaves_the_session_is_nobody_new(
    app_with_sessions: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    visitor.post("/login/7")
    visitor.post("/join/0")
    assert mmolove_sandbox.sandbox.arrivals == []


# -- a key of the JSON answer ----------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reported"),
    [
        (({"user": {"id": 7}}, 201), SEVEN),
        (({"user": {"id": 7}}, 200), []),
        (({"user": {"id": None}}, 201), []),
        (({"user": [7]}, 201), []),
        (({"id": 7}, 201), []),
        (([7], 201), []),
        (("7", 201), []),
        (("{", 201, {"Content-Type": "application/json"}), []),
        (({"user": {"id": 7}}, 409), []),
    ],
)
def test_an_id_in_an_answer_of_what_was_created_is_new(
    app: Flask,
    visitor: FlaskClient,
    mmolove_sandbox: SiteSandbox,
    answer: ResponseReturnValue,
    reported: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    @app.post("/join")
    @referral_register(player=new_in_json("user", "id"))
    def join() -> ResponseReturnValue:
        return answer

    response = visitor.post("/join")
    assert mmolove_sandbox.reported == reported
    warned = [record for record in caplog.records if record.levelno > logging.INFO]
    assert len(warned) == (response.status_code < 400 and not reported)


def test_a_site_that_answers_a_signup_otherwise_says_so(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    @app.post("/join")
    @referral_register(player=new_in_json("id", status=200))
    def join() -> ResponseReturnValue:
        return {"id": 7}

    visitor.post("/join")
    assert mmolove_sandbox.reported == SEVEN


def test_a_stream_stays_a_stream(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    read: list[str] = []

    def stream() -> t.Iterator[str]:
        for part in ('{"id":', " 7}"):
            read.append(part)
            yield part

    @app.post("/join")
    @referral_register(player=new_in_json("id"))
    def join() -> ResponseReturnValue:
        return Response(stream(), 201, mimetype="application/json")

    response = visitor.post("/join", buffered=False)
    assert len(read) <= 1  # the test client looks for the first part itself
    assert response.json == {"id": 7}
    assert mmolove_sandbox.reported == []


# -- a query by a field of the form ----------------------------------------------------


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Site:
    """A site with a database, whose signup view can be told how to go wrong."""

    def __init__(self, app: Flask, path: t.Any) -> None:
        app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{path}"
        self.app = app
        self.db = db = SQLAlchemy(app, model_class=Base)
        self.asked: list[str] = []

        def find(name: str) -> User | None:
            self.asked.append(name)
            return t.cast(
                "User | None", db.session.scalar(select(User).filter_by(name=name))
            )

        @app.route("/join/<how>", methods=["GET", "POST"])
        @referral_register(player=new_by_field("name", find))
        def join(how: str) -> ResponseReturnValue:
            if request.method == "GET":
                return "the form"
            try:
                if how == "begin":
                    with db.session.begin():
                        db.session.add(User(name=request.form["name"]))
                else:
                    db.session.add(User(name=request.form["name"]))
                    db.session.flush()
                    if how == "fail":
                        raise IntegrityError("", None, Exception("no"))
                    if how != "forget":
                        db.session.commit()
            except IntegrityError:
                db.session.rollback()
                return "that did not work"
            if how == "close":
                db.session.close()
            return redirect("/")

        with app.app_context():
            db.create_all()


@pytest.fixture
def site(app: Flask, tmp_path: t.Any) -> Site:
    return Site(app, tmp_path / "site.db")


@pytest.mark.parametrize("how", ["commit", "begin", "close"])
def test_a_player_whom_the_site_finds_only_after_the_view_is_new(
    site: Site, visitor: FlaskClient, mmolove_sandbox: SiteSandbox, how: str
) -> None:
    assert visitor.post(f"/join/{how}", data={"name": "anna"}).status_code == 302
    assert mmolove_sandbox.reported == [("registered", "1")]


def test_a_name_that_was_taken_is_nobody_new(
    site: Site, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    site.app.test_client().post("/join/commit", data={"name": "anna"})
    assert "did not work" in visitor.post("/join/commit", data={"name": "anna"}).text
    assert mmolove_sandbox.reported == []
    visitor.post("/join/commit", data={"name": "ben"})
    assert mmolove_sandbox.reported == [("registered", "2")]


@pytest.mark.parametrize("how", ["fail", "forget"])
def test_what_was_not_committed_is_nobody_new(
    site: Site, visitor: FlaskClient, mmolove_sandbox: SiteSandbox, how: str
) -> None:
    visitor.post(f"/join/{how}", data={"name": "anna"})
    assert site.asked == (["anna"] if how == "fail" else ["anna", "anna"])
    assert mmolove_sandbox.reported == []


@pytest.mark.parametrize(
    ("answer", "status", "reported"),
    [
        (("the form again", 200), None, []),
        (("welcome", 201), None, SEVEN),
        (("", 204), None, []),
        (("", 302), None, []),
        (redirect("/home"), None, SEVEN),
        (redirect("/home", 303), None, SEVEN),
        (redirect("https://elsewhere.example/join"), None, SEVEN),
        (redirect("/join"), None, []),
        (redirect("/join?error=taken#form"), None, []),
        (redirect("?error=taken"), None, []),
        (redirect("http://localhost/join"), None, []),
        (("welcome", 200), 200, SEVEN),
        (("welcome", 201), 200, []),
        (redirect("/home"), 200, []),
        (redirect("/join"), 302, SEVEN),
        (("taken", 409), 409, []),
    ],
)
def test_only_an_answer_to_a_signup_is_believed(
    app: Flask,
    visitor: FlaskClient,
    mmolove_sandbox: SiteSandbox,
    answer: ResponseReturnValue,
    status: int | None,
    reported: list[tuple[str, str]],
) -> None:
    found: list[int] = []

    def find(name: str) -> int | None:
        return found[0] if found else None

    @app.post("/join")
    @referral_register(player=new_by_field("name", find, status=status))
    def join() -> ResponseReturnValue:
        found.append(7)
        return answer

    visitor.post("/join", data={"name": "anna"})
    assert mmolove_sandbox.reported == reported


@pytest.mark.parametrize(
    ("body", "status", "reported"),
    [
        ('{"name": "anna"}', 201, SEVEN),
        ('{"name": "zeno"}', 201, []),  # who was there before
        ('{"name": 7}', 201, []),
        ('{"other": "anna"}', 201, []),
        ('["anna"]', 201, []),
        ("null", 201, []),
        ("", 400, []),
        ('{"name": ', 400, []),
    ],
)
def test_a_field_of_a_json_body_is_read_and_the_view_reads_it_too(
    app: Flask,
    visitor: FlaskClient,
    mmolove_sandbox: SiteSandbox,
    body: str,
    status: int,
    reported: list[tuple[str, str]],
) -> None:
    known = {"zeno": 1}

    @app.post("/join")
    @referral_register(player=new_by_field("name", known.get))
    def join() -> ResponseReturnValue:
        assert request.get_json() == json.loads(body)
        known.setdefault("anna", 7)
        return "welcome", 201

    response = visitor.post("/join", data=body, content_type="application/json")
    assert response.status_code == status
    assert mmolove_sandbox.reported == reported


def test_who_loses_a_race_for_a_name_is_not_credited_with_the_winner(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    """Both look before either has the account, and the loser is answered first."""
    looked, made = threading.Barrier(2), threading.Event()
    lost = threading.Event()
    look_before = new_by_field.before

    class Racing(new_by_field):
        def before(self) -> bool:
            seen = look_before(self)
            looked.wait(20)
            return seen

    def find(name: str) -> User | None:
        return t.cast(
            "User | None", site.db.session.scalar(select(User).filter_by(name=name))
        )

    @site.app.post("/race/<who>")
    @referral_register(player=Racing("name", find))
    def race(who: str) -> ResponseReturnValue:
        if who == "loser":
            assert made.wait(20)
            return "that name is taken"
        site.db.session.add(User(name=request.form["name"]))
        site.db.session.commit()
        made.set()
        assert lost.wait(20)
        return redirect("/")

    def sign_up(who: str, token: str) -> None:
        client = site.app.test_client()
        client.get(f"/?mmref={token}")
        client.post(f"/race/{who}", data={"name": "anna"})
        lost.set()

    attacker = threading.Thread(target=sign_up, args=("loser", mmolove_sandbox.mint()))
    attacker.start()
    sign_up("winner", token := mmolove_sandbox.mint("friend"))
    attacker.join(20)
    assert [event.token for event in mmolove_sandbox.sandbox.events] == [token]


@pytest.mark.parametrize("form", [None, {}, {"name": ""}, {"other": "anna"}])
def test_without_the_field_the_site_is_not_asked(
    site: Site, visitor: FlaskClient, form: dict[str, str] | None
) -> None:
    if form is None:
        visitor.get("/join/commit")
    else:
        visitor.post("/join/commit", data=form)
    assert site.asked == []


def test_a_session_of_the_thread_stays_the_views_own(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox, tmp_path: t.Any
) -> None:
    # As Flask's documentation has it, "SQLAlchemy in Flask".
    engine = create_engine(f"sqlite:///{tmp_path / 'site.db'}")
    db_session = scoped_session(sessionmaker(engine))
    Base.metadata.create_all(engine)

    @app.teardown_appcontext
    def shutdown_session(exception: BaseException | None) -> None:
        db_session.remove()

    def find(name: str) -> t.Any:
        return db_session.scalar(select(User.id).filter_by(name=name))

    @app.before_request
    def load() -> None:
        g.first = db_session.get(User, 1)

    @app.post("/join")
    @referral_register(player=new_by_field("name", find, status=200))
    def join() -> str:
        assert g.first in db_session
        db_session.add(User(name=request.form["name"]))
        db_session.flush()
        return "welcome"

    @app.after_request
    def commit(response: Response) -> Response:
        db_session.commit()
        return response

    with app.app_context():
        db_session.add(User(name="anna"))
        db_session.commit()
    assert visitor.post("/join", data={"name": "ben"}).text == "welcome"
    with app.app_context():
        assert find("ben") == 2
    engine.dispose()


def test_a_site_may_look_asynchronously(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    names: set[str] = set()

    async def find(name: str) -> int | None:
        return 7 if name in names else None

    @app.post("/join")
    @referral_register(player=new_by_field("name", find))
    async def join() -> ResponseReturnValue:
        names.add(request.form["name"])
        return "welcome", 201

    assert visitor.post("/join", data={"name": "anna"}).text == "welcome"
    assert mmolove_sandbox.reported == SEVEN


@pytest.mark.parametrize("looks", [1, 2])
def test_a_signup_does_not_wait_for_a_look_that_hangs(
    app: Flask,
    visitor: FlaskClient,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    looks: int,
) -> None:
    monkeypatch.setattr("flask_mmolove.registration.detect.TIMEOUT", 0.05)
    is_over = threading.Event()
    asked: list[str] = []

    def find(name: str) -> int | None:
        asked.append(name)
        if len(asked) == looks:
            is_over.wait(20)
        return None if len(asked) == 1 else 7

    @app.post("/join")
    @referral_register(player=new_by_field("name", find))
    def join() -> ResponseReturnValue:
        return "welcome", 201

    assert visitor.post("/join", data={"name": "anna"}).text == "welcome"
    assert not is_over.is_set()
    is_over.set()
    assert len(asked) == looks
    assert mmolove_sandbox.reported == []
    assert "find gave no answer" in caplog.text


def test_where_no_thread_can_be_started_nobody_is_taken_for_new(
    site: Site,
    visitor: FlaskClient,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(thread: threading.Thread) -> t.NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert visitor.post("/join/commit", data={"name": "anna"}).status_code == 302
    assert mmolove_sandbox.reported == []
    assert "can't start new thread" in caplog.text


def test_without_a_token_the_site_is_not_asked(site: Site, client: FlaskClient) -> None:
    client.post("/join/commit", data={"name": "anna"})
    assert site.asked == []


# -- an answer of the site's own -------------------------------------------------------


class Counting:
    """A player is new if there are more than before."""

    def __init__(self) -> None:
        self.players = 6
        self.fails = False

    def before(self) -> int:
        if self.fails:
            raise OSError("the database is away")
        return self.players

    def after(self, response: Response, before: int) -> int | None:
        return self.players if self.players > before else None


@pytest.fixture
def counting(app: Flask) -> Counting:
    counting = Counting()

    @app.post("/join/<how>")
    @referral_register(player=counting)
    def join(how: str) -> str:
        counting.players += 1
        if how == "named":
            registered(counting.players)
        return "welcome"

    return counting


@pytest.mark.parametrize(
    "way",
    [
        {"player": new_by_field("name", int), "token": None},
        {"player": None, "token": lambda: request.form["token"]},
        {"player": None, "token": lambda: request.get_json()["token"]},
    ],
)
def test_a_form_that_cannot_be_read_is_the_views_to_refuse(
    app: Flask,
    visitor: FlaskClient,
    way: dict[str, t.Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 9

    def join() -> str:
        return request.form["name"]

    app.post("/join")(referral_register(**way)(join))
    assert visitor.post("/join", data={"name": "7777777"}).status_code == 413
    assert not caplog.records


def test_a_site_may_bring_an_answer_of_its_own(
    counting: Counting, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    visitor.post("/join/found")
    assert mmolove_sandbox.reported == SEVEN


def test_where_it_could_not_look_before_nobody_is_taken_for_new(
    counting: Counting,
    visitor: FlaskClient,
    mmolove_sandbox: SiteSandbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counting.fails = True
    assert visitor.post("/join/found").text == "welcome"
    assert mmolove_sandbox.reported == []
    assert "the database is away" in caplog.text
    counting.players = 6
    visitor.post("/join/named")
    assert mmolove_sandbox.reported == SEVEN


def test_a_function_of_the_response_may_be_async(
    app: Flask, visitor: FlaskClient, mmolove_sandbox: SiteSandbox
) -> None:
    async def find(response: Response) -> str:
        return response.headers["X-Player"]

    @app.post("/join")
    @referral_register(player=find)
    async def join() -> ResponseReturnValue:
        return "", 201, {"X-Player": "7"}

    visitor.post("/join")
    assert mmolove_sandbox.reported == SEVEN


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (7, "must be a function that takes the response, not 7"),
        ("name", "must be a function that takes the response, not 'name'"),
        (Counting, "write player=Counting("),
    ],
)
def test_what_is_no_answer_is_an_error_at_import(answer: t.Any, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        referral_register(player=answer)


# -- why an answer gives nobody --------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "sent", "words"),
    [
        (new_in_session("user_idd"), {}, "there is no 'user_idd' in the session"),
        (new_in_json("idd"), {}, "its status is not 201"),
        (new_in_json("idd", status=200), {}, "its JSON has nothing at ['idd']"),
        (
            new_by_field("usernme", lambda name: 7),
            {"data": {"username": "anna"}},
            "the form has nothing in 'usernme'",
        ),
        (
            new_by_field("username", lambda name: 7),
            {"json": {"name": "anna"}},
            "the JSON body has nothing in 'username'",
        ),
        (
            new_by_field("username", lambda name: 7),
            {"data": {"username": "anna"}},
            "find() gave somebody before the view as well",
        ),
        (
            new_by_field("username", lambda name: None),
            {"data": {"username": "anna"}},
            "it answered as to a refused form",
        ),
        (
            new_by_field("username", lambda name: None, status=200),
            {"data": {"username": "anna"}},
            "find() gave nobody",
        ),
        (None, {}, "Flask-Login's user, and this site has none"),
        (lambda response: None, {}, "player= gave None"),
    ],
)
def test_a_wrong_answer_says_what_is_wrong_once(
    app: Flask,
    visitor: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    answer: t.Any,
    sent: dict[str, t.Any],
    words: str,
) -> None:
    @app.post("/join")
    @referral_register(player=answer)
    def join() -> ResponseReturnValue:
        return {"id": 7}

    for _ in range(3):
        visitor.post("/join", **sent)
    assert caplog.text.count(words) == 1
    assert "'join'" in caplog.text
