"""A visitor's token as a signed text, where their browser cannot carry it: in the
``state`` of a social login, in a hidden field, in the link of a mail.
"""

from __future__ import annotations

from ..log import logger
from ..log import shielded
from ..outbox.invitation import Invitation
from ..protocol.wire import TOKEN_LIFETIME
from ..state import current_state
from . import cookies
from .referrer import remember
from .token import current_invitation

_PURPOSE = "seal"


def seal(token: str | None = None) -> str | None:
    """Sign and date a token together with its referrer.

    :param token: See :func:`.current_invitation`.
    """
    with shielded("A visitor's token could not be sealed."):
        state = current_state()
        invitation = current_invitation(token)
        if invitation is None or not state.settings.enabled:
            return None
        if state.app.secret_key:
            return cookies.sign(_PURPOSE, invitation.pack())
        logger.error("A token cannot be sealed: set app.config['SECRET_KEY'].")
    return None


def unseal(text: object) -> str | None:
    """Read a sealed token. Its referrer is known for the rest of the request."""
    with shielded("A sealed token could not be read."):
        invitation = Invitation.unpack(cookies.read(_PURPOSE, text, TOKEN_LIFETIME))
        if invitation is not None:
            remember(*invitation)
            return invitation.token
    return None
