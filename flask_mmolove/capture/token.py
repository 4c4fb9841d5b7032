"""The token this visitor carries, and where the browser keeps it.

It is in a signed cookie of the site's own, because a session ends with the browser,
login views clear it, and it may be full. With ``MMOLOVE_COOKIE_DAYS = 0`` it is there.
"""

from __future__ import annotations

from flask import has_request_context
from flask import request
from flask import Response
from flask import session

from ..outbox.invitation import Invitation
from ..protocol.wire import as_token
from ..protocol.wire import is_token
from ..state import current_state
from . import cookies
from .referrer import remembered
from .visit import MMREF

#: Holds the token and who referred its visitor.
COOKIE = cookies.SignedCookie("mmolove_ref", "token")

#: A token for this request only. Nested app contexts share the environ, but no ``g``.
ENVIRON = "flask_mmolove.token"

_DAY = 86400


def current_mmref() -> str | None:
    """The token this visitor carries, or None. Works in views and in templates.

    It comes from this request's ``?mmref=``, else the session, else our cookie.

    :raises MMOLoveError: If the app has no MMOLove.
    """
    if not has_request_context() or not current_state().settings.enabled:
        return None
    token = request.environ.get(ENVIRON)
    return token if token is not None else stored_token()


def current_referrer() -> str | None:
    """The identity of the player who referred this visitor, or None where it is not
    known. Works in views and in templates.

    :raises MMOLoveError: If the app has no MMOLove.
    """
    invitation = current_invitation()
    return invitation and invitation.referrer


def current_invitation(token: str | None = None) -> Invitation | None:
    """The token this visitor carries and who referred them, or None.

    :param token: One that the site found in this request; used instead if valid.
    """
    token = as_token(token) or current_mmref()
    return None if token is None else invitation_of(token)


def invitation_of(token: str) -> Invitation:
    """A token, with its referrer if that is known."""
    if not has_request_context():
        return Invitation(token)
    stored = read_cookie()
    if stored is not None and stored.token == token:
        return stored
    return Invitation(token, remembered(token))


def stored_token() -> str | None:
    """The token that the browser keeps for this visitor."""
    if not request.cookies:
        return None  # reading the session would mark a stranger's response as varying
    token = session.get(MMREF)
    if is_token(token):
        return token
    stored = read_cookie()
    return stored and stored.token


def read_cookie() -> Invitation | None:
    """What our cookie holds."""
    seconds = _cookie_seconds()
    return Invitation.unpack(COOKIE.read(seconds)) if seconds else None


def set_cookie(response: Response, invitation: Invitation, *, lasting: bool) -> None:
    """Keep a token in our cookie.

    :param lasting: Whether it outlives the browser's session.
    """
    COOKIE.set(response, invitation.pack(), _cookie_seconds() if lasting else None)


def may_store() -> bool:
    """Whether this visitor has consented to our cookies."""
    consent = current_state().callbacks.consent
    return consent is None or bool(consent())


def forget(response: Response) -> Response:
    """Remove a used token from the session and the cookies."""
    arrived = request.environ.pop(ENVIRON, None) is not None
    if not current_state().app.session_interface.is_null_session(session):
        session.pop(MMREF, None)
        cookies.keep_private(response)
    # A token that arrived with this very request has just been put into our cookie.
    if arrived and not COOKIE.is_sent:
        cookies.delete(response, COOKIE.name)
    return delete_cookies(response)


def delete_cookies(response: Response) -> Response:
    """Delete the cookies with a token that this request came with."""
    for name in (COOKIE.name, MMREF):
        if name in request.cookies:
            cookies.delete(response, name)
    return response


def _cookie_seconds() -> int:
    """Seconds for which our cookie lives; 0 if there is none."""
    return current_state().settings.cookie_days * _DAY
