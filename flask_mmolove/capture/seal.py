"""A visitor's token as it travels where their browser cannot carry it: in the ``state``
of a social login, in a hidden field, in the link of a mail.
"""

from __future__ import annotations

from ..log import logger
from ..log import shielded
from ..outbox import Invitation
from ..protocol.wire import TOKEN_LIFETIME
from ..state import current_state
from .cookies import read
from .cookies import sign
from .hook import given_or_own
from .hook import invitation_of
from .referrer import remember

_PURPOSE = "seal"


def seal(token: str | None = None) -> str | None:
    """A token and who invited its visitor, signed and dated.

    :param token: The one that this request brought; the visitor's own if it is none.
    """
    with shielded("A visitor's token could not be sealed."):
        state = current_state()
        token = given_or_own(token)
        if token is None or not state.settings.enabled:
            return None
        if state.app.secret_key:
            return sign(state, _PURPOSE, invitation_of(token).pack())
        logger.error("A token cannot be sealed: set app.config['SECRET_KEY'].")
    return None


def unseal(text: object) -> str | None:
    """The token that was sealed. For the rest of a request it is known as well who
    invited the one who carried it.
    """
    with shielded("A sealed token could not be read."):
        packed = read(current_state(), _PURPOSE, text, TOKEN_LIFETIME)
        invitation = Invitation.unpack(packed)
        if invitation is not None:
            remember(*invitation)
            return invitation.token
    return None
