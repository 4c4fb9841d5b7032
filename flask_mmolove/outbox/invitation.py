"""How a player was invited."""

from __future__ import annotations

import typing as t

from ..protocol.wire import is_token
from ..protocol.wire import shorten


class Invitation(t.NamedTuple):
    """The token that a player came with, and their referrer.

    :param token: The ``mmref``.
    :param referrer: The referrer's identity, where it is known.
    """

    token: str
    referrer: str | None = None

    def pack(self) -> t.Any:
        """It in JSON's types, as short as can be."""
        return self.token if self.referrer is None else [self.token, self.referrer]

    @classmethod
    def unpack(cls, packed: t.Any) -> Invitation | None:
        """Take it back; None if it is none."""
        match packed:
            case [str(token), str(referrer)] if is_token(token):
                return cls(token, referrer)
            case str(token) if is_token(token):
                return cls(token)
        return None

    def __repr__(self) -> str:
        return f"<Invitation {shorten(self.token)} by {self.referrer!r}>"
