"""Step 1, capture: a visitor comes with ``?mmref=`` and may sign up days later.

The token goes into the session, and into a signed cookie of the site's own, because a
session ends with the browser and login views clear it.
"""

from __future__ import annotations

import typing as t

from flask import after_this_request
from flask import has_request_context
from flask import request
from flask import Response
from flask import session
from itsdangerous import BadData
from itsdangerous import URLSafeTimedSerializer

from . import signals
from .alarm import Alarm
from .log import Brake
from .log import complain
from .log import logger
from .state import current_state
from .state import State
from .wire import is_token
from .wire import TOKEN_LIMIT

#: The query parameter, the cookie that hand-made integrations set, and our key in the
#: session.
MMREF = "mmref"

#: Our own cookie.
COOKIE = "mmolove_ref"

# Where a token stands that is for this request only. Nested app contexts have another
# ``g``, but the same environ.
_ENVIRON = "flask_mmolove.token"

_DAY = 86400
_needle = f"{MMREF}="


class Capture:
    """The ``before_request`` hook of one app. It never raises and never answers."""

    def __init__(self, state: State, alarm: Alarm) -> None:
        self._state = state
        self._start = state.engine.start
        self._look_out = alarm.look_out
        self._junk = Brake(600)

    def __call__(self) -> None:
        # Nearly every request has no token: it is let go after a look at two raw
        # headers, past the proxy, which would cost more than the look. Reading
        # ``session`` would already mark the response as varying.
        environ = request._get_current_object().environ  # type: ignore[attr-defined]
        try:
            self._start()
            if _needle in environ.get("QUERY_STRING", ""):
                self._take_from_query()
            elif _needle in environ.get("HTTP_COOKIE", ""):
                self._take_from_cookie()
            self._look_out()
        except Exception as e:
            complain("Something of Flask-MMOLove failed before a view.", e)

    def _take_from_query(self) -> None:
        token = request.args.get(MMREF)
        if not is_token(token):
            self._ignore(token)
            self._take_from_cookie()
        elif _is_unasked() or _is_static():
            return
        elif not self._may_keep():
            request.environ[_ENVIRON] = token
        elif self._is_news(token):
            self._keep(token)

    def _take_from_cookie(self) -> None:
        token = request.cookies.get(MMREF)
        if is_token(token) and not _is_static() and _stored(self._state) is None:
            if self._may_keep():
                self._keep(token, cookie=False)
            else:
                request.environ[_ENVIRON] = token

    def _ignore(self, token: str | None) -> None:
        if token and self._junk.passes():
            logger.warning(
                "A ?%s= of %d characters was ignored: a token has 1 to %d visible "
                "ASCII characters.",
                MMREF,
                len(token),
                TOKEN_LIMIT,
            )

    def _may_keep(self) -> bool:
        consent = self._state.callbacks.consent
        return consent is None or bool(consent())

    def _is_news(self, token: str) -> bool:
        stored = _stored(self._state)
        if self._state.settings.attribution == "first-touch":
            return stored is None
        return stored != token

    def _keep(self, token: str, cookie: bool = True) -> None:
        request.environ[_ENVIRON] = token
        app = self._state.app
        if app.session_interface.is_null_session(session):
            if self._state.once.passes("session"):
                logger.error(
                    "A token cannot be kept, for the site has no session: set "
                    "app.config['SECRET_KEY']. This is said once."
                )
            return
        session[MMREF] = token
        days = self._state.settings.cookie_days
        if cookie and days and app.secret_key:
            value = _serializer(self._state).dumps(token)

            @after_this_request
            def remember(response: Response) -> Response:
                response.set_cookie(
                    COOKIE,
                    value,
                    max_age=days * _DAY,
                    httponly=True,
                    samesite="Lax",
                    **_scope(self._state),
                )
                return response

        self._state.notify(signals.referral_captured, token=token)


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


def forget(response: Response) -> Response:
    """The token is used up: the session and the cookies forget it."""
    state = current_state()
    arrived = request.environ.pop(_ENVIRON, None) is not None
    if not state.app.session_interface.is_null_session(session):
        session.pop(MMREF, None)
    for name in (COOKIE, MMREF):
        # A token that arrived with this very request has just been put into ours.
        if name in request.cookies or (name == COOKIE and arrived):
            response.delete_cookie(name, **_scope(state))
    return response


def _stored(state: State) -> str | None:
    if not request.cookies:
        return None  # a stranger, for whom the session is not even looked at
    token = session.get(MMREF)
    return token if is_token(token) else _read_cookie(state)


def _read_cookie(state: State) -> str | None:
    value = request.cookies.get(COOKIE)
    days = state.settings.cookie_days
    if not value or not days or not state.app.secret_key:
        return None
    try:
        token = _serializer(state).loads(value, max_age=days * _DAY)
    except BadData:
        return None
    return token if is_token(token) else None


def _serializer(state: State) -> URLSafeTimedSerializer:
    keys = [*(state.app.config.get("SECRET_KEY_FALLBACKS") or [])]
    keys.append(t.cast("str | bytes", state.app.secret_key))
    return URLSafeTimedSerializer(keys, salt="flask-mmolove.token")


def _scope(state: State) -> dict[str, t.Any]:
    """Our cookie reaches just as far as the site's session."""
    interface = state.app.session_interface
    return {
        "domain": interface.get_cookie_domain(state.app),
        "path": interface.get_cookie_path(state.app),
        "secure": interface.get_cookie_secure(state.app),
    }


def _is_static() -> bool:
    return (request.endpoint or "").rpartition(".")[2] == "static"


def _is_unasked() -> bool:
    """A prefetch, or something another site embeds: nobody followed a link, and to
    count it would be cookie stuffing.
    """
    headers = request.headers
    purpose = headers.get("Sec-Purpose", "") + headers.get("Purpose", "")
    if "prefetch" in purpose.lower():
        return True
    return (
        headers.get("Sec-Fetch-Site") == "cross-site"
        and headers.get("Sec-Fetch-Dest", "document") != "document"
    )
