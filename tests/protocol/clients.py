"""Clients for tests, and what they send."""

from __future__ import annotations

import typing as t

from flask_mmolove import Outcome
from flask_mmolove import ReferralClient
from flask_mmolove.protocol.response import Verdict
from tests.protocol.rawserver import RawServer
from tests.protocol.tlsserver import HOST

SECRET = "hush-hush-7f3a"
NOW = 1733500000
BODY = b'{"event":"qualified"}'
PASSWORD = "open-sesame-41"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Reach(t.Protocol):
    def __call__(self, url: str, **options: t.Any) -> ReferralClient: ...


def at(server: RawServer, user: str = "") -> str:
    """A proxy's address."""
    return f"http://{user}127.0.0.1:{server.port}"


def report(timeout: float = 5, **options: t.Any) -> Outcome:
    options = {"endpoint": f"https://{HOST}/api", **options}
    client = ReferralClient(
        server_id="srv-1", secret="secret", timeout=timeout, **options
    )
    try:
        return client.registered("tok", referee_identity="7", server_event_id="reg-7")
    finally:
        client.close()


def failure(**options: t.Any) -> Outcome:
    outcome = report(**options)
    assert (outcome.status, outcome.verdict) == (0, Verdict.RETRY)
    return outcome
