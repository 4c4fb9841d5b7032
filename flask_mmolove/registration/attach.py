"""Signup views that somebody else wrote are decorated from outside."""

from __future__ import annotations

import difflib

from flask import Flask

from ..errors import ConfigError
from . import detect
from .decorator import reporting
from .signup import FindToken


def attach(
    app: Flask,
    *endpoints: str,
    player: detect.Player | None = None,
    token: FindToken | None = None,
) -> None:
    """Put :func:`referral_register` on registered views; see :meth:`MMOLove.attach`.

    :raises ConfigError: If an endpoint is missing, or none is named: none is changed.
    """
    if not endpoints:
        raise ConfigError("attach() takes one endpoint at least. See 'flask routes'.")
    for endpoint in endpoints:
        if endpoint not in app.view_functions:
            raise ConfigError(_missing(app, endpoint))
    detector = detect.as_detector(player)
    for endpoint in endpoints:
        view = app.view_functions[endpoint]
        app.view_functions[endpoint] = reporting(view, detector, token)


def _missing(app: Flask, endpoint: str) -> str:
    near = difflib.get_close_matches(endpoint, app.view_functions, 1, 0.5)
    hint = f"Did you mean {near[0]!r}?" if near else "See 'flask routes'."
    return (
        f"The app has no endpoint {endpoint!r}. {hint} If it comes with a blueprint or "
        "an extension, attach to it after that was registered."
    )
