"""What we sign with the site's key, and the cookies of the site's own that hold it."""

from __future__ import annotations

import typing as t
from datetime import datetime

from flask import Flask
from flask import request
from flask import Response
from itsdangerous import BadData
from itsdangerous import URLSafeTimedSerializer


def keys(app: Flask) -> list[t.Any]:
    """The site's keys, the one that signs last; none if it has no ``SECRET_KEY``."""
    if not app.secret_key:
        return []
    return [*(app.config.get("SECRET_KEY_FALLBACKS") or []), app.secret_key]


def salts(app: Flask, purpose: str) -> tuple[str, str]:
    """The salt that signs, and the one of earlier versions, which is still read.

    Two sites with one ``SECRET_KEY`` must not take each other's texts, so the server id
    is part of the salt.

    :param purpose: What was signed for one is worth nothing for another.
    """
    old = f"flask-mmolove.{purpose}"
    return f"{old}.{app.extensions['mmolove'].settings.server_id}", old


def sign(app: Flask, purpose: str, value: t.Any) -> str:
    """A signed and dated text for a URL or a cookie.

    :param purpose: See :func:`salts`.
    """
    salt, _ = salts(app, purpose)
    return str(URLSafeTimedSerializer(keys(app), salt=salt).dumps(value))


def read(app: Flask, purpose: str, text: object, seconds: float) -> t.Any:
    """The value in a signed text; None if it is not ours, or too old.

    :param seconds: The age up to which it is good.
    """
    dated = _read(app, purpose, text, seconds)
    return dated and dated[0]


def _read(
    app: Flask, purpose: str, text: object, seconds: float
) -> tuple[t.Any, datetime] | None:
    """The same, with the time at which it was signed."""
    if not app.secret_key or not isinstance(text, str) or not text.isascii():
        return None
    for salt in salts(app, purpose):
        serializer = URLSafeTimedSerializer(keys(app), salt=salt)
        try:
            value, signed_at = serializer.loads(text, int(seconds), True)
            return value, signed_at
        except BadData:
            pass
    return None


class Cookie(t.NamedTuple):
    """A signed cookie, sent wherever the site's session is.

    :param purpose: See :func:`sign`.
    :param crosses_sites: Whether it has to come along when a link of another site is
        followed, so that it cannot be ``SameSite=Strict``.
    """

    name: str
    purpose: str
    crosses_sites: bool = False

    def read(self, app: Flask, seconds: float) -> t.Any:
        """What this visitor's holds; see :func:`read`. A browser sends several of
        one name where they were set for several domains: the newest of ours counts.
        """
        found = [
            dated
            for text in request.cookies.getlist(self.name)
            if (dated := _read(app, self.purpose, text, seconds))
        ]
        return max(found, key=lambda dated: dated[1])[0] if found else None

    def keep(self, app: Flask, response: Response, value: str, seconds: int) -> None:
        """Set it.

        :param value: What :func:`sign` gave.
        """
        options = scope(app)
        if self.crosses_sites and options["samesite"] == "Strict":
            options["samesite"] = "Lax"
        response.set_cookie(self.name, value, max_age=seconds, httponly=True, **options)
        keep_private(response)

    def delete(self, app: Flask, response: Response) -> None:
        """Delete it."""
        response.delete_cookie(self.name, httponly=True, **scope(app))
        keep_private(response)


def scope(app: Flask) -> dict[str, t.Any]:
    """Where and how the site's session is sent."""
    interface = app.session_interface
    options = {
        "domain": interface.get_cookie_domain(app),
        "path": interface.get_cookie_path(app),
        "secure": interface.get_cookie_secure(app),
        "samesite": interface.get_cookie_samesite(app) or "Lax",
    }
    # Flask and Werkzeug know it since 3.1.
    if hasattr(interface, "get_cookie_partitioned"):
        options["partitioned"] = interface.get_cookie_partitioned(app)
    return options


def keep_private(response: Response) -> Response:
    """Keep shared caches from handing a visitor's response to another visitor."""
    response.vary.add("Cookie")
    cache = response.cache_control
    if not cache.no_store:
        cache.public = False
        cache.s_maxage = None
        cache.private = True
    return response
