"""What we sign with the site's key, and the cookies that carry it."""

from __future__ import annotations

import contextlib
import typing as t
from datetime import datetime

from flask import request
from itsdangerous import BadData
from itsdangerous import URLSafeTimedSerializer
from werkzeug.wrappers import Response

from ..state import current_state

R = t.TypeVar("R", bound=Response)

# Nothing that we sign is longer, so a longer text is not worth a MAC.
_LONGEST = 8192

# No browser keeps more cookies for a domain, and each costs a MAC.
_MOST = 200


def keys() -> list[t.Any]:
    """The site's keys, the one that signs last; none without a ``SECRET_KEY``."""
    app = current_state().app
    if not app.secret_key:
        return []
    return [*(app.config.get("SECRET_KEY_FALLBACKS") or []), app.secret_key]


def salts(purpose: str) -> list[str]:
    """The salt to sign with, then another one that is accepted too.

    Sites may share a ``SECRET_KEY``. With the server id in the salt, what one of them
    signed is worth nothing at another.
    """
    # Earlier versions had no server id in the salt. Their cookies and sealed tokens
    # expire, but an invite link has no date and stays in forums for years, so that salt
    # is accepted until 1.0. A site that is switched off needs no server id and signs
    # with it too: the links it shows then work once it is switched on.
    salt = f"flask-mmolove.{purpose}"
    server_id = current_state().settings.server_id
    return [f"{salt}.{server_id}", salt] if server_id else [salt]


def sign(purpose: str, value: t.Any) -> str:
    """Sign and date a value, for a URL or a cookie.

    :param purpose: What was signed for one purpose is worth nothing for another.
    """
    salt, *_ = salts(purpose)
    return str(URLSafeTimedSerializer(keys()).dumps(value, salt))


def read(purpose: str, text: object, seconds: float) -> t.Any:
    """Read the value in a signed text; None if we did not sign it or it is too old.

    :param text: It comes from a visitor, so it may be anything.
    :param seconds: The greatest age to accept.
    """
    signed = _open(purpose, text, seconds)
    return signed and signed[0]


def is_plain(text: object) -> t.TypeGuard[str]:
    """Whether we may have signed this: a short text in ASCII."""
    return isinstance(text, str) and text.isascii() and 0 < len(text) <= _LONGEST


class SignedCookie:
    """A signed cookie, sent wherever the site's session is.

    :param purpose: See :func:`sign`.
    """

    def __init__(self, name: str, purpose: str) -> None:
        self.name = name
        self.purpose = purpose

    @property
    def is_sent(self) -> bool:
        """Whether this request has such a cookie, ours or not."""
        return self.name in request.cookies

    def read(self, seconds: float) -> t.Any:
        """Read the value this visitor's cookie holds; see :func:`read`.

        There may be several, of a parent domain or from before the site changed its
        cookie domain: the newest that we signed counts.
        """
        texts = request.cookies.getlist(self.name)[:_MOST]
        found = [_open(self.purpose, text, seconds) for text in texts]
        ours = [signed for signed in found if signed is not None]
        value, _ = max(ours, key=lambda signed: signed[1], default=(None, None))
        return value

    def set(self, response: Response, value: t.Any, seconds: int | None) -> None:
        """Sign a value and store it in the browser.

        :param seconds: How long it lasts; None for as long as the browser runs.
        """
        text = sign(self.purpose, value)
        response.set_cookie(self.name, text, max_age=seconds, **_attributes())
        keep_private(response)


def delete(response: Response, name: str) -> None:
    """Delete a cookie that has the attributes of ours."""
    common = _attributes()
    response.delete_cookie(name, **common)
    if common["domain"]:
        # One from before the site set a cookie domain would come back to life.
        response.delete_cookie(name, **common | {"domain": None})
    keep_private(response)


def keep_private(response: R) -> R:
    """Keep shared caches from handing one visitor's token to another.

    The site's own ``after_request`` hooks run later.
    """
    response.vary.add("Cookie")
    caching = response.cache_control
    if not caching.no_store:
        caching.private = True
        caching.public = False
        caching.s_maxage = None
    return response


def _attributes() -> dict[str, t.Any]:
    """The attributes of a cookie that goes wherever the site's session goes."""
    app = current_state().app
    interface = app.session_interface
    samesite = interface.get_cookie_samesite(app) or "Lax"
    is_sent_everywhere = samesite.lower() == "none"
    common = {
        "domain": interface.get_cookie_domain(app),
        "path": interface.get_cookie_path(app),
        # Browsers accept SameSite=None only together with Secure.
        "secure": interface.get_cookie_secure(app) or is_sent_everywhere,
        "httponly": True,
        # Browsers do not send a strict cookie when MMOLove redirects a visitor back,
        # which is when we need ours. It logs nobody in, so a forged request gains
        # nothing by it.
        "samesite": "None" if is_sent_everywhere else "Lax",
    }
    # Flask 3.1 and later.
    is_partitioned = getattr(interface, "get_cookie_partitioned", None)
    if is_partitioned is not None and is_partitioned(app):
        common["partitioned"] = True
    return common


def _open(purpose: str, text: object, seconds: float) -> tuple[t.Any, datetime] | None:
    """The value in a signed text, and when it was signed; None if we did not."""
    if not is_plain(text) or not keys():
        return None
    serializer = URLSafeTimedSerializer(keys())
    for salt in salts(purpose):
        with contextlib.suppress(BadData):
            value, moment = serializer.loads(text, int(seconds), True, salt)
            return value, moment
    return None
