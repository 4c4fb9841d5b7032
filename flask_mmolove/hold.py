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
from .outbox import Invitation
from .outbox import Note
from .state import current_state
from .state import milliseconds
from .state import State

# Whose token is held, as a note in the emergency exit has it.
_NOBODY_YET = "(to be)"


def hold(key: str | int) -> None:
    """Keep this visitor's token under a key of the site's. If they carry none, nothing
    is kept there any more: it was somebody else's.
    """
    with shielded("A visitor's token could not be held for later."):
        state = current_state()
        if not state.settings.enabled:
            return
        name, moment, token = hashed(key), milliseconds(), current_mmref()
        if token is not None:
            _keep(state, name, invitation_of(token), moment)
        elif state.outbox.held(name, moment, state.patience_to_read):
            state.outbox.let_go(name, state.patience)


def _keep(state: State, name: str, invitation: Invitation, moment: int) -> None:
    try:
        state.outbox.hold(name, invitation, moment, state.patience)
    except Exception as e:  # whatever it is, the token must not vanish
        token, referrer = invitation
        test = state.settings.test
        note = Note(_NOBODY_YET, token, [], test, moment, referrer, name)
        state.put_by(note, str(e))


def take(state: State, identity: str, key: str | int) -> str | None:
    """Record the ``registered`` of a player whose token is held, and give the token;
    None if none is held, or if it cannot be said now.

    :raises IdentityError: If the key is none.
    :raises OutboxError: If neither the outbox nor any disk can take the event.
    """
    name, moment = hashed(key), milliseconds()
    # Looked at first: what is taken in meanwhile stands in the outbox then.
    notes = [note for _, note in state.spool.read() if note.held == name]
    try:
        invitation = state.outbox.held(name, moment, state.patience_to_read)
        if invitation is None and notes:
            raise OutboxError("The outbox does not have this player's token yet.")
    except Exception as e:  # whatever it is, the event must not vanish
        test = state.settings.test
        note = Note(identity, None, ["registered"], test, moment, held=name)
        state.put_by(note, str(e))
        return None
    if invitation is None:
        return None
    token, referrer = invitation
    state.record(identity, token, "registered", referrer=referrer)
    with shielded("A token that was held could not be let go; it ends by itself."):
        state.outbox.let_go(name, state.patience)
    return token


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
