"""Who referred a visitor, as far as it is known.

MMOLove's responses and redirects do not say. So a player's link on the site's own
domain stores the player in a cookie for the trip through MMOLove, and the token that
the visitor comes back with belongs to that referrer. A token that came another way has
no known referrer.
"""

from __future__ import annotations

from flask import after_this_request
from flask import has_request_context
from flask import request
from werkzeug.wrappers import Response

from .cookies import delete
from .cookies import SignedCookie

#: Lives for the trip through MMOLove, and is deleted on return.
COOKIE = SignedCookie("mmolove_referrer", "referrer")

# Earlier versions set the second one: a visitor may be on the trip during an update.
_COOKIES = (COOKIE, SignedCookie("mmolove_inviter", "inviter"))

# Seconds for the trip: MMOLove may show a page of its own in between.
_TRIP = 3600

# The referrers by token that this request knows.
_ENVIRON = "flask_mmolove.referrers"


def set_referrer_cookie(response: Response, referrer: str) -> None:
    """Store who referred a visitor who is being redirected to MMOLove.

    :param referrer: The referring player's identity.
    """
    COOKIE.set(response, referrer, _TRIP)


def is_returning() -> bool:
    """Whether this visitor may be coming back from MMOLove."""
    return any(cookie.is_sent for cookie in _COOKIES)


def take_referrer() -> str | None:
    """Read who referred a visitor who comes back from MMOLove, and delete the cookie:
    the visitor's next token may come another way.
    """
    sent = [cookie for cookie in _COOKIES if cookie.is_sent]
    if not sent:
        return None

    @after_this_request
    def forget(response: Response) -> Response:
        for cookie in sent:
            delete(response, cookie.name)
        return response

    values = (cookie.read(_TRIP) for cookie in sent)
    return next((value for value in values if isinstance(value, str)), None)


def remember(token: str, referrer: str | None) -> None:
    """Remember for this request who referred the visitor with a token."""
    if referrer is not None and has_request_context():
        request.environ.setdefault(_ENVIRON, {})[token] = referrer


def remembered(token: str) -> str | None:
    """Look up what :func:`remember` stored."""
    found = request.environ.get(_ENVIRON, {}).get(token)
    return found if isinstance(found, str) else None
