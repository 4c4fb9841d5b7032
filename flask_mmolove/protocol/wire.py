"""An event as it is sent: the exact bytes, and the header that signs them.

The client that sends and the sandbox that receives both use it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import typing as t

from ..errors import EventError

#: Where MMOLove accepts events.
ENDPOINT = "https://mmolove.com/api/referral/events"

SIGNATURE_HEADER = "X-MMOLove-Signature"

#: Seconds by which a signature's timestamp may differ from the receiver's clock.
WINDOW = 300

#: The longest token that is kept; a session cookie over 4 KB is dropped by browsers.
TOKEN_LIMIT = 1024

#: Characters of an identity or a server id: a key of MariaDB holds no more.
TEXT_LIMIT = 255

#: Seconds for which MMOLove accepts a token.
TOKEN_LIFETIME = 90 * 86400

# The largest integer that JavaScript represents exactly (2**53 - 1).
_MAX_INTEGER = 9007199254740991

_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{TOKEN_LIMIT}}}")

# Characters without width, which copying picks up. Python takes none for white space.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"), " ")

# The bytes of ``JSON.stringify``: no spaces, text as it is.
_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def is_token(value: object) -> t.TypeGuard[str]:
    """Whether a value has the form of an ``mmref`` token: 1 to 1,024 visible ASCII
    characters. Its content is MMOLove's business.
    """
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def as_token(value: object) -> str | None:
    """The token in a text that somebody may have copied, with spaces, line breaks or
    invisible characters around it; None if there is none.
    """
    if not isinstance(value, str):
        return None
    token = value.translate(_INVISIBLE).strip()
    return token if is_token(token) else None


def is_trimmed(text: str) -> bool:
    """Whether a text has no white space around it, which MMOLove would trim."""
    # The mark is white space to JavaScript, and not to Python.
    return text == text.strip() == text.strip("\N{ZERO WIDTH NO-BREAK SPACE}")


def shorten(token: str) -> str:
    """A token as logs and pages show it: enough to tell two apart, not to use one."""
    return f"{token[:6]}…" if len(token) > 6 else "…"


def request_headers() -> dict[str, str]:
    """The headers of each request, but for its signature."""
    from importlib.metadata import version  # who only records needs none of this

    return {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"Flask-MMOLove/{version('Flask-MMOLove')}",
    }


class Event:
    """One report to MMOLove, checked when it is made.

    :param event: ``"registered"`` or ``"qualified"``.
    :param token: The captured ``mmref``.
    :param server_id: The server's id at MMOLove.
    :param server_event_id: The idempotency key: a second delivery changes nothing.
    :param ts: When it happened, in Unix seconds.
    :param referee_identity: The new account's stable id; required on ``registered``.
    :param test: A dry run, which MMOLove verifies and does not store.
    :raises EventError: If MMOLove could only respond with 400.
    """

    def __init__(
        self,
        event: str,
        token: str,
        server_id: str,
        server_event_id: str,
        ts: int,
        referee_identity: str | None = None,
        test: bool = False,
    ) -> None:
        if event not in {"registered", "qualified"}:
            names = "'registered' or 'qualified'"
            raise EventError(f"'event' must be {names}, not {event!r}.", "event")
        _check_text("token", token)
        _check_text("server_id", server_id)
        _check_text("server_event_id", server_event_id)
        if event == "registered" or referee_identity is not None:
            _check_text("referee_identity", referee_identity)
        if type(ts) is not int or not 0 < ts <= _MAX_INTEGER:
            words = f"whole Unix seconds, not {ts!r}: use int(time.time())"
            raise EventError(f"'ts' must be {words}.", "ts")
        self.event = event
        self.token = token
        self.server_id = server_id
        self.server_event_id = server_event_id
        self.ts = ts
        self.referee_identity = referee_identity
        self.test = test

    def encode(self) -> bytes:
        """The body, byte for byte as it is signed and sent."""
        fields: dict[str, t.Any] = {
            "event": self.event,
            "token": self.token,
            "server_id": self.server_id,
        }
        if self.referee_identity is not None:
            fields["referee_identity"] = self.referee_identity
        fields["server_event_id"] = self.server_event_id
        fields["ts"] = self.ts
        if self.test:
            fields["test"] = True
        return _to_json(fields).encode()

    def __repr__(self) -> str:
        return f"<Event {self.event} {self.server_event_id!r}>"


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise EventError(f"{name!r} must be a non-empty string.", name)
    if not is_trimmed(value):
        raise EventError(
            f"{name!r} has white space around it, which MMOLove would trim.", name
        )
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise EventError(f"{name!r} is not valid text: {e.reason}.", name) from e


def sign_referral_body(
    body: bytes | str,
    secret: str,
    *,
    timestamp: int | None = None,
    key_id: str | None = None,
) -> str:
    """Give the ``X-MMOLove-Signature`` for the exact bytes of a body.

    :param body: What will be sent, byte for byte. A text is encoded as UTF-8.
    :param secret: The signing secret of the Referrals tab.
    :param timestamp: Unix seconds of *this* attempt; now, unless given. MMOLove refuses
        a signature that is more than five minutes off.
    :param key_id: Sent as ``kid``, if MMOLove gave one with a rotated key.
    """
    moment = int(time.time()) if timestamp is None else timestamp
    content = body.encode() if isinstance(body, str) else body
    header = f"t={moment},v1=sha256={compute_mac(content, secret, moment)}"
    return f"{header},kid={key_id}" if key_id else header


def compute_mac(body: bytes, secret: str, timestamp: int) -> str:
    """The hexadecimal HMAC of a body that is signed at a time."""
    message = b"%d.%b" % (timestamp, body)
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
