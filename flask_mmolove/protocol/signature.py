"""A signature as its receiver reads it. A site only signs, and never imports this."""

from __future__ import annotations

import hmac
import re
import typing as t

from ..errors import SignatureError
from .wire import compute_mac
from .wire import SIGNATURE_HEADER

_HEADER = re.compile(
    r"t=([1-9]\d{0,15}),v1=sha256=([0-9a-f]{64})(?:,kid=([^,\s]+))?", re.ASCII
)


class Signature(t.NamedTuple):
    """A parsed signature header.

    :param timestamp: When it was made, in Unix seconds.
    :param mac: The hexadecimal HMAC-SHA256.
    :param key_id: The key's name, if one was sent.
    """

    timestamp: int
    mac: str
    key_id: str | None = None

    @classmethod
    def parse(cls, header: str) -> Signature:
        """Parse a header.

        :raises SignatureError: If it is malformed.
        """
        match = _HEADER.fullmatch(header.strip())
        if match is None:
            raise SignatureError(
                f"{SIGNATURE_HEADER} is not 't=<seconds>,v1=sha256=<hex>'."
            )
        return cls(int(match[1]), match[2], match[3])

    def matches(self, body: bytes, secret: str) -> bool:
        """Whether this secret signed this body at :attr:`timestamp`. The caller checks
        whether that lies in the receiver's window.

        :param body: The raw bytes as they arrived, before any parsing.
        """
        return hmac.compare_digest(compute_mac(body, secret, self.timestamp), self.mac)
