"""What we sign with the site's key, and the cookies of the site's own that hold it."""

from __future__ import annotations

import contextlib
import typing as t
from datetime import datetime

from flask import Flask
from flask import request
from itsdangerous import BadData
from itsdangerous import URLSafeTimedSerializer
from werkzeug.wrappers import Response

from ..state import State

R = t.TypeVar("R", bound=Response)

# Nothing that we sign is longer, so a longer text is not worth a MAC.
_LONGEST = 8192

# No browser keeps more cookies for a domain, and each costs a MAC.
_MOST = 200


def keys(app: Flask) -> list[t.Any]:
    """The site's keys, the one that signs last; none if it has no ``SECRET_KEY``."""
    if not app.secret_key:
        return []
    return [*(app.config.get("SECRET_KEY_FALLBACKS") or []), app.secret_key]


def salts(state: State, purpose: str) -> list[str]:
    """The salt to sign with, and after it the one that is accepted besides.

    Sites may share a ``SECRET_KEY``. With the server id in the salt, what one of them
    signed is worth nothing at another.
    """
    # Earlier versions had no server id in it. Their cookies and sealed tokens end by
    # themselves, but an invite link has no date and stands in forums for years, so it
    # is accepted until 1.0. And a site that is switched off, which needs no server id,
    # signs like that: the links that it shows then are good once it is switched on.
    salt = f"flask-mmolove.{purpose}"
    server_id = state.settings.server_id
    return [f"{salt}.{server_id}", salt] if server_id else [salt]


def sign(state: State, purpose: str, value: t.Any) -> str:
    """A signed and dated text for a URL or a cookie.

    :param purpose: What was signed for one is worth nothing for another.
    """
    salt, *_ = salts(state, purpose)
    return str(_serializer(state).dumps(value, salt))


def read(state: State, purpose: str, text: object, seconds: float) -> t.Any:
    """The value in a signed text; None if it is not ours, too old, or no text at all.

    :param text: It comes from a visitor, so it may be anything.
    :param seconds: The age up to which it is good.
    """
    signed = _open(state, purpose, text, seconds)
    return signed and signed.value


def is_plain(text: object) -> t.TypeGuard[str]:
    """Whether this may be something that we signed: a short text in ASCII."""
    return isinstance(text, str) and text.isascii() and 0 < len(text) <= _LONGEST


class Cookie(t.NamedTuple):
    """A signed cookie, sent wherever the site's session is.

    :param purpose: See :func:`sign`.
    """

    name: str
    purpose: str

    def read(self, state: State, seconds: float) -> t.Any:
        """What this visitor's holds; see :func:`read`. There may be several, of a
        parent domain or from before the site changed its cookie domain: the newest of
        ours counts.
        """
        texts = request.cookies.getlist(self.name)[:_MOST]
        found = [_open(state, self.purpose, text, seconds) for text in texts]
        ours = [signed for signed in found if signed is not None]
        newest = max(ours, key=lambda signed: signed.moment, default=None)
        return newest and newest.value

    def keep(
        self, app: Flask, response: Response, value: str, seconds: int | None
    ) -> None:
        """Set it.

        :param value: What :func:`sign` gave.
        :param seconds: How long it lasts; None for as long as the browser runs.
        """
        response.set_cookie(self.name, value, max_age=seconds, **attributes(app))
        keep_private(response)

    def delete(self, app: Flask, response: Response) -> None:
        """Delete it."""
        delete(app, response, self.name)


def delete(app: Flask, response: Response, name: str) -> None:
    """Delete a cookie that has the attributes of ours."""
    common = attributes(app)
    response.delete_cookie(name, **common)
    if common["domain"]:
        # The one from before the site set a cookie domain would come back to life.
        response.delete_cookie(name, **common | {"domain": None})
    keep_private(response)


def keep_private(response: R) -> R:
    """Say that a response is for its visitor alone: a shared cache must not hand their
    token to another. The site's own ``after_request`` hooks come later.
    """
    response.vary.add("Cookie")
    caching = response.cache_control
    if not caching.no_store:
        caching.private = True
        caching.public = False
        caching.s_maxage = None
    return response


def attributes(app: Flask) -> dict[str, t.Any]:
    """The attributes of a cookie that goes wherever the site's session goes."""
    interface = app.session_interface
    samesite = interface.get_cookie_samesite(app) or "Lax"
    is_sent_everywhere = samesite.lower() == "none"
    common = {
        "domain": interface.get_cookie_domain(app),
        "path": interface.get_cookie_path(app),
        # Browsers take SameSite=None from nobody else.
        "secure": interface.get_cookie_secure(app) or is_sent_everywhere,
        "httponly": True,
        # A strict cookie is not sent when MMOLove leads a visitor back, which is when
        # ours is needed. It logs nobody in, so there is nothing to forge with it.
        "samesite": "None" if is_sent_everywhere else "Lax",
    }
    # Flask 3.1 and later.
    is_partitioned = getattr(interface, "get_cookie_partitioned", None)
    if is_partitioned is not None and is_partitioned(app):
        common["partitioned"] = True
    return common


class _Signed(t.NamedTuple):
    value: t.Any
    moment: datetime


def _open(state: State, purpose: str, text: object, seconds: float) -> _Signed | None:
    if not is_plain(text) or not state.app.secret_key:
        return None
    serializer = _serializer(state)
    for salt in salts(state, purpose):
        with contextlib.suppress(BadData):
            return _Signed(*serializer.loads(text, int(seconds), True, salt))
    return None


def _serializer(state: State) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(keys(state.app))
