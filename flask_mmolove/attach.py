"""A signup view that somebody else wrote is decorated from outside."""

from __future__ import annotations

import difflib

from flask import Flask

from .errors import ConfigError
from .newcomer import as_newcomer
from .newcomer import Player
from .register import FindToken
from .register import reporting


def attach(
    app: Flask,
    endpoint: str,
    *,
    player: Player | None = None,
    token: FindToken | None = None,
) -> None:
    """Do what :func:`referral_register` does, to a view that is registered already.

    :param endpoint: Its name, as :func:`flask.url_for` takes it.
    :param player: See :func:`referral_register`.
    :param token: The same.
    :raises ConfigError: If the app has no such endpoint.
    """
    view = app.view_functions.get(endpoint)
    if view is None:
        raise ConfigError(_missing(app, endpoint))
    app.view_functions[endpoint] = reporting(view, as_newcomer(player), token)


def _missing(app: Flask, endpoint: str) -> str:
    near = difflib.get_close_matches(endpoint, app.view_functions, 1, 0.5)
    hint = f"Did you mean {near[0]!r}?" if near else "See 'flask routes'."
    return (
        f"The app has no endpoint {endpoint!r}. {hint} If it comes with a blueprint or "
        "an extension, attach to it after that was registered."
    )
