"""Holds a visitor's token for an account made later, perhaps on another device."""

from __future__ import annotations

import hashlib
from uuid import UUID

from ..capture.token import current_invitation
from ..errors import IdentityError
from ..errors import OutboxError
from ..log import shielded
from ..outbox.report import Report
from ..state import current_state
from ..state import State


def hold(key: str | int | UUID, token: str | None = None) -> None:
    """Keep a token under a key of the site's, if there is one and none is kept yet.

    :param token: The one that this request brought; the visitor's own if it is none.
    """
    with shielded("A visitor's token could not be held for later."):
        state = current_state()
        if not state.settings.enabled:
            return
        name, invitation = hashed(key), current_invitation(token)
        # What is spooled came first, although the outbox does not have it yet.
        if invitation is not None and not state.spool.of(name):
            report = state.recorder.report("", invitation)
            state.recorder.record(report._replace(held=name))


def recall(state: State, key: str | int | UUID) -> Report | None:
    """A ``registered`` by the token held under a key, for a player yet to be named.

    :raises IdentityError: If the key is none.
    """
    name = hashed(key)
    report = state.recorder.report("", None, "registered")._replace(held=name)
    # Looked at first: what is imported meanwhile is in the outbox then.
    spooled = state.spool.of(name)
    try:
        timeout = state.recorder.read_timeout
        held = state.outbox.held(name, report.moment, timeout)
    except OutboxError:
        return report  # it is asked for when the report is recorded
    if held is not None:
        return report._replace(token=held.token, referrer=held.referrer)
    if spooled:
        _, kept = spooled[0]
        return report._replace(token=kept.token, referrer=kept.referrer)
    return None


def hashed(key: str | int | UUID) -> str:
    """A key as it is kept: it may be a mail address, which is nobody's business.

    :raises IdentityError: If it is none.
    """
    if isinstance(key, bool) or not isinstance(key, (str, int, UUID)) or key == "":
        kind = "an empty one" if key == "" else f"a {type(key).__name__}"
        raise IdentityError(
            "The key of a held token must be a number, a UUID or a non-empty string, "
            f"not {kind}. A new row has its id after db.session.flush()."
        )
    try:
        text = str(key)
    except ValueError as e:
        raise IdentityError(f"The key of a held token is no key: {e}.") from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
