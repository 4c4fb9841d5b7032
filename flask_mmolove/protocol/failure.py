"""Why no response came, and which setting to change."""

from __future__ import annotations

import os
import re
import ssl
import typing as t

from .proxy import Proxy

#: Where other programs read their proxy and their certificates; we do not.
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")


def root_cause(error: BaseException) -> BaseException:
    """The first of a chain of errors. The message of the last one, which requests
    raises, quotes three others and the address of an object.
    """
    while error.__context__ is not None or getattr(error, "reason", None):
        inner = getattr(error, "reason", None) or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def explain(
    cause: BaseException,
    proxy: Proxy | None = None,
    ca_bundle: str | None = None,
    *,
    is_local: bool = False,
) -> str:
    """Explain why no response came, and which setting to change.

    :param cause: As :func:`root_cause` gives it.
    :param proxy: The proxy that was used.
    :param ca_bundle: The file of certificates that was used.
    :param is_local: Whether the endpoint is on this machine.
    """
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _explain_certificate(ca_bundle)
    if proxy is not None:
        return _explain_proxy(str(cause), proxy)
    if name := _first_set(PROXY_VARIABLES):
        return (
            "No response came from MMOLOVE_ENDPOINT: is the network up? The "
            f"environment variable {name} is set but not used: if this machine needs "
            "that proxy to reach others, set MMOLOVE_PROXY to it."
        )
    if is_local:
        return (
            "No response came from MMOLOVE_ENDPOINT, which is on this machine: start "
            "it with 'flask mmolove sandbox'."
        )
    return "No response came from MMOLOVE_ENDPOINT: is the network up?"


def _explain_certificate(ca_bundle: str | None) -> str:
    if ca_bundle is not None:
        return (
            "MMOLOVE_ENDPOINT has a certificate that no authority in "
            f"{ca_bundle} (MMOLOVE_CA_BUNDLE) has signed, and no other is trusted: put "
            "the right authority into that file, or leave the setting out."
        )
    hint = (
        "MMOLOVE_ENDPOINT has a certificate that is not trusted. If your network has a "
        "certificate authority of its own, set MMOLOVE_CA_BUNDLE to the file of its "
        "certificates."
    )
    if name := _first_set(CA_VARIABLES):
        hint += f" The environment variable {name} is set but not used."
    return hint


def _explain_proxy(error: str, proxy: Proxy) -> str:
    refused = _REFUSED.search(error)
    if refused is None:
        return (
            f"No response came through the proxy {proxy.address} (MMOLOVE_PROXY): is "
            "it running, and can this machine reach it?"
        )
    if refused[1] == "407":
        return (
            f"The proxy {proxy.address} asks for a name and a password, or did not "
            "accept them: set MMOLOVE_PROXY to http://name:password@host:port."
        )
    return (
        f"The proxy {proxy.address} (MMOLOVE_PROXY) did not connect to the host of "
        "MMOLOVE_ENDPOINT: allow that host there."
    )


def _first_set(names: t.Iterable[str]) -> str | None:
    return next((name for name in names if os.environ.get(name)), None)
