"""Step 2, register: the signup view made an account, and ``registered`` is reported."""

from __future__ import annotations

import typing as t
from functools import partial
from functools import wraps
from uuid import UUID

from flask import after_this_request
from flask import current_app
from flask import has_request_context
from werkzeug.exceptions import HTTPException

from ..log import shielded
from .detect import as_detector
from .detect import Detector
from .detect import Player
from .misplaced import mark
from .misplaced import remember
from .signup import begin
from .signup import current_signup
from .signup import FAILED
from .signup import FindToken
from .signup import report_player

F = t.TypeVar("F", bound=t.Callable[..., t.Any])


@t.overload
def referral_register(view: F) -> F: ...


@t.overload
def referral_register(
    *, player: Player | None = None, token: FindToken | None = None
) -> t.Callable[[F], F]: ...


def referral_register(
    view: t.Any = None, *, player: Player | None = None, token: FindToken | None = None
) -> t.Any:
    """Report the account that a signup view creates, if its visitor came with a token.

    .. code-block:: python

        @app.post("/register")
        @referral_register
        def register():
            ...

    Put it below the route, next to the function. Above the route it works too: the view
    is decorated at the app's first request. For a class-based view, write
    ``decorators = [referral_register]`` in the class.

    The new player is the one that the view names with ``registered(player)``, or else
    the one that ``player`` finds. Without one nothing is reported, because no status
    code proves a signup. With an error response the player is not reported either,
    unless the account is known to be committed: with :class:`new_row`, or with
    ``MMOLove(app, db=db)``. Once the player is reported, the token is used up.

    :param player: A function that takes the response and returns the new player, or
        None; or one of the ready-made detectors. The default is :data:`new_login`.
    :param token: A function that returns the token that came with this request, if a
        front end sends it in its own way. If it returns None, the visitor's own is
        used.
    :raises TypeError: At import, if it is put on something that is not a function.
    """
    decorate = partial(reporting, detector=as_detector(player), token=token)
    if view is None:
        return partial(referral_register, player=player, token=token)
    if isinstance(view, type) or not callable(view):
        raise TypeError(
            f"@referral_register goes on a view function, not on {view!r}. For a "
            "class-based view write 'decorators = [referral_register]' in the class."
        )
    remember(view, decorate)
    return decorate(view)


def reporting(
    view: t.Callable[..., t.Any], detector: Detector, token: FindToken | None
) -> t.Callable[..., t.Any]:
    """A view that does what another does, and reports the account it makes."""

    @wraps(view)
    def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        if not has_request_context():
            raise TypeError(
                f"The view {view.__name__!r} was called outside of a request. If it is "
                "the function that finds the player, name it: "
                f"@referral_register(player={view.__name__})."
            )
        signup = begin(detector, token)
        try:
            response = current_app.ensure_sync(view)(*args, **kwargs)
        except BaseException as e:
            # Its handler may answer without an error, or name a player of its own.
            if signup is not None:
                signup.failed = not _is_response(e)
                after_this_request(signup.finish)
            raise
        if signup is not None:
            # Its value has become a response then. The app's own after_request hooks
            # come later still: what fails in them is not known here.
            after_this_request(signup.finish)
        return response

    mark(wrapper)
    return wrapper


def registered(
    player: t.Any, *, token: str | None = None, held: str | int | UUID | None = None
) -> None:
    """Report that a player has just signed up.

    In a view with :func:`referral_register` the player is reported when the response
    leaves without an error. Anywhere else, such as in a signal's receiver, a login
    callback or a script, the event is recorded at once. With ``MMOLove(app, db=db)``
    the event of an account that is not committed yet is committed with it, in both
    cases and whatever the response is. Without a token nothing happens: the player was
    not referred. Calling it again changes nothing.

    :param player: The site's object for the account, or its id.
    :param token: The player's ``mmref``. Without it, this visitor's own is used, or
        else ``player.mmref``, where an older integration kept it.
    :param held: The key under which :meth:`MMOLove.hold` kept the player's token. Then
        that token is used and no other, because an account may be confirmed in a
        browser that came by another link.
    :raises IdentityError: Outside a request, if the player has no identity. While a
        request is handled nothing is raised: it is logged.
    :raises OutboxError: Outside a request, if not even the spool can take it.
    """
    if not has_request_context():
        report_player(player, token, held)
        return
    with shielded(FAILED):
        if signup := current_signup():
            signup.hand_over(player, token, held)
        elif signup := report_player(player, token, held):
            after_this_request(signup.conclude)


def _is_response(error: BaseException) -> bool:
    """Whether it is a response that was raised, as by ``abort(redirect(...))``."""
    if not isinstance(error, HTTPException):
        return False
    return error.response is not None or (error.code or 500) < 400
