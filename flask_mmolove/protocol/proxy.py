"""The way to MMOLove: the site's proxy, and why no answer came by it."""

from __future__ import annotations

import base64
import os
import re
import ssl
import typing as t
from urllib.parse import unquote
from urllib.parse import urlsplit

#: What other programs read their proxy from, and their certificates.
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")


class Proxy(t.NamedTuple):
    """A proxy that connects to other hosts.

    :param address: Its URL, without name and password.
    :param headers: What it is sent beside the host's name.
    """

    address: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"<Proxy {self.address}>"


def read_proxy(value: str) -> Proxy | None:
    """The proxy that a setting names, if any.

    :raises ValueError: With what is wrong, to follow the setting's name. The value is
        not in it, for it may hold a password.
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
        raise ValueError(f"must be an http:// URL: no proxy of {url.scheme}:// is used")
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


def innermost(error: BaseException) -> BaseException:
    """What an error of requests was at first. Its outermost message wraps three others
    and an object's address.
    """
    while error.__context__ is not None or getattr(error, "reason", None):
        inner = getattr(error, "reason", None) or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def why(
    error: BaseException,
    proxy: Proxy | None,
    ca_bundle: str | None,
    environ: t.Mapping[str, str] = os.environ,
    *,
    is_local: bool = False,
) -> str:
    """Say why no answer may have come, and which setting to change.

    :param error: As :func:`innermost` gives it.
    :param proxy: The one that was used.
    :param is_local: Whether the endpoint is on this machine.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(ca_bundle, environ)
    if proxy is not None:
        return _of_proxy(str(error), proxy)
    words = "No answer came from MMOLOVE_ENDPOINT: is the network up?"
    if name := _first(PROXY_VARIABLES, environ):
        words += (
            f" {name} is set in the environment, and is not used: if this host reaches "
            "others by that proxy only, set MMOLOVE_PROXY to it."
        )
    elif is_local:
        words = (
            "No answer came from MMOLOVE_ENDPOINT, which is on this machine: start it "
            "with 'flask mmolove sandbox'."
        )
    return words


def _of_certificate(ca_bundle: str | None, environ: t.Mapping[str, str]) -> str:
    if ca_bundle is not None:
        return (
            "The certificate that MMOLOVE_ENDPOINT shows is not signed by an authority "
            f"in {ca_bundle} (MMOLOVE_CA_BUNDLE), which is trusted alone: put the right"
            " one into that file, or leave the setting out."
        )
    words = (
        "The certificate that MMOLOVE_ENDPOINT shows is not trusted. If your network "
        "has a certificate authority of its own, set MMOLOVE_CA_BUNDLE to the file of "
        "its certificates."
    )
    if name := _first(CA_VARIABLES, environ):
        words += f" {name} is set in the environment, and is not used."
    return words


def _of_proxy(error: str, proxy: Proxy) -> str:
    refused = _REFUSED.search(error)
    if refused is None:
        return (
            f"No answer came through the proxy {proxy.address} (MMOLOVE_PROXY): does "
            "it run, and can this machine reach it?"
        )
    if refused[1] == "407":
        return (
            f"The proxy {proxy.address} wants a name and a password, or others: write "
            "them into MMOLOVE_PROXY, http://name:password@host:port."
        )
    return (
        f"The proxy {proxy.address} (MMOLOVE_PROXY) did not connect to the host of "
        "MMOLOVE_ENDPOINT: let it allow that host."
    )


def _first(names: t.Iterable[str], environ: t.Mapping[str, str]) -> str | None:
    return next((name for name in names if environ.get(name)), None)
