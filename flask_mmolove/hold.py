"""A visitor's token is held for an account that comes into being later, perhaps on
another device.
"""

from __future__ import annotations

import hashlib

from .capture import current_mmref
from .capture import invitation_of
from .errors import IdentityError
from .errors import OutboxError
from .log import shielded
from .outbox import Note
from .state import current_state
from .state import milliseconds
from .state import State


def hold(key: str | int) -> None:
    """Keep this visitor's token, if they carry one, under a key of the site's."""
    with shielded("A visitor's token could not be held for later."):
        token = current_mmref()
        if token is not None:
            state = current_state()
            moment = milliseconds()
            state.outbox.hold(hashed(key), invitation_of(token), moment, state.patience)


def recall(state: State, key: str | int) -> Note | None:
    """A ``registered`` by the token that is held under a key, for a player still to be
    named; None if none is held.

    :raises IdentityError: If the key is none.
    """
    name = hashed(key)
    note = state.note("", None, "registered")._replace(held=name)
    try:
        held = state.outbox.held(name, note.moment, state.patience_to_read)
    except OutboxError:
        return note  # it is asked for when the note is recorded
    return held and note._replace(token=held.token, referrer=held.referrer)


def hashed(key: str | int) -> str:
    """A key as it is kept: it may be a mail address, which is nobody's business.

    :raises IdentityError: If it is none.
    """
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        raise IdentityError(
            f"A token is held under a text or a number, not under {key!r}. The id of a "
            "new row is there after db.session.flush()."
        )
    return hashlib.sha256(str(key).encode("utf-8", "surrogatepass")).hexdigest()
