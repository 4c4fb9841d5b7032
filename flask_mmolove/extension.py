"""The extension: what a site calls, and what an app gets of it."""

from __future__ import annotations

import typing as t
from functools import partial
from uuid import UUID

from flask import Blueprint
from flask import Flask

from .admin.actions import forget_player
from .callbacks import Callbacks
from .capture.hook import Capture
from .capture.invite import invite
from .capture.seal import seal
from .capture.seal import unseal
from .capture.token import current_mmref
from .capture.token import current_referrer
from .delivery.watchdog import Watchdog
from .errors import ConfigError
from .registration.attach import attach
from .registration.detect import Player
from .registration.hold import hold
from .registration.misplaced import put_right
from .registration.misplaced import watch
from .registration.signup import end_request
from .registration.signup import FindToken
from .rewards.referral import Referral
from .rewards.referral import referrals_of
from .settings import Settings
from .wiring import assemble
from .wiring import load_database

if t.TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

F = t.TypeVar("F", bound=t.Callable[..., t.Any])
R = t.TypeVar("R", bound=t.Callable[[Referral], t.Any])
M = t.TypeVar("M", bound=t.Callable[[t.Mapping[str, Referral]], t.Any])


class MMOLove:
    """MMOLove's Referral Kit for a Flask app.

    .. code-block:: python

        mmolove = MMOLove(app)

        @mmolove.reward
        def grant(referral):
            give_item(referral.referrer, "founder-cape", key=referral.reward_key)

    One object can serve several apps: each keeps its own settings and its own outbox.

    :param app: The app to extend now; else call :meth:`init_app` later.
    :param db: The site's Flask-SQLAlchemy. Then the outbox is in its database: what
        is reported is committed with the site's changes in ``db.session`` or rolled
        back with them, and a reward is recorded in the transaction that gives it.
    """

    def __init__(
        self, app: Flask | None = None, *, db: SQLAlchemy | None = None
    ) -> None:
        self._callbacks = Callbacks()
        self._database = None if db is None else load_database(db)
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
        state = assemble(app, settings, self._callbacks, self._database)
        app.extensions["mmolove"] = state
        app.add_template_global(current_mmref)
        app.add_template_global(current_referrer)
        if not settings.enabled:
            return
        app.teardown_request(end_request)
        if self._database is not None:
            # Called before Flask-SQLAlchemy's own, which was registered earlier.
            app.teardown_appcontext(state.recorder.close)
        # First in line: a login wall that was registered before would send the visitor
        # away, and the token with them.
        watchdog = Watchdog(state.outbox, state.spool, settings.delivery)
        capture = Capture(state, watchdog, partial(put_right, app))
        hooks = app.before_request_funcs.setdefault(None, [])
        hooks.insert(0, capture.before_request)
        watch(app)
        if not settings.cookie_days:
            app.after_request(capture.after_request)

    @t.overload
    def reward(self, callback: R) -> R: ...

    @t.overload
    def reward(self, *, at_most_once: bool = False) -> t.Callable[[R], R]: ...

    def reward(self, callback: t.Any = None, *, at_most_once: bool = False) -> t.Any:
        """Register what gives the reward, once per qualified referral.

        Ids in the :class:`Referral` are texts. To look an account up by a number or
        UUID, write ``int(referral.identity)`` or ``uuid.UUID(referral.identity)``.

        It is called with the :class:`Referral`, in the app's context, by whatever runs
        the delivery: usually a thread, not a request. It is called until it returns, so
        at least once; a game that honours ``referral.reward_key`` gives the reward
        once. It may take as long as it needs: while it runs, it is not called for the
        same referral elsewhere. If it raises, it is called again: soon at first, later
        at least every 15 minutes, for ``MMOLOVE_GIVE_UP_AFTER`` days. Raise
        :exc:`RewardLater` when the game is only away for a while. If it fails for every
        reward, all are paused but for one attempt a minute.

        :param at_most_once: Record the reward first, then call. A crash in between, or
            an exception other than :exc:`RewardLater`, leaves it
            ``reward_unconfirmed``: settle it with ``flask mmolove rewards``.
        """
        if callback is None:
            return partial(self.reward, at_most_once=at_most_once)
        self._callbacks.set_reward(callback)
        self._callbacks.at_most_once = at_most_once
        return callback

    def milestone(self, callback: M) -> M:
        """Register what says which friends have reached the milestone.

        .. code-block:: python

            @mmolove.milestone
            def reached_level_20(friends):
                query = text(
                    "SELECT account FROM characters WHERE level >= 20"
                    " AND account IN :ids"
                )
                query = query.bindparams(bindparam("ids", expanding=True))
                return game.execute(query, {"ids": list(friends)}).scalars()

        It is called with the friends who have signed up and whose milestone is not
        recorded yet: a mapping of their ids to their :class:`Referral`, which gives the
        ids when it is iterated. Return, or yield, the ids of those who have reached it.
        It asks for a state and not for an event, so players of earlier days are found
        as well. For the friends whom it gives, the same happens as in :func:`qualify`.

        Each call has at most 500 friends, those first who were asked about longest
        ago, for as long as their tokens are valid, 90 days. A round begins every
        ``MMOLOVE_MILESTONE_INTERVAL`` seconds, 300 unless set, and takes half a minute
        at most; who is left comes first in the next one. One process of the site asks
        at a time, in a thread of its own; with Celery a task does, and with ``manual``
        the command ``flask mmolove deliver``. If the callback raises, nothing is
        recorded, and it is called again after a pause that grows; ``flask mmolove
        status`` shows what it raised.
        """
        self._callbacks.milestone = callback
        return callback

    def game(self, *, secret: str) -> Blueprint:
        """Make the endpoint for the game server, a blueprint for the site to register.

        .. code-block:: python

            game = mmolove.game(secret=os.environ["GAME_SECRET"])
            app.register_blueprint(game, url_prefix="/game")

        The game sends ``POST /game/qualified`` with ``Authorization: Bearer <secret>``
        and the body ``{"players": ["7842"]}``, at most 500 ids and 64 KiB. The answer
        is 200 once all of them are stored, with ``recorded``, ``known`` or ``not
        referred`` for each; 503 if they could not be stored, and then the game sends
        them again. With 400 (wrong body), 401 (wrong secret) and 413 (too long)
        nothing is stored.

        :param secret: At least 32 ASCII characters, known to the site and the game
            server alone. Not ``MMOLOVE_REFERRAL_SECRET``.
        :raises ConfigError: If it is shorter, or is that one.
        """
        from .rewards.game import make_game

        return make_game(secret)

    def referrals(self, player: t.Any, limit: int = 100) -> list[Referral]:
        """The friends a player referred, newest first, from their signup on.

        :param player: The site's object for the account, or its id.
        :param limit: How many at most.
        :return: Their referrals. ``qualified_at`` is None until a friend has reached
            the milestone.
        :raises IdentityError: If the player has no identity.
        :raises OutboxError: If the outbox cannot be read.
        """
        return referrals_of(player, limit)

    def dashboard(self, *, access: t.Callable[[], t.Any] | None = None) -> Blueprint:
        """Make the dashboard, a blueprint for the site to register.

        .. code-block:: python

            def is_owner():
                return current_user.is_authenticated and current_user.is_owner

            dashboard = mmolove.dashboard(access=is_owner)
            app.register_blueprint(dashboard, url_prefix="/mmolove")

        :param access: Called in each request, without arguments: says whether this
            visitor may see it. Anybody else gets a 404.
        :raises ConfigError: Without ``access``.
        """
        from .admin.dashboard import make_dashboard

        return make_dashboard(access)

    def identity(self, rule: F) -> F:
        """Register the function that takes a player and returns its identity: a text or
        number that never changes, such as the account's id. Not a name, which may
        change.
        """
        self._callbacks.identity = rule
        return rule

    def consent(self, rule: F) -> F:
        """Register the function that says whether this visitor's token may be kept. It
        is called in a request, without arguments. If it says no, the token serves only
        the request it came with.
        """
        self._callbacks.consent = rule
        return rule

    def attach(
        self,
        app: Flask,
        *endpoints: str,
        player: Player | None = None,
        token: FindToken | None = None,
    ) -> None:
        """Report the accounts made by views that somebody else wrote.

        .. code-block:: python

            mmolove.attach(app, "auth.register", player=new_by_field("name", find_id))

        It is :func:`referral_register`, applied from outside: to any kind of view, at
        any time after the view was registered. Accounts that are made elsewhere, such
        as by an administrator, are nobody's referrals.

        :param endpoints: The views' names, as :func:`flask.url_for` takes them.
        :param player: Takes the response and gives the new player, or None; or one of
            the ready-made answers. Flask-Login's new user, unless given.
        :param token: Gives the token that came with this very request, where a front
            end passes it in a way of its own.
        :raises ConfigError: If the app has no such endpoint.
        """
        attach(app, *endpoints, player=player, token=token)

    def hold(self, key: str | int | UUID, *, token: str | None = None) -> None:
        """Keep this visitor's token for an account that will be made later, perhaps on
        another device. :func:`registered` takes it with ``held=``. If you write the
        link of the mail yourself, put :meth:`seal` into it instead.

        .. code-block:: python

            pending.code = secrets.token_urlsafe()
            mmolove.hold(pending.code)          # at the form
            ...
            registered(player, held=code)       # in the view of the mail's link

        The first token under a key stays until it is taken or expires, after 90 days.
        A later visitor changes nothing, and neither does one without a token. This
        raises nothing: what fails is logged.

        :param key: A text, number or UUID that your server makes for this one signup,
            and that nobody can know or choose beforehand. With a name or a mail address
            as the key, whoever sends the form first has their token held. It is kept as
            a hash.
        :param token: The token, where a front end sends it in a way of its own, such
            as a header. If it is None or no token, the visitor's own is kept.
        """
        hold(key, token)

    def seal(self, *, token: str | None = None) -> str | None:
        """This visitor's token as a signed text, for a link in a mail, the ``state`` of
        a social login, or a hidden field; None if there is none. It is good for 90
        days.

        :param token: The same as in :meth:`hold`.
        """
        return seal(token)

    def unseal(self, text: str | None) -> str | None:
        """The token in a text that :meth:`seal` gave, for ``registered(player,
        token=...)``; None if the text is not ours, too old, or no text at all: pass
        what the visitor sent as it is.
        """
        return unseal(text)

    def forget(self, player: t.Any) -> None:
        """Erase everything stored about a player, as ``flask mmolove forget`` does.

        Call it in the view that deletes an account, once that is committed: what was
        not sent yet never will be, no reward is given any more, and an account that
        gets the same id later is a new player. Only counts and the digests of used
        tokens stay, which name nobody.

        .. code-block:: python

            db.session.delete(player)
            db.session.commit()
            mmolove.forget(player)

        :param player: The site's object for the account, or its id.
        :raises IdentityError: If the player has no identity.
        :raises OutboxError: If the outbox, or a file beside it, cannot be read or
            written: to erase is a promise, so this is not hidden. Call it again, or
            run the command.
        """
        forget_player(player)

    def invite(self, player: t.Any, *, external: bool = True) -> str:
        """The link that a player shares with friends. It leads to MMOLove by way of the
        site's own page, which remembers who invited; the reward finds that player in
        :attr:`Referral.referrer`.

        The page is a blueprint, which the site registers:

        .. code-block:: python

            from flask_mmolove import invitations

            app.register_blueprint(invitations)      # /invite/<code>

        The code holds the player's identity, signed but readable, and MMOLove gets it
        from whoever follows the link. It stays good until the site changes its
        server id or its ``SECRET_KEY``, or as long as the old key is in
        ``SECRET_KEY_FALLBACKS``.

        :param player: The site's object for the account, or its id.
        :param external: False for the path alone, without the site's address.
        :raises IdentityError: If the player has no identity.
        :raises ConfigError: If the site has not registered the page, or has no
            ``SECRET_KEY``.
        """
        return invite(player, external=external)
