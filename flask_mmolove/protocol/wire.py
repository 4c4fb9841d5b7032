"""An event as it travels: the exact bytes, and the header that signs them.

This is the contract with MMOLove and nothing else, so both sides can rest on it: the
client that sends and the sandbox that receives.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import typing as t

from ..errors import EventError
from ..errors import SignatureError

#: Where MMOLove takes events.
ENDPOINT = "https://mmolove.com/api/referral/events"

SIGNATURE_HEADER = "X-MMOLove-Signature"

#: Seconds by which the time of a signature may differ from the receiver's clock.
WINDOW = 300

#: The longest token that is kept; a session cookie over 4 KB is dropped by browsers.
TOKEN_LIMIT = 1024

#: Characters of an identity or a server id: with four bytes each, a key of MariaDB
#: holds no more.
TEXT_LIMIT = 255

#: Seconds for which MMOLove takes a token.
TOKEN_LIFETIME = 90 * 86400

# What ``Number`` holds exactly on the other side (2**53 - 1).
_MAX_INTEGER = 9007199254740991

_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{TOKEN_LIMIT}}}")
_AROUND = r"[\s\u200b-\u200d\u2060\ufeff]*"
_COPIED = re.compile(f"{_AROUND}({_TOKEN.pattern}){_AROUND}")
_SIGNATURE = re.compile(
    r"t=([1-9]\d{0,15}),v1=sha256=([0-9a-f]{64})(?:,kid=([^,\s]+))?", re.ASCII
)

# The bytes of ``JSON.stringify``: no spaces, text as it is.
_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def is_token(value: object) -> t.TypeGuard[str]:
    """Whether a value has the form of an ``mmref`` token: 1 to 1,024 visible ASCII
    characters. What is inside is MMOLove's affair.
    """
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def as_token(value: object) -> str | None:
    """The token in a text that a person may have copied, with blanks, line breaks or
    invisible characters around it; None if it is none.
    """
    found = _COPIED.fullmatch(value) if isinstance(value, str) else None
    return found and found[1]


def is_trimmed(text: str) -> bool:
    """Whether a text has no white space around it. MMOLove cuts that off, so texts that
    differ in nothing else are one and the same there.
    """
    # The mark is white space to JavaScript, and not to Python.
    return text == text.strip() == text.strip("\N{ZERO WIDTH NO-BREAK SPACE}")


def shorten(token: str) -> str:
    """A token as logs and pages may show it: enough to tell two apart, too little to
    use.
    """
    return f"{token[:6]}…" if len(token) > 6 else "…"


class Event:
    """One report to MMOLove, checked when it is made.

    :param event: ``"registered"`` or ``"qualified"``.
    :param token: The captured ``mmref``.
    :param server_id: The server's id at MMOLove.
    :param server_event_id: What makes a second delivery of this event harmless.
    :param ts: When it happened, in Unix seconds.
    :param referee_identity: The new account's stable id; required on ``registered``.
    :param test: A dry run: verified by MMOLove, written nowhere.
    :raises EventError: If MMOLove could only answer 400 to it.
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
            raise EventError(
                f"'event' must be 'registered' or 'qualified', not {event!r}.",
                "event",
            )
        _check_text("token", token)
        _check_text("server_id", server_id)
        _check_text("server_event_id", server_event_id)
        if event == "registered" or referee_identity is not None:
            _check_text("referee_identity", referee_identity)
        if type(ts) is not int or not 0 < ts <= _MAX_INTEGER:
            raise EventError(
                f"'ts' must be whole Unix seconds, not {ts!r}: use int(time.time()).",
                "ts",
            )
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
            f"{name!r} has white space around it, which MMOLove would cut off.", name
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
    """Sign the exact bytes of a body and return the value of the
    ``X-MMOLove-Signature`` header.

    :param body: What will be sent, byte for byte. A text is taken as UTF-8.
    :param secret: The signing secret of the Referrals tab.
    :param timestamp: Unix seconds of *this* attempt; now, unless given. MMOLove refuses
        a signature that is more than five minutes off.
    :param key_id: Sent as ``kid`` where MMOLove gave one with a rotated key.
    """
    moment = int(time.time()) if timestamp is None else timestamp
    header = f"t={moment},v1=sha256={_mac(_as_bytes(body), secret, moment)}"
    return f"{header},kid={key_id}" if key_id else header


class Signature(t.NamedTuple):
    """A signature header, taken apart.

    :param timestamp: Unix seconds at which it was made.
    :param mac: The hexadecimal HMAC-SHA256.
    :param key_id: The key's name, where one was sent.
    """

    timestamp: int
    mac: str
    key_id: str | None = None

    @classmethod
    def parse(cls, header: str) -> Signature:
        """Take a header apart.

        :raises SignatureError: If it does not have the form of one.
        """
        match = _SIGNATURE.fullmatch(header.strip())
        if match is None:
            raise SignatureError(
                f"{SIGNATURE_HEADER} is not 't=<seconds>,v1=sha256=<hex>'."
            )
        return cls(int(match[1]), match[2], match[3])

    def verify(self, body: bytes, secret: str, now: float) -> None:
        """Check that the signature holds for a body and was made just now.

        :param body: The raw bytes as they arrived, before any parsing.
        :param now: The receiver's clock, in Unix seconds.
        :raises SignatureError: If it does not; the message says which it is.
        """
        expected = _mac(body, secret, self.timestamp)
        if not hmac.compare_digest(expected, self.mac):
            raise SignatureError("The signature does not match the body.")
        if abs(now - self.timestamp) > WINDOW:
            raise SignatureError(
                f"The signature is {now - self.timestamp:+.0f} s off; "
                f"{WINDOW} s are allowed."
            )


def _mac(body: bytes, secret: str, timestamp: int) -> str:
    message = b"%d.%b" % (timestamp, body)
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def _as_bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body
