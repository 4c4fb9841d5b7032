"""Puts together what one app has of this extension, and adds its hooks.

What not every site needs, such as SQLAlchemy or Celery, is loaded where it is chosen.
"""

from __future__ import annotations

import re
import typing as t
from functools import partial
from pathlib import Path

from flask import Flask

from .callbacks import Callbacks
from .capture.hook import Capture
from .delivery.engine import Engine
from .delivery.engine import InlineEngine
from .delivery.engine import ManualEngine
from .delivery.watchdog import Watchdog
from .errors import ConfigError
from .log import Throttle
from .outbox.spool import Spool
from .outbox.store import Outbox
from .recording.recorder import Recorder
from .recording.recorder import REQUEST_TIMEOUT
from .recording.views import SignupViews
from .registration.misplaced import put_right
from .registration.misplaced import watch
from .rewards.callback import CallbackRewarder
from .rewards.milestone import MilestoneAsker
from .settings import Settings
from .signals import announce_breaker
from .state import State

if t.TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

    from .delivery.step import Delivery
    from .outbox.sql.session import SessionOutbox
    from .outbox.sql.site import SiteDatabase

#: The first SQLAlchemy that the outbox can be in a database with.
_SQLALCHEMY = (2, 0, 16)


def assemble(app: Flask, callbacks: Callbacks, database: SiteDatabase | None) -> State:
    """Put together what an app has.

    :param database: The site's own, where the outbox is in there.
    :raises ConfigError: If a setting is missing or wrong, or something that it needs
        is missing.
    """
    settings = Settings.from_config(app.config, app.instance_path)
    outbox, session = _open_outbox(app, settings, database)
    if settings.delivery == "inline":
        # A request delivers, and must not wait as a worker may.
        outbox.timeout = REQUEST_TIMEOUT
    spool = Spool(settings.spool, settings.secret)
    rewarder = CallbackRewarder(app, callbacks, outbox, session)

    def make_delivery() -> Delivery:
        from .delivery.step import Delivery  # no need of it where others deliver

        return Delivery(
            outbox,
            settings.make_client(),
            settings,
            spool,
            reward=rewarder.if_registered,
            report=rewarder.announce,
            watch=partial(announce_breaker, app),
        )

    engine = _choose_engine(app, settings, make_delivery)
    watchdog = Watchdog(outbox, spool, settings.delivery)
    looked = Throttle(60)
    recorder = _choose_recorder(session)(
        app, settings, callbacks, outbox, spool, engine, watchdog, looked
    )
    views = SignupViews(outbox)
    engine.attend(views.flush)
    state = State(
        app,
        settings,
        callbacks,
        outbox,
        session,
        spool,
        make_delivery,
        engine,
        watchdog,
        recorder,
        looked,
        views,
    )
    state.asker = MilestoneAsker(state)
    engine.ask_by(state.asker)
    return state


def add_hooks(state: State) -> None:
    """Register our hooks with the state's app: before each request, after it, and at
    the end of the app context.
    """
    app = state.app
    if state.session is not None:
        # Called before Flask-SQLAlchemy's own, which was registered earlier.
        app.teardown_appcontext(state.recorder.close)
    # First in line: a login wall that was registered before would send the visitor
    # away, and the token with them.
    capture = Capture(state, partial(put_right, app))
    hooks = app.before_request_funcs.setdefault(None, [])
    hooks.insert(0, capture.make_hook())
    watch(app)
    if not state.settings.cookie_days:
        app.after_request(capture.after_request)


def _open_outbox(
    app: Flask, settings: Settings, database: SiteDatabase | None
) -> tuple[Outbox, SessionOutbox | None]:
    if database is not None:
        outbox = database.open(app, settings)
        return outbox, database.join(outbox, settings)
    if isinstance(settings.outbox, Path):
        from .outbox.sqlite.store import SQLiteOutbox

        return SQLiteOutbox(settings.outbox), None
    _check_sqlalchemy("MMOLOVE_OUTBOX is the URL of a database", "MMOLOVE_OUTBOX")
    from .outbox.sql.store import SQLAlchemyOutbox

    return SQLAlchemyOutbox(settings.outbox), None


def _choose_recorder(session: SessionOutbox | None) -> t.Callable[..., Recorder]:
    if session is None:
        return Recorder
    from .recording.session import SessionRecorder

    return partial(SessionRecorder, session)


def load_database(db: SQLAlchemy) -> SiteDatabase:
    """The site's database, as a place for the outbox.

    :raises ConfigError: If the site's SQLAlchemy is too old.
    """
    _check_sqlalchemy("MMOLove(db=db) has the outbox in the site's database")
    from .outbox.sql.site import SiteDatabase

    return SiteDatabase(db)


def _check_sqlalchemy(why: str, key: str | None = None) -> None:
    """Refuse to start without a SQLAlchemy that our tables can be used with.

    :raises ConfigError: If there is none.
    """
    needed = ".".join(map(str, _SQLALCHEMY))
    cure = "pip install 'Flask-MMOLove[sqlalchemy]'"
    try:
        from sqlalchemy import __version__ as installed
    except ModuleNotFoundError as e:
        if e.name != "sqlalchemy":
            raise
        raise ConfigError(f"{why}, which needs SQLAlchemy: {cure}.", key) from e
    if tuple(map(int, re.findall(r"\d+", installed)[:3])) < _SQLALCHEMY:
        raise ConfigError(
            f"{why}, which needs SQLAlchemy {needed} or later, and {installed} is "
            f"installed: {cure}. If the site cannot use that yet, keep the outbox in a "
            "file: leave out db=db, and let MMOLOVE_OUTBOX be a path.",
            key,
        )


def _choose_engine(
    app: Flask, settings: Settings, delivery: t.Callable[[], Delivery]
) -> Engine:
    if not settings.enabled or settings.delivery == "manual":
        return ManualEngine()
    if settings.delivery == "inline":
        return InlineEngine(delivery)
    if settings.delivery == "celery":
        return _make_celery_engine(app, settings, delivery)
    from .delivery.thread import ThreadEngine

    return ThreadEngine(delivery, settings.concurrency)


def _make_celery_engine(
    app: Flask, settings: Settings, delivery: t.Callable[[], Delivery]
) -> Engine:
    try:
        from .delivery.celery import CeleryEngine
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "celery":
            raise
        raise ConfigError(
            "MMOLOVE_DELIVERY is 'celery', which needs Celery: pip install "
            "'Flask-MMOLove[celery]'.",
            "MMOLOVE_DELIVERY",
        ) from e
    # Looked for when it is needed: the site may make it after this.
    own = partial(app.extensions.get, "celery")
    return CeleryEngine(delivery, settings.concurrency, own)
