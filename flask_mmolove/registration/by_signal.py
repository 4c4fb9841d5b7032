"""Who is new, as another extension's signal says."""

from __future__ import annotations

import typing as t

from blinker import Signal
from flask import has_request_context
from flask import request
from flask import Response

from ..errors import MMOLoveError
from ..log import shielded
from .decorator import registered

# The answer whose view is running.
_ENVIRON = "flask_mmolove.registration.signal"


class new_by_signal:
    """The player whom a signal names while the view runs, as if the view called
    :func:`registered` at that moment.

    .. code-block:: python

        from flask_security import user_registered

        by_signal = new_by_signal(user_registered)
        mmolove.attach(app, "security.register", player=by_signal)

    The signal counts in this view only: an account that an administrator creates on
    another page is not reported.

    :param signal: The signal.
    :param argument: The name of its argument that holds the player.
    """

    def __init__(self, signal: Signal, argument: str = "user") -> None:
        self._argument = argument
        signal.connect(self._receive)

    def before(self) -> None:
        request.environ[_ENVIRON] = self

    def after(self, response: Response, before: None) -> None:
        request.environ.pop(_ENVIRON, None)

    def why(self, response: Response, before: None) -> str:
        return "the signal was not sent while the view ran"

    def _receive(self, sender: t.Any, **arguments: t.Any) -> None:
        if not has_request_context() or request.environ.get(_ENVIRON) is not self:
            return
        with shielded("A signup could not be reported to MMOLove."):
            if self._argument not in arguments:
                raise MMOLoveError(
                    f"The signal has no argument {self._argument!r}; it has "
                    f"{sorted(arguments)}. Name the one that holds the player: "
                    "new_by_signal(signal, '...')."
                )
            registered(arguments[self._argument])
