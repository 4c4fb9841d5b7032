"""A page that loads itself again, without a script."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import request
from flask import Response
from flask import url_for

_ARGUMENT = "refresh"

#: Seconds between two loads that a link offers, and the fewest and most that an address
#: may ask for.
OFFERED = 30
_FEWEST, _MOST = 5, 3600


def interval() -> int | None:
    """Seconds after which this page is to be loaded again, if its address says so."""
    seconds = request.args.get(_ARGUMENT, type=int)
    return seconds and min(max(seconds, _FEWEST), _MOST)


def address(seconds: int | None) -> str:
    """This page's address with another interval, or with none."""
    arguments = {k: v for k, v in request.args.items() if k != _ARGUMENT}
    if seconds:
        arguments[_ARGUMENT] = str(seconds)
    path = url_for(request.endpoint or "", **(request.view_args or {}))
    return f"{path}?{urlencode(arguments)}" if arguments else path


def schedule(response: Response) -> None:
    """Have the browser load this page again."""
    if seconds := interval():
        response.headers["Refresh"] = str(seconds)
