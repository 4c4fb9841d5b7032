"""Passwords in URLs, which nobody may read where a URL is shown."""

from __future__ import annotations

import re
import typing as t
from urllib.parse import quote
from urllib.parse import quote_plus
from urllib.parse import unquote_plus

_STARS = "***"

# Up to the last "@": a password may hold one that is not encoded.
_USER_INFO = re.compile(r"(\w://[^\s/:@]*:)\S*(?=@)")
_PARAMETER = re.compile(r"([?&;]([^\s=&;#]+)=)[^\s&]+")

# ``password``, ``passwd``, ``sslpassword``, ``ssl_passphrase``, ``pwd``.
_SECRET = re.compile("pass|pwd", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether a parameter of a URL is one to be masked."""
    return _SECRET.search(unquote_plus(name)) is not None


def mask(text: str) -> str:
    """A URL, or a text in which some stand, without the passwords."""
    text = _USER_INFO.sub(rf"\1{_STARS}", text)
    return _PARAMETER.sub(
        lambda found: found[1] + _STARS if is_secret(found[2]) else found[0], text
    )


def mask_values(text: str, secrets: t.Iterable[str]) -> str:
    """A text that quotes some secrets, as they are or percent-encoded, without them."""
    forms = {
        form
        for secret in secrets
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
        if form
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, _STARS)
    return text
