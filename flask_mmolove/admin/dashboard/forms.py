"""Forms that nobody else can send in a visitor's name, and a word that waits for the
next page.
"""

from __future__ import annotations

import secrets

from flask import abort
from flask import current_app
from flask import request
from flask import session

from ...capture.cookies import read
from ...capture.cookies import sign

# In the site's session, under names of our own. Flask's own flashed messages are the
# site's to show.
_NONCE = "mmolove_desk"
_WORD = "mmolove_said"

#: Seconds for which a form may stand open.
LASTS = 12 * 3600

FIELD = "token"

_PURPOSE = "desk"


def make_token() -> str:
    """A token for a form of this visitor."""
    if not current_app.secret_key:
        abort(500, "The page needs the site's SECRET_KEY.")
    nonce = session.setdefault(_NONCE, secrets.token_urlsafe(16))
    return sign(_PURPOSE, nonce)


def check_token() -> None:
    """Refuse a form that was not made for this visitor."""
    nonce = read(_PURPOSE, request.form.get(FIELD), LASTS)
    if nonce is None or nonce != session.get(_NONCE):
        abort(400, "The form has expired, or was not this page's. Nothing was changed.")


def say(word: str) -> None:
    """Keep a word for the next page that is shown."""
    session[_WORD] = word


def take_word() -> str | None:
    """The word that was kept, once."""
    word: str | None = session.pop(_WORD, None) if _WORD in session else None
    return word
