"""A sandbox for tests. Requests are signed by hand, so that the wire module is not
its own witness."""

from __future__ import annotations

import hashlib
import hmac
import json
import typing as t

from werkzeug.test import Client
from werkzeug.test import TestResponse

from flask_mmolove.sandbox import create_sandbox
from flask_mmolove.sandbox import Service

NOW = 1_733_500_000
DAY = 24 * 60 * 60
EVENTS = "/api/referral/events"


Fields = dict[str, t.Any]
CONFLICT = {"ok": True, "ignored": "first_touch_conflict"}


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Site:
    """A sandbox without a socket, and a site that signs by hand."""

    def __init__(self, **options: t.Any) -> None:
        self.clock = Clock()
        self.app = create_sandbox(now=self.clock, **options)
        self.service: Service = self.app.extensions["mmolove_sandbox"]
        self.client: Client = self.app.test_client()

    def fields(self, **changes: t.Any) -> Fields:
        if "token" not in changes:
            changes["token"] = self.service.mint()
        fields: Fields = {
            "event": "registered",
            "server_id": "demo-server",
            "referee_identity": "player-7842",
            "server_event_id": "reg-7842",
            "ts": NOW,
        }
        return fields | changes

    def post(
        self, body: bytes, header: str | None = None, **options: t.Any
    ) -> TestResponse:
        headers = {} if header is None else {"X-MMOLove-Signature": header}
        options.setdefault("content_type", "application/json")
        return self.client.post(EVENTS, data=body, headers=headers, **options)

    def send(self, fields: Fields, **signing: t.Any) -> TestResponse:
        body = json.dumps(fields).encode()
        signing.setdefault("at", int(self.clock.now))
        return self.post(body, sign(body, **signing))


def sign(body: bytes, secret: str = "demo-secret", at: int = NOW) -> str:
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1=sha256={mac.hexdigest()}"


def error(response: TestResponse) -> tuple[int, str]:
    assert response.json is not None
    assert set(response.json) == {"error"}
    return response.status_code, response.json["error"]


def changes_nothing(site: Site) -> bool:
    return all(referral.state == "clicked" for referral in site.service.referrals)
