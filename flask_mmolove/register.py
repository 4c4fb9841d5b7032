"""Step 2, register: the signup view made an account, and ``registered`` is reported."""

from __future__ import annotations

import contextlib
import typing as t
from functools import partial
from functools import wraps

from flask import after_this_request
from flask import current_app
from flask import has_request_context
from flask import request
from flask import Response
from werkzeug.exceptions import HTTPException

from .capture import current_mmref
from .capture import forget
from .capture import invitation_of
from .errors import IdentityError
from .hold import recall
from .log import logger
from .log import shielded
from .newcomer import as_newcomer
from .newcomer import new_login
from .newcomer import Newcomer
from .newcomer import Player
from .outbox import Note
from .state import current_state
from .state import F
from .state import State
from .wire import is_token

_ENVIRON = "flask_mmolove.signup"

# What a view without a player is warned of by, once; and never after it named one.
_WARNED = "nameless view "

FindToken = t.Callable[[], "str | None"]

# Sees to it at the end that a player is recorded, and gives the token by which they
# are; None if they are not.
Settle = t.Callable[[], "str | None"]

if t.TYPE_CHECKING:
    from .outbox.session import Enlistment

_FAILED = "A signup could not be reported to MMOLove."


@t.overload
def referral_register(view: F) -> F: ...


@t.overload
def referral_register(
    *, player: Player | None = None, token: FindToken | None = None
) -> t.Callable[[F], F]: ...


def referral_register(
    view: t.Any = None,
    *,
    player: Player | None = None,
    token: FindToken | None = None,
) -> t.Any:
    """Report the account that a signup view makes, if its visitor carries a token.

    .. code-block:: python

        @app.post("/register")
        @referral_register
        def register():
            ...

    It is sugar for reading :func:`current_mmref` before the view runs and calling
    :func:`registered` after it. The referee is the one the view names with
    ``registered(player)``, else what ``player`` gives, else the user whom Flask-Login
    logged in. Without one, or with an error response, nothing is reported: no status
    code proves a signup. Once reported, the token is used up.

    For a class-based view, write ``decorators = [referral_register]`` in the class.

    :param player: Takes the response and gives the new player, or None; or one of the
        ready-made answers: :data:`new_login`, :class:`new_in_session`,
        :class:`new_in_json`, :class:`new_by_field`.
    :param token: Gives the token that came with this very request, where a front end
        passes it in a way of its own. If it gives None, the visitor's own is taken.
    :raises TypeError: At import, if it is put on something that is not a function.
    """
    newcomer = as_newcomer(player)
    if view is None:
        return partial(referral_register, player=player, token=token)
    if isinstance(view, type) or not callable(view):
        raise TypeError(
            f"@referral_register goes on a view function, not on {view!r}. For a "
            "class-based view write 'decorators = [referral_register]' in the class."
        )

    @wraps(view)
    def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
        if not has_request_context():
            raise TypeError(
                f"The view {view.__name__!r} was called outside of a request. If it is "
                "the function that finds the player, name it: "
                f"@referral_register(player={view.__name__})."
            )
        signup = _begin(newcomer, token)
        try:
            response = current_app.ensure_sync(view)(*args, **kwargs)
        except HTTPException as e:
            # abort(redirect(...)) is another way to return a response.
            if signup is not None and e.response is not None:
                after_this_request(signup.finish)
            raise
        if signup is not None:
            # Its value has become a response then. The app's own after_request hooks
            # come later still: what fails in them is not known here.
            after_this_request(signup.finish)
        return response

    return wrapper


def registered(
    player: t.Any, *, token: str | None = None, held: str | int | None = None
) -> None:
    """Say that a player has just signed up.

    Inside a view with :func:`referral_register` the player is handed over, and reported
    when the response leaves without an error. Anywhere else, in a signal's receiver, a
    login callback or a script, it is recorded at once. A player without a token was not
    referred, and nothing happens. Saying it again changes nothing.

    :param player: The site's object for the account, or its id.
    :param token: The player's ``mmref``, where it is not this visitor's; else
        ``player.mmref`` is used, where an older integration kept it.
    :param held: The key under which :meth:`MMOLove.hold` kept the player's token. Then
        that one is taken and no other: an account may be confirmed in a browser that
        came by another link.
    :raises IdentityError: Outside a request, if the player has no identity. While a
        request is handled nothing is raised: it is logged.
    :raises OutboxError: Outside a request, if the outbox cannot take the event.
    """
    if not has_request_context():
        _record(current_state(), player, token, held)
        return
    with shielded(_FAILED):
        signup = request.environ.get(_ENVIRON)
        if signup is not None:
            signup.hand_over(player, token, held)
        elif settle := _record(current_state(), player, token, held):
            after_this_request(partial(_conclude, settle))


class Signup:
    """A signup view at work.

    :param visitor: The token that its visitor carried before it ran.
    :param newcomer: Tells who is new; None if it could not look before the view.
    :param before: What it saw then.
    """

    def __init__(
        self,
        state: State,
        visitor: str | None,
        newcomer: Newcomer | None = None,
        before: t.Any = None,
    ) -> None:
        self.state = state
        self.visitor = visitor
        self.newcomer = newcomer
        self.before = before
        #: Whom the view handed over.
        self.referee: t.Any = None
        #: What is to be recorded of the referee, if they were referred.
        self.note: Note | None = None
        #: The same, where it is to be committed with the site's changes.
        self.enlistment: Enlistment | None = None

    def hand_over(
        self, player: t.Any, token: str | None, held: str | int | None = None
    ) -> None:
        """Keep the player until the response leaves."""
        self.withdraw()
        self.referee = player
        token = token or self.visitor or getattr(player, "mmref", None)
        self.note = _make_note(self.state, player, token, held)
        session = self.state.session
        if self.note and session and not session.is_committed(player):
            self.enlistment = session.enlist(self.note, player)

    def withdraw(self) -> None:
        """Forget the player whom the view handed over, unless it is committed."""
        if self.enlistment is not None:
            self.enlistment.withdraw()
        self.note = self.enlistment = None

    def finish(self, response: Response) -> Response:
        """Report the referee, if there is one."""
        with shielded(_FAILED):
            request.environ.pop(_ENVIRON, None)
            if response.status_code < 400:
                self._report(response)
            else:
                self.withdraw()
        return response

    def _report(self, response: Response) -> None:
        if self.referee is None and self.visitor is not None:
            if self.newcomer is None:
                return
            player = self.newcomer.after(response, self.before)
            if player is None:
                self._warn(response)
                return
            self.hand_over(player, self.visitor)
        if self.note is None:
            return
        self.state.once.spend(_WARNED + str(request.endpoint))
        if self.enlistment is None:
            settle = _submit(self.state, self.note, self.referee)
        else:
            settle = _settle(self.enlistment, self.note.token)
        token = settle()
        if token is not None and token == self.visitor:
            forget(response)

    def _warn(self, response: Response) -> None:
        if self.newcomer is not new_login or request.method != "POST":
            return
        if self.state.once.passes(_WARNED + str(request.endpoint)):
            logger.warning(
                "The view %r answered %s to a visitor with a token and named no new "
                "player, so nothing was reported. If a player signed up, name it in "
                "one of three ways: call registered(player) in the view; write "
                "@referral_register(player=lambda response: ...); or log the player "
                "in with Flask-Login's login_user(). This is said once per view.",
                request.endpoint,
                response.status_code,
            )


def _begin(newcomer: Newcomer, find_token: FindToken | None) -> Signup | None:
    signup = None
    with shielded("A visitor's token could not be read."):
        state = current_state()
        if state.settings.enabled:
            signup = Signup(state, current_mmref())
            request.environ[_ENVIRON] = signup
            if find_token is not None and is_token(token := find_token()):
                signup.visitor = token
    if signup is not None and signup.visitor is not None:
        with shielded("Who was there before a signup is not known."):
            signup.before = newcomer.before()
            signup.newcomer = newcomer
    return signup


def _record(
    state: State, player: t.Any, token: str | None, held: str | int | None
) -> Settle | None:
    """Record a player's ``registered``, if they were referred."""
    if not state.settings.enabled:
        return None
    token = token or current_mmref() or getattr(player, "mmref", None)
    note = _make_note(state, player, token, held)
    return note and _submit(state, note, player)


def _make_note(
    state: State, player: t.Any, token: str | None, held: str | int | None
) -> Note | None:
    if held is not None:
        note = recall(state, held)
    elif is_token(token):
        note = state.note("", invitation_of(token), "registered")
    else:
        note = None
    # Now, for later the site may have closed the session its object lives in; but a
    # row that is not flushed yet has its id only then.
    with contextlib.suppress(IdentityError):
        return note and note._replace(identity=state.identify(player))
    return note


def _submit(state: State, note: Note, player: t.Any) -> Settle:
    """Record a note, or leave it to the site's session."""
    if state.session is not None:
        return _settle(state.session.enlist(note, player), note.token)
    if not note.identity:
        note = note._replace(identity=state.identify(player))
    state.record(note)
    return lambda: note.token


def _settle(enlistment: Enlistment, token: str | None) -> Settle:
    return lambda: token if enlistment.settle() else None


def _conclude(settle: Settle, response: Response) -> Response:
    with shielded(_FAILED):
        token = settle()
        if token is not None and token == current_mmref():
            forget(response)
    return response
