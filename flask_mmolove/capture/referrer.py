"""Who invited a visitor, as far as it is known.

MMOLove's answers and redirects do not say. So a player's link on the site's own domain
remembers the player in a cookie for the trip through MMOLove, and the token with which
the visitor comes back is bound to that player then. A token that came another way has
no known inviter.
"""

from __future__ import annotations

from flask import after_this_request
from flask import has_request_context
from flask import request
from werkzeug.wrappers import Response

from ..state import State
from .cookies import Cookie
from .cookies import sign

#: For the trip through MMOLove, and deleted on return.
COOKIE = Cookie("mmolove_inviter", "inviter")

# Seconds for the trip: MMOLove may show a page of its own in between.
_TRIP = 3600

# Where the tokens of this request stand with their inviters.
_ENVIRON = "flask_mmolove.inviters"


def set_referrer_cookie(state: State, response: Response, inviter: str) -> None:
    """Remember the inviter of a visitor who goes on to MMOLove.

    :param inviter: The inviting player's identity.
    """
    value = sign(state, COOKIE.purpose, inviter)
    COOKIE.keep(state.app, response, value, _TRIP)


def is_back() -> bool:
    """Whether this visitor may be coming back from MMOLove."""
    return COOKIE.name in request.cookies


def take_referrer(state: State) -> str | None:
    """The inviter of a visitor who comes back from MMOLove. It is good for this once:
    the next token may come another way.
    """
    if not is_back():
        return None

    @after_this_request
    def delete(response: Response) -> Response:
        COOKIE.delete(state.app, response)
        return response

    inviter = COOKIE.read(state, _TRIP)
    return inviter if isinstance(inviter, str) else None


def remember(token: str, inviter: str | None) -> None:
    """Know for this request who invited the one with a token."""
    if inviter is not None and has_request_context():
        request.environ.setdefault(_ENVIRON, {})[token] = inviter


def remembered(token: str) -> str | None:
    """Who that was, as far as this request knows."""
    found = request.environ.get(_ENVIRON, {}).get(token)
    return found if isinstance(found, str) else None
