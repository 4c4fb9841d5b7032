"""What a request says of how its visitor came, and of the token in its address."""

from __future__ import annotations

from flask import request

from ..protocol.wire import as_token

#: The query parameter, the cookie of hand-made integrations, our key in the session.
MMREF = "mmref"


def query_values() -> list[str]:
    """The values of ``mmref`` in the query, also after an ``&`` sent as ``&amp;``."""
    try:
        pairs = request.args.items(multi=True)
    except UnicodeDecodeError:  # bytes that no browser sends
        return []
    return [value for name, value in pairs if name.rpartition(";")[2] == MMREF]


def first_token(values: list[str]) -> str | None:
    """The first of some values that is a token."""
    return next(filter(None, map(as_token, values)), None)


def is_static() -> bool:
    """Whether this request is for a static file."""
    return (request.endpoint or "").rpartition(".")[2] == "static"


def is_visit() -> bool:
    """Whether somebody opened a page, and did not just load something embedded in one.

    A page that the browser prefetched or prerendered is a visit, because the click that
    follows sends no second request. So is what the site's own scripts fetch. Nobody
    followed a link to anything embedded: to count it would be cookie stuffing.
    """
    # Older browsers do not send this header, nor does any to a site without TLS.
    match request.headers.get("Sec-Fetch-Dest"):
        case None | "document":
            return True
        case "empty":
            return request.headers.get("Sec-Fetch-Site") in {"same-origin", "same-site"}
    return False
