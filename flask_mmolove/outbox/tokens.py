"""One token, one account: MMOLove counts one referral for a token, so one is rewarded.

A token belongs to the first account that was reported with it. The account's row keeps
a digest of the token under a unique index, so that two processes cannot both win. When
the row is erased or purged, the digest stays in a table of its own: it names nobody.
"""

from __future__ import annotations

import hmac
import typing as t

if t.TYPE_CHECKING:
    from ..protocol.wire import Event
    from .entry import Entry

# A constant: a key that changes would let each token be rewarded once more. Tokens are
# signed by MMOLove and cannot be guessed, so no secret is needed to hide them.
_PURPOSE = b"flask_mmolove.outbox: a token that is used"

#: The answer of an event that was recorded with a token of somebody else's.
TOKEN_USED = "another account was reported with this token first"


def digest_of(event: Event | Entry) -> str | None:
    """The digest by which a token is owned; None for what owns none: dry runs, and a
    ``qualified``, which goes by its ``registered``.
    """
    if event.event != "registered" or event.test:
        return None
    return digest(event.token)


def digest(token: str) -> str:
    """A token's digest; 128 bits, for there is nothing to collide with on purpose."""
    return hmac.digest(_PURPOSE, token.encode(), "sha256").hex()[:32]
