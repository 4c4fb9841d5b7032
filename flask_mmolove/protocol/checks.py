"""What MMOLove or the transport demands of a value, whoever passes it.

Each check gives the value back, or raises a :exc:`ValueError` whose message continues
the value's name: "is empty".
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from urllib.parse import urlsplit

from ..text import mask
from .proxy import read_proxy
from .wire import TEXT_LIMIT


def check_text(value: str) -> str:
    """Check a server id or a secret."""
    if not value.strip():
        raise ValueError("is empty")
    if len(value) > TEXT_LIMIT or "\0" in value:
        raise ValueError(f"is longer than {TEXT_LIMIT} characters or contains a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid text") from None
    return value


def check_key_id(value: str) -> str:
    """Check the name of a key; it may be empty."""
    if not value.isascii() or not value.isprintable() or set(value) & set(", "):
        raise ValueError(f"must be visible ASCII without commas, not {value!r}")
    return value


def check_endpoint(value: str) -> str:
    """Check the URL that events are sent to."""
    shown = mask(value)
    try:
        url = urlsplit(value)
        host = url.hostname or ""
        _ = url.port  # raises if it is not a number
        host.encode("idna")  # raises if no resolver could look it up
    except ValueError:
        raise ValueError(f"is not a valid URL: {shown!r}") from None
    if not host or url.scheme not in {"http", "https"}:
        raise ValueError(f"must be an https:// URL, not {shown!r}")
    if url.username is not None:
        raise ValueError("contains a user name or password: leave them out")
    if url.scheme == "http" and not is_loopback(host):
        raise ValueError(
            f"is {shown!r}: over plain http anyone on the way could read the tokens. "
            "Write https:// (http is accepted for this machine only)"
        )
    return value


def check_proxy(value: str) -> str:
    """Check the URL of a proxy; it may be empty."""
    read_proxy(value)
    return value


def check_ca_bundle(value: str) -> str:
    """Check a file of certificates."""
    if os.path.isdir(value):
        raise ValueError(f"is a folder, {value}: name the file of certificates in it")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except ssl.SSLError:
        raise ValueError(f"holds no certificates in PEM format: {value}") from None
    except OSError as e:
        raise ValueError(f"cannot be read, {value}: {e.strerror}") from None
    return value


def is_local(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
