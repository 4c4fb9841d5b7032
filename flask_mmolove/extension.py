"""The extension: it meets an app, reads its settings and wires the five steps."""

from __future__ import annotations

import typing as t
from functools import partial
from pathlib import Path

from flask import Blueprint
from flask import Flask

from .alarm import Alarm
from .capture import Capture
from .capture import current_mmref
from .client import ReferralClient
from .delivery import Delivery
from .delivery import Engine
from .delivery import InlineEngine
from .delivery import ManualEngine
from .delivery import Rewarder
from .delivery import ThreadEngine
from .errors import ConfigError
from .outbox import Entry
from .outbox import Outbox
from .outbox import Spool
from .outbox.sqlite import SQLiteOutbox
from .reward import CallbackRewarder
from .reward import Referral
from .reward import tell_rewarded
from .settings import Settings
from .state import Callbacks
from .state import F
from .state import State

R = t.TypeVar("R", bound=t.Callable[[Referral], t.Any])


class MMOLove:
    """MMOLove's Referral Kit for a Flask app.

    .. code-block:: python

        mmolove = MMOLove(app)

        @mmolove.reward
        def grant(referral):
            inviter = find_inviter_of(referral.identity)
            give_item(inviter, "founder-cape", key=referral.reward_key)

    One object can serve several apps: each keeps its own settings and its own outbox.

    :param app: The app to extend now; else call :meth:`init_app` later.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._callbacks = Callbacks()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Extend an app. Its ``MMOLOVE_*`` settings are read here, once; later changes
        of ``app.config`` are not seen.

        :raises ConfigError: If a setting is missing or wrong, or the app has MMOLove
            already.
        """
        if "mmolove" in app.extensions:
            raise ConfigError(
                "MMOLove is registered on this Flask app already. Call MMOLove(app) or "
                "init_app(app), and only once."
            )
        settings = Settings.from_config(app.config, app.instance_path)
        app.extensions["mmolove"] = state = _assemble(app, settings, self._callbacks)
        app.add_template_global(current_mmref)
        if settings.enabled:
            # First in line: a login wall that was registered before would send the
            # visitor away, and the token with them.
            hooks = app.before_request_funcs.setdefault(None, [])
            hooks.insert(0, Capture(state, Alarm(state.outbox)))

    @t.overload
    def reward(self, callback: R) -> R: ...

    @t.overload
    def reward(self, *, at_most_once: bool = False) -> t.Callable[[R], R]: ...

    def reward(self, callback: t.Any = None, *, at_most_once: bool = False) -> t.Any:
        """Register what gives the reward, once per qualified referral.

        It is called with the :class:`Referral`, in the app's context, by whatever makes
        the delivery: mostly a thread, not a request. It is called until it returns, so
        at least once; and the game gives the reward once if it honours
        ``referral.reward_key``. One that raises is called again later, and set aside
        for a person after five times.

        :param at_most_once: Write it down first and call it then. A crash in between
            leaves the reward ``unknown``, for a person to decide with ``flask mmolove
            rewards``.
        """
        if callback is None:
            return partial(self.reward, at_most_once=at_most_once)
        self._callbacks.reward = callback
        self._callbacks.at_most_once = at_most_once
        return callback

    def dashboard(self, *, access: t.Callable[[], t.Any] | None = None) -> Blueprint:
        """Make the operator's page, a blueprint for the site to register.

        .. code-block:: python

            def is_owner():
                return current_user.is_authenticated and current_user.is_owner

            page = mmolove.dashboard(access=is_owner)
            app.register_blueprint(page, url_prefix="/mmolove")

        :param access: Asked in each request, without arguments, whether this visitor
            may see it. Whoever may not gets a 404.
        :raises ConfigError: Without ``access``.
        """
        from .dashboard import make_dashboard

        return make_dashboard(access)

    def identity(self, rule: F) -> F:
        """Register what takes a player and gives its identity: a text or number that
        never changes, such as the account's id. Not a name, which may change.
        """
        self._callbacks.identity = rule
        return rule

    def consent(self, rule: F) -> F:
        """Register what says, without arguments and in a request, whether this
        visitor's token may be kept. If not, it serves the one request it came with.
        """
        self._callbacks.consent = rule
        return rule


def _assemble(app: Flask, settings: Settings, callbacks: Callbacks) -> State:
    outbox = _open_outbox(settings.outbox)
    spool = Spool(settings.spool)

    def reward() -> Rewarder | None:
        if callbacks.reward is None:
            return None
        return CallbackRewarder(state, callbacks.reward)

    def report(entry: Entry) -> None:
        if entry.state == "rewarded":
            tell_rewarded(state, entry)
        state.report(entry)

    def delivery() -> Delivery:
        client = ReferralClient.from_settings(settings)
        return Delivery(
            outbox,
            client,
            settings,
            spool,
            reward=reward,
            report=report,
            watch=state.watch,
        )

    engine = _choose_engine(settings, delivery)
    state = State(app, settings, callbacks, outbox, spool, delivery, engine)
    return state


def _open_outbox(where: Path | str) -> Outbox:
    if isinstance(where, Path):
        return SQLiteOutbox(where)
    try:
        from .outbox.sqlalchemy import SQLAlchemyOutbox
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "sqlalchemy":
            raise
        raise ConfigError(
            "MMOLOVE_OUTBOX is the URL of a database, which needs SQLAlchemy: pip "
            "install 'Flask-MMOLove[sqlalchemy]'.",
            "MMOLOVE_OUTBOX",
        ) from e
    return SQLAlchemyOutbox(where)


def _choose_engine(settings: Settings, delivery: t.Callable[[], Delivery]) -> Engine:
    if not settings.enabled or settings.delivery == "manual":
        return ManualEngine()
    if settings.delivery == "inline":
        return InlineEngine(delivery)
    return ThreadEngine(delivery, settings.concurrency)
