"""Forms that nobody can send in the owner's name, and a message for the next page."""

from __future__ import annotations

import secrets

from flask import abort
from flask import current_app
from flask import request
from flask import session

from ...capture import cookies

# Keys in the site's session. Flask's own flashed messages are the site's to show.
_NONCE = "mmolove_dashboard"
_MESSAGE = "mmolove_message"

#: Seconds for which a form may be open before it is sent.
LASTS = 12 * 3600

FIELD = "token"

_PURPOSE = "dashboard"


def make_token() -> str:
    """A token for a form of this visitor."""
    if not current_app.secret_key:
        abort(500, "The dashboard needs the site's SECRET_KEY.")
    nonce = session.setdefault(_NONCE, secrets.token_urlsafe(16))
    return cookies.sign(_PURPOSE, nonce)


def check_token() -> None:
    """Refuse a form that was not made for this visitor."""
    nonce = cookies.read(_PURPOSE, request.form.get(FIELD), LASTS)
    if nonce is None or nonce != session.get(_NONCE):
        abort(400, "The form has expired or was forged. Nothing was changed.")


def leave_message(message: str) -> None:
    """Keep a message for the next page."""
    session[_MESSAGE] = message


def take_message() -> str | None:
    """The message that was left, once."""
    # To pop what is not there would mark the session as modified.
    message: str | None = session.pop(_MESSAGE) if _MESSAGE in session else None
    return message
