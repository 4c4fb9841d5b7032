"""The proxy that a site reaches MMOLove through."""

from __future__ import annotations

import base64
import typing as t
from urllib.parse import unquote
from urllib.parse import urlsplit


class Proxy(t.NamedTuple):
    """A proxy that connects to other hosts.

    :param address: Its URL, without name and password.
    :param headers: Headers for the proxy alone: its name and password.
    """

    address: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"<Proxy {self.address}>"


def read_proxy(value: str) -> Proxy | None:
    """Read a proxy's URL; an empty one is no proxy.

    :raises ValueError: If it is wrong. The message continues the setting's name, and
        does not quote the value, which may contain a password.
    """
    if not value:
        return None
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        port = url.port or 80
        host = (url.hostname or "").encode("idna").decode()
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if url.scheme != "http":
        raise ValueError(f"must be an http:// URL: {url.scheme}:// is not supported")
    if not host or url.path.strip("/") or url.query or url.fragment:
        raise ValueError("must have the form http://name:password@host:port")
    if not value.isprintable() or " " in value:
        raise ValueError("contains a space or a control character")
    host = f"[{host}]" if ":" in host else host
    return Proxy(f"http://{host}:{port}", _authorization(url.username, url.password))


def _authorization(name: str | None, password: str | None) -> dict[str, str]:
    if name is None:
        return {}
    pair = f"{unquote(name)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
