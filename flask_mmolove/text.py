"""Text as a log, a table or a page may show it: on one line, and without passwords."""

from __future__ import annotations

import re
import typing as t
from urllib.parse import quote
from urllib.parse import quote_plus
from urllib.parse import unquote_plus

_STARS = "***"

# Up to the last "@": a password may contain one that is not encoded.
_USER_INFO = re.compile(r"(\w://[^\s/:@]*:)\S*(?=@)")
_PARAMETER = re.compile(r"([?&;]([^\s=&;#]+)=)[^\s&]+")

# ``password``, ``passwd``, ``sslpassword``, ``ssl_passphrase``, ``pwd``.
_SECRET = re.compile("pass|pwd", re.IGNORECASE)


def printable(text: str) -> str:
    """Escape what a reader could not see: control characters, line breaks, and marks
    that hide or reorder the characters around them.
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return ascii(character)[1:-1]


def mask(text: str) -> str:
    """Replace the passwords of a URL, or of every URL in a text."""
    text = _USER_INFO.sub(rf"\1{_STARS}", text)
    return _PARAMETER.sub(
        lambda found: found[1] + _STARS if is_secret(found[2]) else found[0], text
    )


def is_secret(name: str) -> bool:
    """Whether :func:`mask` replaces the value of a URL's parameter."""
    return _SECRET.search(unquote_plus(name)) is not None


def mask_values(text: str, secrets: t.Iterable[str]) -> str:
    """Replace secrets that a text quotes, as they are or percent-encoded."""
    forms = {
        form
        for secret in secrets
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
        if form
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, _STARS)
    return text
