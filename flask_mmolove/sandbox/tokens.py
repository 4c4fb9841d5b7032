"""The sandbox's ``mmref`` tokens: signed, bound to one server, valid for 90 days.

Sites must not look inside a token: the real ones may look different.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from itsdangerous import BadData
from itsdangerous import URLSafeSerializer

from ..protocol.wire import TOKEN_LIFETIME

# Not a secret: there is nothing to protect on this machine, and with a constant key a
# token outlives a restart, as at the real service.
_KEY = "mmolove-sandbox"

# It comes first, so that shortened tokens can be told apart; the salt binds it.
_NONCE_LENGTH = 8

_REF = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True)
class Token:
    """The content of a token.

    :param ref: The code of the player who shared the link.
    :param expires: Unix seconds after which it cannot be registered any more.
    """

    ref: str
    expires: int


def is_ref(value: str) -> bool:
    """Whether a text can be a referrer's code, short enough for a cookie."""
    return _REF.fullmatch(value) is not None


def mint(server_id: str, ref: str, now: float) -> str:
    """Create a token; two clicks within a second get different ones."""
    nonce = secrets.token_hex(_NONCE_LENGTH // 2)
    content = {"ref": ref, "exp": int(now) + TOKEN_LIFETIME}
    return f"{nonce}{_serializer(server_id, nonce).dumps(content)!s}"


def read(token: str, server_id: str) -> Token | None:
    """The content of a token; ``None`` if it was not minted here for this server."""
    nonce, signed = token[:_NONCE_LENGTH], token[_NONCE_LENGTH:]
    serializer = _serializer(server_id, nonce)
    try:
        content = serializer.loads(signed)
    except BadData:
        return None
    # The last letter of a signature has unused bits, so a changed one could match too.
    if serializer.dumps(content) != signed:
        return None
    return Token(content["ref"], content["exp"])


def _serializer(server_id: str, nonce: str) -> URLSafeSerializer:
    return URLSafeSerializer(_KEY, salt=f"mmolove-sandbox.mmref.{nonce}.{server_id}")
