"""What we sign with the site's key, and the cookies of the site's own that hold it."""

from __future__ import annotations

import typing as t

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


def sign(app: Flask, purpose: str, value: t.Any) -> str:
    """A signed and dated text for a URL or a cookie.

    :param purpose: What was signed for one is worth nothing for another.
    """
    return str(_serializer(app, purpose).dumps(value))


def read(app: Flask, purpose: str, text: str | None, seconds: float) -> t.Any:
    """The value in a signed text; None if it is not ours, or too old.

    :param seconds: The age up to which it is good.
    """
    if not text or not app.secret_key:
        return None
    try:
        return _serializer(app, purpose).loads(text, max_age=int(seconds))
    except BadData:
        return None


class Cookie(t.NamedTuple):
    """A signed cookie, for the domain and path of the site's session.

    :param purpose: See :func:`sign`.
    """

    name: str
    purpose: str

    def read(self, app: Flask, seconds: float) -> t.Any:
        """What this visitor's holds; see :func:`read`."""
        return read(app, self.purpose, request.cookies.get(self.name), seconds)

    def keep(self, app: Flask, response: Response, value: str, seconds: int) -> None:
        """Set it.

        :param value: What :func:`sign` gave.
        """
        response.set_cookie(
            self.name,
            value,
            max_age=seconds,
            httponly=True,
            samesite="Lax",
            **scope(app),
        )

    def delete(self, app: Flask, response: Response) -> None:
        """Delete it."""
        response.delete_cookie(self.name, **scope(app))


def scope(app: Flask) -> dict[str, t.Any]:
    """Where the site's session is sent."""
    interface = app.session_interface
    return {
        "domain": interface.get_cookie_domain(app),
        "path": interface.get_cookie_path(app),
        "secure": interface.get_cookie_secure(app),
    }


def _serializer(app: Flask, purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(keys(app), salt=f"flask-mmolove.{purpose}")
