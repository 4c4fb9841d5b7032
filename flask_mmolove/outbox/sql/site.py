"""The site's own database as the place of the outbox: ``MMOLove(app, db=db)``."""

from __future__ import annotations

import typing as t

from flask import Flask
from flask import has_app_context
from sqlalchemy import Connection

from ...errors import ConfigError
from ...settings import Settings
from .session import SessionOutbox
from .store import SQLAlchemyOutbox
from .tables import tables

if t.TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

_KEY = "SQLALCHEMY_DATABASE_URI"


class SiteDatabase:
    """A site's Flask-SQLAlchemy, in which our tables stand beside the site's own, so
    that its migrations and ``db.create_all()`` see them.
    """

    def __init__(self, db: SQLAlchemy) -> None:
        self._db = db
        self._session = db.session
        tables(db.metadata)

    def open(self, app: Flask, settings: Settings) -> SQLAlchemyOutbox:
        """The outbox of an app.

        :raises ConfigError: If the app's database cannot be it.
        """
        if app.extensions.get("sqlalchemy") is not self._db:
            raise ConfigError(
                "The db of MMOLove(db=db) does not know this Flask app. Call "
                "db.init_app(app) before MMOLove(app, db=db) or mmolove.init_app(app)."
            )
        with app.app_context():
            engine = self._db.engines.get(None)
        if engine is None:
            raise ConfigError(f"MMOLove(db=db) needs {_KEY}: it uses no bind.", _KEY)
        if isinstance(settings.outbox, str):
            raise ConfigError(
                "MMOLOVE_OUTBOX is the URL of a database, and MMOLove(db=db) names "
                "another one. Take one of them away.",
                "MMOLOVE_OUTBOX",
            )
        outbox = SQLAlchemyOutbox(
            engine,
            self._db.metadata,
            # With migrations the tables are theirs to make.
            creates=lambda: "migrate" not in app.extensions,
            key=_KEY,
            shared=self._shared,
        )
        has_threads = settings.enabled and settings.delivery in ("thread", "celery")
        if outbox.is_in_memory and has_threads:
            raise ConfigError(
                f"{_KEY} is a database in memory, which one thread can use. For tests, "
                "set MMOLOVE_DELIVERY to 'inline'.",
                "MMOLOVE_DELIVERY",
            )
        return outbox

    def _shared(self) -> Connection | None:
        """The connection on which a test runs the site's session, to roll back all that
        was done. What others do on a connection of their own would not be seen, or
        would wait for the end of the test.
        """
        if not has_app_context():
            return None
        session = self._db.session
        is_own = session is self._session
        bind = self._db.engines.get(None) if is_own else session.get_bind()
        return bind if isinstance(bind, Connection) else None

    def join(self, outbox: SQLAlchemyOutbox, settings: Settings) -> SessionOutbox:
        """The outbox as part of the site's session."""
        return SessionOutbox(outbox, lambda: self._db.session, settings.server_id)
