"""``MMOLove(app, db=db)``: which database the outbox is in."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask import request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import func
from sqlalchemy import select

from flask_mmolove import ConfigError
from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.sites import Base
from tests.sites import Gift
from tests.sites import Player
from tests.sites import Site


def test_a_database_in_memory_does_for_tests(
    mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    site = Site("sqlite://", mmolove_sandbox.config, str(tmp_path))
    given: list[Referral] = []
    site.mmolove.reward(given.append)
    with site.app.app_context():
        site.db.create_all()
        player = site.add(mmref=mmolove_sandbox.mint())
        registered(player)
        site.db.session.commit()
        qualify(player)
        site.db.session.commit()
        assert site.entries(1)["qualified"].state == "rewarded"
    assert len(given) == 1
    assert mmolove_sandbox.reported == [("registered", "1"), ("qualified", "1")]


class TestSettings:
    @pytest.fixture
    def app(self, mmolove_sandbox: SiteSandbox, tmp_path: Path) -> Flask:
        app = Flask(__name__, instance_path=str(tmp_path))
        app.config.update(mmolove_sandbox.config, SQLALCHEMY_DATABASE_URI="sqlite:///s")
        return app

    def test_a_db_that_does_not_know_the_app(self, app: Flask) -> None:
        with pytest.raises(ConfigError, match=r"db\.init_app\(app\) before"):
            MMOLove(app, db=SQLAlchemy())

    def test_a_db_without_a_database_of_its_own(self, app: Flask) -> None:
        app.config["SQLALCHEMY_BINDS"] = {"logs": "sqlite:///logs"}
        app.config["SQLALCHEMY_DATABASE_URI"] = None
        with pytest.raises(ConfigError, match="SQLALCHEMY_DATABASE_URI"):
            MMOLove(app, db=SQLAlchemy(app))

    def test_two_places_for_one_outbox(self, app: Flask) -> None:
        app.config["MMOLOVE_OUTBOX"] = "postgresql+psycopg://u:s3cret@host/db"
        with pytest.raises(ConfigError, match="MMOLOVE_OUTBOX") as caught:
            MMOLove(app, db=SQLAlchemy(app))
        assert "s3cret" not in str(caught.value)

    def test_a_database_in_memory_and_a_thread(self, app: Flask) -> None:
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        app.config["MMOLOVE_DELIVERY"] = "thread"
        with pytest.raises(ConfigError, match="MMOLOVE_DELIVERY"):
            MMOLove(app, db=SQLAlchemy(app))

    def test_a_database_in_memory_where_it_is_switched_off(self, app: Flask) -> None:
        app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", MMOLOVE_ENABLED=False)
        app.config["MMOLOVE_DELIVERY"] = "thread"
        db = SQLAlchemy(app)
        MMOLove(app, db=db)
        with app.app_context():
            registered(7, token="tok")
            assert qualify(7) is None
            db.create_all()
            db.session.commit()

    def test_several_apps_on_one_db(
        self, app: Flask, mmolove_sandbox: SiteSandbox, tmp_path: Path
    ) -> None:
        db = SQLAlchemy()
        mmolove = MMOLove(db=db)
        for name in ("one", "two"):
            app = Flask(__name__, instance_path=str(tmp_path / name))
            app.config.update(mmolove_sandbox.config)
            app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///s"
            app.config["MMOLOVE_DELIVERY"] = "manual"
            db.init_app(app)
            mmolove.init_app(app)
            with app.app_context():
                db.create_all()
                registered(name, token="tok")
                db.session.commit()
                state = app.extensions["mmolove"]
                assert state.outbox.of(name, False).keys() == {"registered"}
                assert state.outbox.inspector.summary().counts == {"pending": 1}
                state.outbox.close()


def test_the_lines_of_the_docs_work(
    mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    page = Path(__file__).parents[3] / "docs" / "howto" / "database.md"
    section = page.read_text().partition("## In the site's own database")[2]
    lines = section.partition("```python\n")[2].partition("```")[0]
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(mmolove_sandbox.config, SECRET_KEY="not a secret")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///site.db"
    names: dict[str, t.Any] = {
        **{"app": app, "SQLAlchemy": lambda app: SQLAlchemy(app, model_class=Base)},
        **{"MMOLove": MMOLove, "Player": Player, "Item": lambda **item: Gift(key="x")},
        **{"request": request, "redirect": lambda url: "welcome"},
        **{"referral_register": referral_register, "registered": registered},
        "qualify": qualify,
    }
    exec(lines, names)
    db = names["db"]
    with app.app_context():
        db.create_all()
    app.register_blueprint(invitations)
    with app.test_request_context():
        link = names["mmolove"].invite("3", external=False)
    client = app.test_client()
    client.get(link)
    client.get(f"/?mmref={mmolove_sandbox.mint()}")
    client.post("/register", data={"name": "anna"})
    with app.app_context():
        player = db.session.get_one(Player, 1)
        player.level = 19
        names["on_level_up"](player)
        assert db.session.scalar(select(func.count()).select_from(Gift)) == 1
        app.extensions["mmolove"].outbox.close()
    assert mmolove_sandbox.reported == [("registered", "1"), ("qualified", "1")]
