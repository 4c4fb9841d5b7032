"""Forms that nobody else can send in a visitor's name, and a word that waits for the
next page.
"""

from __future__ import annotations

import secrets

from flask import abort
from flask import current_app
from flask import request
from flask import session
from itsdangerous import BadData
from itsdangerous import URLSafeTimedSerializer

# In the site's session, under names of our own. Flask's own flashed messages are the
# site's to show.
_NONCE = "mmolove_desk"
_WORD = "mmolove_said"

#: Seconds for which a form may stand open.
LASTS = 12 * 3600

FIELD = "token"


def make_token() -> str:
    """A token for a form of this visitor."""
    nonce = session.setdefault(_NONCE, secrets.token_urlsafe(16))
    return _serializer().dumps(nonce)


def check_token() -> None:
    """Refuse a form that was not made for this visitor."""
    try:
        nonce = _serializer().loads(request.form.get(FIELD, ""), max_age=LASTS)
    except BadData:
        nonce = None
    known = session.get(_NONCE)
    if not isinstance(nonce, str) or not isinstance(known, str) or nonce != known:
        abort(400, "The form has expired, or was not this page's. Nothing was changed.")


def say(word: str) -> None:
    """Keep a word for the next page that is shown."""
    session[_WORD] = word


def take_word() -> str | None:
    """The word that was kept, once."""
    word: str | None = session.pop(_WORD, None) if _WORD in session else None
    return word


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(str(_secret()), salt="flask-mmolove-desk")


def _secret() -> str | bytes:
    if not current_app.secret_key:
        abort(500, "The page needs the site's SECRET_KEY.")
    return current_app.secret_key
