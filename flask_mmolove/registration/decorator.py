"""Step 2, register: the signup view made an account, and ``registered`` is reported."""

from __future__ import annotations

import contextlib
import typing as t
from copy import copy
from functools import partial
from functools import wraps
from uuid import UUID

from flask import after_this_request
from flask import current_app
from flask import has_request_context
from flask import request
from flask import Response
from werkzeug.exceptions import HTTPException

from ..capture.token import current_mmref
from ..capture.token import forget
from ..capture.token import invitation_of
from ..errors import IdentityError
from ..log import complain
from ..log import logger
from ..log import shielded
from ..orm import is_in_session
from ..orm import is_uncommitted
from ..orm import is_undone
from ..orm import kept_token
from ..outbox import Note
from ..protocol.wire import as_token
from ..state import current_state
from ..state import F
from ..state import State
from .detect import as_detector
from .detect import Detector
from .detect import new_row
from .detect import Player
from .detect import why
from .hold import recall
from .misplaced import mark
from .misplaced import remember

_ENVIRON = "flask_mmolove.signup"

# The signup that has found nobody so far, with its response.
_UNNAMED = "flask_mmolove.unnamed"

FindToken = t.Callable[[], "str | None"]

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ..outbox.sql.session import Enlistment

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

    It belongs below the route, next to the function. Above the route it works too: the
    view is decorated at the app's first request.

    It is sugar for reading :func:`current_mmref` before the view runs and calling
    :func:`registered` after it. The referee is the one the view names with
    ``registered(player)``, else what ``player`` gives, else the user whom Flask-Login
    logged in. Without one nothing is reported: no status code proves a signup. Nor is a
    player reported with an error response, unless the account is known to be committed:
    by :class:`new_row`, or with ``MMOLove(app, db=db)``. Once reported, the token is
    used up.

    For a class-based view, write ``decorators = [referral_register]`` in the class.

    :param player: Takes the response and gives the new player, or None; or one of the
        ready-made answers: :class:`new_row`, :data:`new_login`,
        :class:`new_in_session`, :class:`new_in_json`, :class:`new_by_field`.
    :param token: Gives the token that came with this very request, where a front end
        passes it in a way of its own. If it gives None, the visitor's own is taken.
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
        signup = _begin(detector, token)
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
    """Say that a player has just signed up.

    Inside a view with :func:`referral_register` the player is handed over, and reported
    when the response leaves without an error. Anywhere else, in a signal's receiver, a
    login callback or a script, it is recorded at once. With ``MMOLove(app, db=db)`` it
    is committed with your changes instead, and what is committed is reported, whatever
    the view then answers. A player without a token was not referred, and nothing
    happens. Saying it again changes nothing.

    :param player: The site's object for the account, or its id.
    :param token: The player's ``mmref``. If None, this visitor's own is used; else
        ``player.mmref``, where an older integration kept it.
    :param held: The key under which :meth:`MMOLove.hold` kept the player's token. Then
        that one is taken and no other: an account may be confirmed in a browser that
        came by another link.
    :raises IdentityError: Outside a request, if the player has no identity. While a
        request is handled nothing is raised: it is logged.
    :raises OutboxError: Outside a request, if not even the emergency exit can take it.
    """
    if not has_request_context():
        _report(player, token, held)
        return
    with shielded(_FAILED):
        signup = request.environ.get(_ENVIRON)
        if signup is not None:
            signup.hand_over(player, token, held)
        elif signup := _report(player, token, held):
            after_this_request(signup.conclude)


class Signup:
    """A signup in the making: a view at work, or a player who was named elsewhere.

    :param visitor: The token that its visitor carried before.
    :param detector: Tells who is new; None if it could not look before the view.
    :param before: What it saw then.
    """

    def __init__(
        self,
        state: State,
        visitor: str | None,
        detector: Detector | None = None,
        before: t.Any = None,
    ) -> None:
        self.state = state
        self.visitor = visitor
        self.detector = detector
        self.before = before
        #: Whether the view raised.
        self.failed = False
        #: Whether the response is on its way.
        self.is_finished = False
        #: Whether the outbox has the referee already.
        self.is_recorded = False
        #: Those who were handed over before the referee.
        self.others: list[Signup] = []
        #: Who was handed over.
        self.referee: t.Any = None
        #: What is to be recorded of the referee, if they were referred.
        self.note: Note | None = None
        #: The same, where it is to be committed with the site's changes.
        self.enlistment: Enlistment | None = None
        self._was_in_session = False
        # The last row that was handed over.
        self._row: t.Any = None

    def hand_over(
        self, player: t.Any, token: str | None, held: str | int | UUID | None = None
    ) -> None:
        """Keep the player until the signup is recorded."""
        if self.note is not None and player is not self.referee:
            self.others.append(copy(self))
        else:
            self._withdraw()
        self.note = self.enlistment = None
        self.is_recorded = False
        self._was_in_session = is_in_session(player)
        self.referee = player
        token = token or self.visitor or kept_token(player)
        self.note = _make_note(self.state, player, token, held)
        session = self.state.session
        if self.note and session and not session.is_committed(player):
            self.enlistment = session.enlist(self.note, player)

    def record(self) -> None:
        """Record the referee, or leave that to the site's session."""
        if self.note is None or self.is_recorded:
            return
        if self.state.session is not None:
            if self.enlistment is None:
                self.enlistment = self.state.session.enlist(self.note, self.referee)
            return
        if not self.note.identity:
            identity = self.state.identify(self.referee)
            self.note = self.note._replace(identity=identity)
        self.state.record(self.note)
        self.is_recorded = True

    def joins(self, session: Session) -> bool:
        """See :class:`.inserted.Reporter`."""
        return self.state.session is not None and self.state.session.is_of(session)

    def hand_over_row(self, row: t.Any) -> None:
        """A row that the request inserts is the new player, unless the view names
        another.
        """
        if self.referee is None or self._has_row:
            self._row = row
            self.hand_over(row, self.visitor)

    def record_row(self) -> None:
        """Record a row that is committed, if the view has no answer to wait for."""
        if self.is_finished and self._has_row:
            self.record()
            if self.enlistment is not None:
                self.enlistment.settle()

    @property
    def _has_row(self) -> bool:
        return self._row is not None and self.referee is self._row

    def conclude(self, response: Response) -> Response:
        """The token of a player who is recorded is used up."""
        with shielded(_FAILED):
            recorded = self.enlistment is None or self.enlistment.settle()
            token = self.note and self.note.token
            if recorded and token is not None and token == self.visitor:
                forget(response)
        return response

    def finish(self, response: Response) -> Response:
        """The view is done: report the referee, if there is one."""
        with shielded(_FAILED):
            request.environ.pop(_ENVIRON, None)
            self.is_finished = True
            if response.status_code < 400:
                if self.referee is None and self.visitor is not None:
                    self._look_for_referee(response)
            for each in (*self.others, self):
                each._finish_one(response)
        return response

    def _finish_one(self, response: Response) -> None:
        if self.note is None:
            return
        if reason := self._why_dropped(response):
            self._warn_of_dropped(reason)
            return
        try:
            self.record()
            self.conclude(response)
            if response.status_code < 400 or self._is_reported:
                self.state.views.named(str(request.endpoint))
        except IdentityError as e:
            complain(_FAILED, e)
            reason = "the player that it named has no identity"
            self.state.views.failed(str(request.endpoint), reason)
        except Exception as e:
            complain(_FAILED, e)
        if response.status_code >= 400 and self.enlistment is not None:
            # It is seldom committed then, and no fault of the site's.
            self.enlistment.is_awaited = False

    @property
    def _is_reported(self) -> bool:
        return self.is_recorded or bool(self.enlistment and self.enlistment.recorded)

    def _why_dropped(self, response: Response) -> str | None:
        """Why a player who was named is not reported, if so. In the site's own
        database, that is for the commit to decide.
        """
        if self.is_recorded or self.state.session is not None:
            return None
        identified = self.note is not None and self.note.identity
        if identified and self._was_in_session and is_undone(self.referee):
            return "its row was rolled back or deleted"
        if self.failed and is_uncommitted(self.referee):
            return "the view raised before its row was committed"
        if response.status_code >= 400 and not self._has_row:
            return f"the answer was {response.status_code}"
        return None

    def _warn_of_dropped(self, reason: str) -> None:
        logger.warning(
            "The view %r named player %s, who was not reported: %s. If the account "
            "was made all the same, use @referral_register(player=new_row(User)) or "
            "MMOLove(app, db=db), which go by the commit, or answer without an error.",
            request.endpoint,
            (self.note and self.note.identity) or "?",
            reason,
        )

    def _withdraw(self) -> None:
        """Another player is named in this one's place."""
        if self.enlistment is not None:
            self.enlistment.withdraw()

    def _look_for_referee(self, response: Response) -> None:
        if self.detector is None:
            return
        player = self.detector.after(response, self.before)
        if player is not None:
            self.hand_over(player, self.visitor)
        elif request.method == "POST":
            request.environ[_UNNAMED] = self, response


def end_request(error: BaseException | None = None) -> None:
    """The request ends. So what it commits by hooks of its own counts, and a row that a
    view committed before the server got its exception.
    """
    with shielded(_FAILED):
        if signup := request.environ.pop(_ENVIRON, None):
            signup.is_finished = True
            signup.record_row()
        signup, response = request.environ.pop(_UNNAMED, (None, None))
        if signup is None:
            return
        endpoint = str(request.endpoint)
        if signup.referee is not None:
            signup.state.views.named(endpoint)
        else:
            reason = why(signup.detector, response, signup.before)
            signup.state.views.nobody(endpoint, response.status_code, reason)


def _is_response(error: BaseException) -> bool:
    """Whether it is another way to return one: ``abort(redirect(...))``, or a redirect
    that is raised.
    """
    if not isinstance(error, HTTPException):
        return False
    return error.response is not None or (error.code or 500) < 400


def _begin(detector: Detector, find_token: FindToken | None) -> Signup | None:
    signup = None
    with shielded("A visitor's token could not be read."):
        state = current_state()
        if state.settings.enabled:
            signup = Signup(state, current_mmref())
            request.environ[_ENVIRON] = signup
            # A body that cannot be read is for the view to refuse.
            with contextlib.suppress(HTTPException):
                if find_token is not None and (token := as_token(find_token())):
                    signup.visitor = token
    if signup is not None and signup.visitor is not None:
        with (
            shielded("Who was there before a signup is not known."),
            contextlib.suppress(HTTPException),
        ):
            signup.before = detector.before()
            signup.detector = detector
            if isinstance(detector, new_row):
                signup.before.reporter = signup
    return signup


def _report(
    player: t.Any, token: str | None, held: str | int | UUID | None
) -> Signup | None:
    """Report a player who was named outside of a signup view."""
    state = current_state()
    if not state.settings.enabled:
        return None
    signup = Signup(state, current_mmref())
    signup.hand_over(player, token, held)
    signup.record()
    return signup


def _make_note(
    state: State, player: t.Any, token: str | None, held: str | int | UUID | None
) -> Note | None:
    if held is not None:
        note = recall(state, held)
    elif token := as_token(token):
        note = state.note("", invitation_of(token), "registered")
    else:
        note = None
    # Now, for later the site may have closed the session its object lives in; but a
    # row that is not flushed yet has its id only then.
    with contextlib.suppress(IdentityError):
        return note and note._replace(identity=state.identify(player))
    return note
