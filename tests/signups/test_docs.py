"""The pages whose applications need nothing but what every test run has."""

from __future__ import annotations

import re
import typing as t
from types import SimpleNamespace

import flask
import pytest
from flask import Flask
from flask_login import LoginManager
from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Integer
from sqlalchemy import String
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import mapped_column

from flask_mmolove import registered
from flask_mmolove.admin.dashboard.forms import make_token
from tests.signups.conftest import DOCS
from tests.signups.conftest import need
from tests.signups.conftest import Plug
from tests.signups.conftest import snippets


def test_every_page_with_lines_to_paste_is_run() -> None:
    pages = {page.stem for page in DOCS.glob("*.md") if snippets(page.stem)}
    assert pages == {
        "index",
        "outside",
        "sqlalchemy",
        "login",
        "security",
        "mail",
        "appbuilder",
        "social",
        "api",
    }


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.config.update(SECRET_KEY="k", TESTING=True)
    return app


class Player(UserMixin):  # type: ignore[misc]
    id = "7"


def names(**more: t.Any) -> dict[str, t.Any]:
    return {"request": flask.request, "redirect": flask.redirect, **more}


def test_the_identity_on_the_first_page(app: Flask, plug: Plug) -> None:
    setup = "from flask_mmolove import MMOLove\nmmolove = MMOLove(app)\n"
    [code] = snippets("index")
    plug.run(app, setup + code)
    with app.app_context():
        player = SimpleNamespace(realm="moor", number=7)
        registered(player, token=plug.sandbox.mint())
    assert plug.reported == [("registered", "moor-7")]


def test_the_page_on_flask_login(app: Flask, plug: Plug) -> None:
    LoginManager(app).user_loader(lambda id: Player())
    [code] = snippets("login")
    plug.run(
        app,
        code,
        **names(create_player=lambda form: Player() if "name" in form else None),
    )
    friend = plug.visit(app)
    assert friend.post("/register").status_code == 409
    assert plug.sandbox.sandbox.arrivals == []
    friend.post("/register", data={"name": "anna"})
    assert plug.reported == [("registered", "7")]


def test_the_page_on_sqlalchemy(app: Flask, plug: Plug) -> None:
    class Base(DeclarativeBase):
        pass

    db = SQLAlchemy(model_class=Base)

    class User(db.Model):  # type: ignore[name-defined, misc]
        id = mapped_column(Integer, primary_key=True)
        name = mapped_column(String(20), unique=True)

    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)
    with app.app_context():
        db.create_all()
        db.session.add(User(name="somebody"))
        db.session.commit()
    [code] = snippets("sqlalchemy")
    plug.run(app, code, **names(db=db, User=User))
    friend = plug.visit(app)
    with pytest.raises(IntegrityError):
        friend.post("/register", data={"name": "somebody"})
    assert plug.sandbox.sandbox.arrivals == []
    friend.post("/register", data={"name": "anna"})
    assert plug.reported == [("registered", "2")]


def test_the_page_on_mails(app: Flask, plug: Plug) -> None:
    links: list[str] = []
    pending = {"code": Player()}
    [code] = snippets("mail")
    plug.run(
        app,
        code,
        **names(
            url_for=flask.url_for,
            save_pending=lambda form: "code",
            send_mail=lambda address, link: links.append(link),
            make_account=lambda code: pending.pop(code, None),
        ),
    )
    for friend in (plug.visit(app), app.test_client()):
        friend.post("/register", data={"mail": "anna@example.org"})
    sealed, plain = links
    assert "friend" not in plain
    device = app.test_client()
    assert device.get(sealed).status_code == 302
    assert device.get(sealed).status_code == 404
    assert plug.reported == [("registered", "7")]


def test_the_page_on_front_ends(app: Flask, plug: Plug) -> None:
    known: dict[str, SimpleNamespace] = {}

    def create_player(data: dict[str, str]) -> SimpleNamespace | None:
        if data["name"] in known:
            return None
        known[data["name"]] = SimpleNamespace(id=6 + len(known))
        return known[data["name"]]

    code = snippets("api")[0]
    plug.run(app, code, **names(create_player=create_player))
    front_end = app.test_client(use_cookies=False)
    front_end.post("/api/players", json={"name": "zeno"})
    # Another site's page, without a cookie, whose own address held the token.
    headers = {
        "X-MMRef": plug.sandbox.mint(),
        "Authorization": "Bearer t",
        "Origin": "https://moor.example",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Dest": "empty",
    }
    taken = front_end.post("/api/players", json={"name": "zeno"}, headers=headers)
    assert taken.status_code == 409
    assert plug.sandbox.sandbox.arrivals == []
    made = front_end.post("/api/players", json={"name": "anna"}, headers=headers)
    assert (made.status_code, made.json) == (201, {"id": 7})
    assert plug.reported == [("registered", "7")]


def test_a_front_end_on_another_domain_may_send_the_header(
    app: Flask, plug: Plug
) -> None:
    need("flask_cors")
    code, cors, _ = snippets("api")
    plug.run(app, code + cors, **names(create_player=lambda data: None))
    asks = {
        "Origin": "https://moor.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, x-mmref",
    }
    answer = app.test_client().options("/api/players", headers=asks)
    assert answer.headers["Access-Control-Allow-Origin"] == asks["Origin"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"content-type", "x-mmref"} <= {*allowed}


@pytest.mark.parametrize("as_list", [False, True])
def test_a_front_end_may_send_the_token_in_the_body(
    app: Flask, plug: Plug, as_list: bool
) -> None:
    code, _, by_body = snippets("api")
    code = re.sub(r"def token_of_front_end.*?\n\n\n", by_body, code, flags=re.DOTALL)
    player = SimpleNamespace(id=7)
    plug.run(app, code, **names(create_player=lambda data: player))
    body = {"name": "anna", "mmref": plug.sandbox.mint()}
    front_end = app.test_client(use_cookies=False)
    answer = front_end.post("/api/players", json=[body] if as_list else body)
    assert answer.status_code == 201
    assert plug.reported == ([] if as_list else [("registered", "7")])


def test_a_site_with_csrf_protection_of_its_own_lets_the_dashboard_have_its(
    app: Flask, plug: Plug
) -> None:
    names = plug.run(app, "from flask_mmolove import MMOLove\nmmolove = MMOLove(app)")
    page = names["mmolove"].dashboard(access=lambda: True)
    app.register_blueprint(page, url_prefix="/mmolove")
    app.add_url_rule("/token", view_func=make_token)

    @app.before_request
    def protect() -> None:  # as CTFd does
        view = app.view_functions[str(flask.request.endpoint)]
        if hasattr(view, "_bypass_csrf") or flask.request.method == "GET":
            return
        if flask.session.get("nonce") != flask.request.form.get("nonce", ""):
            flask.abort(403)

    owner = app.test_client()
    form = {"token": owner.get("/token").text}
    assert owner.post("/mmolove/retry", data=form).status_code == 403
    [lines] = [lines for lines in snippets("../dashboard") if "csrf" in lines]
    try:
        exec(lines, {"app": app})
        assert owner.post("/mmolove/retry", data=form).status_code == 303
        assert owner.post("/mmolove/retry", data={}).status_code == 400
    finally:  # the views are the same in every app
        for view in app.view_functions.values():
            if hasattr(view, "_bypass_csrf"):
                del view._bypass_csrf
