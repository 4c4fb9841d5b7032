"""Step 1, capture: a visitor comes with ``?mmref=`` and may sign up days later.

The token goes into a signed cookie of the site's own, for a session ends with the
browser, login views clear it, and a full one has no room. Without that cookie it goes
into the session.
"""

from __future__ import annotations

import typing as t
from os import getpid
from time import monotonic

from flask import after_this_request
from flask import Flask
from flask import has_request_context
from flask import Request
from flask import request
from flask import Response
from flask import session
from flask.sessions import SecureCookieSessionInterface

from .. import signals
from ..delivery.watchdog import Watchdog
from ..errors import OutboxError
from ..log import log_failure
from ..log import logger
from ..log import shielded
from ..log import Throttle
from ..outbox import Invitation
from ..protocol.wire import as_token
from ..protocol.wire import is_token
from ..protocol.wire import TOKEN_LIMIT
from ..registration.misplaced import put_right
from ..state import current_state
from ..state import State
from . import referrer as inviter
from .cookies import Cookie
from .cookies import delete
from .cookies import keep_private
from .cookies import sign

#: The query parameter, the cookie that hand-made integrations set, and our key in the
#: session.
MMREF = "mmref"

#: Our own cookie: the token, and who invited its visitor.
COOKIE = "mmolove_ref"

# Where a token stands that is for this request only. Nested app contexts have another
# ``g``, but the same environ.
_ENVIRON = "flask_mmolove.token"

# Where the token stands that a visitor still carries although it is used up.
_USED = "flask_mmolove.used"

_DAY = 86400

# Seconds after which a store that was away is asked again.
_PAUSE = 60

# Bytes of a cookie, its name and attributes included, that every browser takes.
_COOKIE_LIMIT = 4093

_cookie = Cookie(COOKIE, "token")
_needle = f"{MMREF}="


class Capture:
    """What one app does about tokens that arrive."""

    def __init__(self, state: State, alarm: Watchdog) -> None:
        self._state = state
        self._alarm = alarm
        self._started_in = 0  # the process, by its id
        self._junk = Throttle(600)
        self._look_again = 0.0

    def before_request(self) -> None:
        """The hook: it never raises and never answers."""
        # Nearly every request has no token: it is let go after a look at two raw
        # headers, past the proxy, which would cost more than the look. Reading
        # ``session`` would already mark the response as varying. For the same reason
        # nothing of ours is called before there is something to do.
        visit: Request = request._get_current_object()  # type: ignore[attr-defined]
        environ = visit.environ
        try:
            if self._started_in != getpid():
                with shielded("The order of decorators could not be looked at."):
                    put_right(self._state.app)
                self._state.engine.start()
                self._started_in = getpid()
            if self._cookie_name in environ.get("HTTP_COOKIE", ""):
                self._drop_used()
            if _needle in environ.get("QUERY_STRING", ""):
                self._take_from_query(visit)
            elif _needle in environ.get("HTTP_COOKIE", ""):
                self._take_from_cookie()
            if self._alarm.next < monotonic():
                self._alarm.look_out()
        except Exception as e:
            log_failure("Something of Flask-MMOLove failed before a view.", e)

    @property
    def _cookie_name(self) -> str:
        """The cookie that a token is kept in."""
        app = self._state.app
        if self._state.settings.cookie_days:
            return COOKIE
        return app.session_interface.get_cookie_name(app)

    def _drop_used(self) -> None:
        """Forget a token whose account was reported where no response of ours could say
        so to the browser: by a socket, or a background job.
        """
        if _is_static(request) or monotonic() < self._look_again:
            return
        state = self._state
        # Reading the session as well would mark the response as varying.
        kept = _read_cookie(state)
        token = kept.token if kept else None
        if not state.settings.cookie_days:
            token = _stored(state)
        # Once a minute is enough, and as soon as this process has reported one.
        if token is None or not state.looked.passes(token):
            return
        try:
            if not state.outbox.is_used(token, state.recorder.read_timeout):
                return
        except OutboxError:
            # Pages are not to wait for a store that is away.
            self._look_again = monotonic() + _PAUSE
            return
        state.looked.forget(token)  # its link may be followed again
        # This request still has it: who signs up with it again is to be seen.
        request.environ[_USED] = token

        @after_this_request
        def forget_used(response: Response) -> Response:
            if session.get(MMREF) == token:
                del session[MMREF]
            return _delete_cookies(response)

    def _take_from_query(self, visit: Request) -> None:
        found = _find_in_query(visit)
        token = _first_token(found)
        if token is None:
            self._ignore(found)
            self._take_from_cookie()
        elif not _is_static(visit):
            is_news = self._is_news(token)
            if is_news or inviter.is_back():
                self._arrive(token, is_news)

    def _arrive(self, token: str, is_news: bool) -> None:
        if not is_visit():
            after_this_request(_ask_again)
            return
        inviter.remember(token, inviter.take_referrer(self._state))
        if not may_keep(self._state):
            request.environ[_ENVIRON] = token
        elif is_news:
            self._keep(token)

    def _take_from_cookie(self) -> None:
        token = _first_token(request.cookies.getlist(MMREF))
        if token is None or _is_static(request) or not is_visit():
            return
        if _stored(self._state) is not None:
            return
        if may_keep(self._state):
            self._keep(token, lasting=False)
        else:
            request.environ[_ENVIRON] = token

    def _ignore(self, found: list[str]) -> None:
        if any(found) and self._junk.passes():
            logger.warning(
                "A ?%s= of %d characters was ignored: a token has 1 to %d visible "
                "ASCII characters.",
                MMREF,
                max(map(len, found)),
                TOKEN_LIMIT,
            )

    def _is_news(self, token: str) -> bool:
        used = request.environ.get(_USED)
        if used is not None:
            return bool(token != used)
        stored = _stored(self._state)
        if self._state.settings.attribution == "first-touch":
            return stored is None
        return stored != token

    def _keep(self, token: str, lasting: bool = True) -> None:
        """Keep a token until the visitor signs up.

        :param lasting: Whether it outlives the browser's session.
        """
        request.environ[_ENVIRON] = token
        app = self._state.app
        if app.session_interface.is_null_session(session):
            if self._state.once.passes("session"):
                logger.error(
                    "A token cannot be kept, for the site has no session: set "
                    "app.config['SECRET_KEY']. This is said once."
                )
            return
        if self._state.settings.cookie_days and app.secret_key:
            self._keep_in_cookie(token, lasting)
        else:
            session[MMREF] = token
            after_this_request(keep_private)
        self._state.notify(signals.referral_captured, token=token)

    def _keep_in_cookie(self, token: str, lasting: bool) -> None:
        app = self._state.app
        # An older one there would come first.
        session.pop(MMREF, None)
        value = sign(self._state, _cookie.purpose, invitation_of(token).pack())
        seconds = self._state.settings.cookie_days * _DAY if lasting else None

        @after_this_request
        def remember(response: Response) -> Response:
            _cookie.keep(app, response, value, seconds)
            return response

    def after_request(self, response: Response) -> Response:
        """The hook of a site without a cookie of ours: the session must not grow too
        large for browsers by the token, for they would drop it, and log the player out.
        """
        with shielded("Whether a session has room for a token is not known."):
            # To look into the session marks the response as varying: for a stranger
            # there is no need.
            if not request.cookies and _ENVIRON not in request.environ:
                return response
            if session.modified and MMREF in session and _is_too_large(self._state.app):
                request.environ.setdefault(_ENVIRON, session.pop(MMREF))
                if self._state.once.passes("room"):
                    logger.warning(
                        "A visitor's token was dropped from the session, whose cookie "
                        "would be longer than the %d bytes that browsers take. Put "
                        "less into the session, or let the token have a cookie of its "
                        "own: set MMOLOVE_COOKIE_DAYS to 90. This is said once.",
                        _COOKIE_LIMIT,
                    )
        return response


def current_mmref() -> str | None:
    """The token this visitor carries, or None. Works in views and in templates.

    It comes from this request's ``?mmref=``, else from the session, else from our
    signed cookie.

    :raises MMOLoveError: If the app has no MMOLove.
    """
    if not has_request_context():
        return None
    state = current_state()
    if not state.settings.enabled:
        return None
    token = request.environ.get(_ENVIRON)
    return token if token is not None else _stored(state)


def given_or_own(token: str | None) -> str | None:
    """A token that the site found in this request, or this visitor's own if that is
    none.
    """
    return as_token(token) or current_mmref()


def current_referrer() -> str | None:
    """The identity of the player who invited this visitor, or None where it is not
    known. Works in views and in templates.

    :raises MMOLoveError: If the app has no MMOLove.
    """
    token = current_mmref()
    return None if token is None else invitation_of(token).referrer


def invitation_of(token: str) -> Invitation:
    """A token, with who invited the one it belongs to where that is known."""
    if not has_request_context():
        return Invitation(token)
    kept = _read_cookie(current_state())
    if kept is not None and kept.token == token:
        return kept
    return Invitation(token, inviter.remembered(token))


def forget(response: Response) -> Response:
    """The token is used up: the session and the cookies forget it."""
    app = current_state().app
    arrived = request.environ.pop(_ENVIRON, None) is not None
    if not app.session_interface.is_null_session(session):
        session.pop(MMREF, None)
        keep_private(response)
    # A token that arrived with this very request has just been put into ours.
    if arrived and _cookie.name not in request.cookies:
        _cookie.delete(app, response)
    return _delete_cookies(response)


def _delete_cookies(response: Response) -> Response:
    app = current_state().app
    if _cookie.name in request.cookies:
        _cookie.delete(app, response)
    if MMREF in request.cookies:
        delete(app, response, MMREF)
    return response


def may_keep(state: State) -> bool:
    """Whether something of this visitor may be kept in the browser."""
    consent = state.callbacks.consent
    return consent is None or bool(consent())


def _stored(state: State) -> str | None:
    if not request.cookies:
        return None  # a stranger, for whom the session is not even looked at
    token = session.get(MMREF)
    if is_token(token):
        return token
    kept = _read_cookie(state)
    return kept.token if kept else None


def _read_cookie(state: State) -> Invitation | None:
    days = state.settings.cookie_days
    return Invitation.unpack(_cookie.read(state, days * _DAY)) if days else None


class _Trial(Response):
    max_cookie_size = 0  # Werkzeug is not to warn of what is only tried.


def _is_too_large(app: Flask) -> bool:
    """Whether browsers would drop the cookie that the session goes into."""
    interface = app.session_interface
    if not isinstance(interface, SecureCookieSessionInterface):
        return False  # the session is on the server
    trial = _Trial()
    interface.save_session(app, t.cast(t.Any, session), trial)
    return any(
        len(each) > _COOKIE_LIMIT for each in trial.headers.getlist("Set-Cookie")
    )


def _find_in_query(visit: Request) -> list[str]:
    """What stands there as a token, also after an ``&`` that a mail or a template wrote
    as ``&amp;``.
    """
    try:
        pairs = visit.args.items(multi=True)
    except UnicodeDecodeError:  # bytes that no browser sends
        return []
    return [value for name, value in pairs if name.rpartition(";")[2] == MMREF]


def _first_token(found: list[str]) -> str | None:
    return next(filter(None, map(as_token, found)), None)


def _is_static(visit: Request) -> bool:
    return (visit.endpoint or "").rpartition(".")[2] == "static"


def _ask_again(response: Response) -> Response:
    """A page that was only fetched, and is visited then, must come from the site again,
    or the visit would not be seen.
    """
    response.cache_control.no_store = True
    return response


def is_visit() -> bool:
    """Whether a visitor came by this request. A page in a tab of its own is a visit,
    also one that the browser prefetched or prerendered: the click that follows sends no
    second request. So is what the site's own scripts fetch. Anything else is embedded,
    and nobody followed a link there: to count it would be cookie stuffing.
    """
    # Browsers that are older than the header, and what is no browser, do not send it;
    # nor does any browser to a site without TLS.
    match request.headers.get("Sec-Fetch-Dest"):
        case None | "document":
            return True
        case "empty":
            return request.headers.get("Sec-Fetch-Site") in {"same-origin", "same-site"}
    return False
