"""The extension: what a site calls, and what an app gets of it."""

from __future__ import annotations

import typing as t
from functools import partial
from uuid import UUID

from flask import Blueprint
from flask import Flask

from .callbacks import Callbacks
from .capture.invite import invite
from .capture.seal import seal
from .capture.seal import unseal
from .capture.token import current_mmref
from .capture.token import current_referrer
from .errors import ConfigError
from .registration.attach import attach
from .registration.detect import Player
from .registration.hold import hold
from .registration.signup import FindToken
from .rewards.referral import Referral
from .rewards.referral import referrals_of

if t.TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

    from .outbox.sql.site import SiteDatabase

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
    :param db: The site's Flask-SQLAlchemy. Then the outbox is in its database: a player
        who is named before the commit is reported in the same transaction, and a reward
        is recorded in the transaction that grants it.
    """

    def __init__(
        self, app: Flask | None = None, *, db: SQLAlchemy | None = None
    ) -> None:
        self._callbacks = Callbacks()
        self._database: SiteDatabase | None = None
        if db is not None:
            # Not at the top: much of what imports this package makes no app.
            from .wiring import load_database

            self._database = load_database(db)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Extend an app. Its ``MMOLOVE_*`` settings are read now, and never again.

        :raises ConfigError: If a setting is missing or wrong, or the app has MMOLove
            already.
        """
        if "mmolove" in app.extensions:
            raise ConfigError(
                "MMOLove is registered on this Flask app already. Call MMOLove(app) or "
                "init_app(app), and only once."
            )
        from .wiring import add_hooks
        from .wiring import assemble

        state = assemble(app, self._callbacks, self._database)
        app.extensions["mmolove"] = state
        app.add_template_global(current_mmref)
        app.add_template_global(current_referrer)
        if state.settings.enabled:
            add_hooks(state)

    @t.overload
    def reward(self, callback: R) -> R: ...

    @t.overload
    def reward(self, *, at_most_once: bool = False) -> t.Callable[[R], R]: ...

    def reward(self, callback: t.Any = None, *, at_most_once: bool = False) -> t.Any:
        """Register the function that grants the reward for a friend who qualified.

        It is called with the friend's :class:`Referral`, in an app context, by whatever
        runs the delivery: usually a thread, not a request. Ids in the referral are
        text: ``int(referral.referrer)`` or ``uuid.UUID(referral.referrer)``.

        It is called until it returns, so at least once, always with the same
        ``referral.reward_key``. If it raises, it is called again: soon at first, later
        at least every 15 minutes, for ``MMOLOVE_GIVE_UP_AFTER`` days. Raise
        :exc:`RewardLater` if the game is only away for a while. If it fails for every
        reward, all are paused, and one is tried about once a minute. It may take as
        long as it needs.

        With ``MMOLove(app, db=db)`` it runs in the transaction that records the reward:
        what it writes through ``db.session`` is committed exactly once.

        :param at_most_once: Record that the reward begins, then call. If the process
            dies, or an exception other than :exc:`RewardLater` is raised, the reward is
            ``reward_unconfirmed``: settle it with ``flask mmolove rewards``.
        """
        if callback is None:
            return partial(self.reward, at_most_once=at_most_once)
        self._callbacks.set_reward(callback)
        self._callbacks.at_most_once = at_most_once
        return callback

    def milestone(self, callback: M) -> M:
        """Register the function that tells which friends have reached the milestone.

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
        recorded yet: a mapping of their ids to their :class:`Referral`. Return, or
        yield, the ids of those who have reached it. Each of them is reported as by
        :func:`qualify`.

        A round begins every ``MMOLOVE_MILESTONE_INTERVAL`` seconds, in one process of
        the site at a time: in a thread of its own, with Celery in a task, and with
        ``manual`` in the command ``flask mmolove deliver``. A call has at most 500
        friends. After half a minute a round makes no further call, and whoever is left
        comes first in the next one. Friends are asked about for 90 days after their
        signup. If the function raises, nothing of that call is recorded, and it is
        called again after a pause that grows to an hour at most.
        """
        self._callbacks.milestone = callback
        return callback

    def game(self, *, secret: str) -> Blueprint:
        """Make the endpoint for the game server: a blueprint for you to register.

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
        """Return the friends who came by a player's link, newest first.

        :param player: The site's object for the account, or its id.
        :param limit: How many at most.
        :return: Their referrals. ``qualified_at`` is None until a friend has reached
            the milestone.
        :raises IdentityError: If the player has no identity.
        :raises OutboxError: If the outbox cannot be read.
        """
        return referrals_of(player, limit)

    def dashboard(
        self,
        *,
        access: t.Callable[[], t.Any] | None = None,
        player_name: t.Callable[[list[str]], t.Mapping[t.Any, t.Any]] | None = None,
        site_name: str | None = None,
    ) -> Blueprint:
        """Make the dashboard: a blueprint for you to register.

        .. code-block:: python

            def is_owner():
                return current_user.is_authenticated and current_user.is_owner

            dashboard = mmolove.dashboard(access=is_owner)
            app.register_blueprint(dashboard, url_prefix="/mmolove")

        :param access: Called in each request, without arguments. Returns whether this
            visitor may see the dashboard; anybody else gets a 404.
        :param player_name: Called once for a page, with the ids of its players as
            texts. Returns a mapping of ids to names. Players without a name in it are
            shown by id, and so are all if it raises, which is logged.
        :param site_name: What the site is called; the host of the page's address,
            unless given.
        :raises ConfigError: Without ``access``.
        """
        from .admin.dashboard import make_dashboard

        return make_dashboard(access, player_name, site_name)

    def identity(self, rule: F) -> F:
        """Register the function that takes a player and returns its identity: text or a
        number that never changes, such as the account's id.
        """
        self._callbacks.identity = rule
        return rule

    def consent(self, rule: F) -> F:
        """Register the function that returns whether this visitor's token may be
        stored. It is called in a request, without arguments. If it returns False, the
        token counts only in the request that it came with.
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
        """Report the accounts that views create which somebody else wrote.

        .. code-block:: python

            mmolove.attach(app, "auth.register", player=new_by_field("name", find_id))

        It is :func:`referral_register`, applied from outside to any kind of view. Call
        it after the view was registered. Accounts that are created elsewhere, such as
        by an administrator, are not reported.

        :param endpoints: The views' names, as :func:`flask.url_for` takes them.
        :param player: As in :func:`referral_register`.
        :param token: As in :func:`referral_register`.
        :raises ConfigError: If the app has no such endpoint.
        """
        attach(app, *endpoints, player=player, token=token)

    def hold(self, key: str | int | UUID, *, token: str | None = None) -> None:
        """Keep this visitor's token for an account that will be created later, perhaps
        on another device. ``registered(player, held=key)`` uses it. If you write the
        link of the mail yourself, put the text of :meth:`seal` into it instead.

        .. code-block:: python

            pending.code = secrets.token_urlsafe()
            mmolove.hold(pending.code)          # at the form
            ...
            registered(player, held=code)       # in the view of the mail's link

        The first token under a key counts until it is used, or for 90 days. A later
        visitor changes nothing, and neither does one without a token. Nothing is
        raised; what fails is logged.

        :param key: Text, a number or a UUID that your server creates for this one
            signup, and that nobody can know or choose before. With a name or a mail
            address as the key, whoever sends the form first has their own token held
            for that account. Only a hash of it is stored.
        :param token: The token, if a front end sends it in its own way, such as a
            header. Without one, the visitor's own is kept.
        """
        hold(key, token)

    def seal(self, *, token: str | None = None) -> str | None:
        """Return this visitor's token as a signed text, for a link in a mail, the
        ``state`` of a social login, or a hidden field; None if there is none. It is
        valid for 90 days.

        :param token: The same as in :meth:`hold`.
        """
        return seal(token)

    def unseal(self, text: str | None) -> str | None:
        """Return the token in a text of :meth:`seal`, for ``registered(player,
        token=...)``; None if the text is not ours, too old, or no text at all. So you
        can pass what the visitor sent as it is.
        """
        return unseal(text)

    def forget(self, player: t.Any) -> None:
        """Erase everything stored about a player, as ``flask mmolove forget`` does.

        Call it in the view that deletes an account, after the commit. Events that were
        not sent yet never will be, and no reward is granted any more. Only the daily
        counts and the digests of used tokens stay, which name nobody.

        .. code-block:: python

            db.session.delete(player)
            db.session.commit()
            mmolove.forget(player)

        :param player: The site's object for the account, or its id.
        :raises IdentityError: If the player has no identity.
        :raises OutboxError: If the outbox, or a file beside it, cannot be read or
            written. Call it again, or run the command.
        """
        from .admin.actions import forget_player

        forget_player(player)

    def invite(self, player: t.Any, *, external: bool = True) -> str:
        """Return the link that a player shares with friends. It leads to MMOLove by way
        of a page of your own site, which remembers the referrer. The reward callback
        finds that player in ``referral.referrer``.

        The page is a blueprint, which you register:

        .. code-block:: python

            from flask_mmolove import invitations

            app.register_blueprint(invitations)      # /invite/<code>

        The code contains the player's identity, signed but readable, and MMOLove
        receives it from whoever follows the link. It is valid until the server id or
        the ``SECRET_KEY`` changes; an old key in ``SECRET_KEY_FALLBACKS`` is accepted.

        :param player: The site's object for the account, or its id.
        :param external: False for the path only, without the site's address.
        :raises IdentityError: If the player has no identity.
        :raises ConfigError: If the site has not registered the page, or has no
            ``SECRET_KEY``.
        """
        return invite(player, external=external)
