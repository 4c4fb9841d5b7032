"""A player has reached the milestone, and ``qualified`` is reported."""

from __future__ import annotations

import typing as t

from ..errors import OutboxError
from ..orm import kept_token
from ..outbox.invitation import Invitation
from ..protocol.wire import as_token
from ..state import current_state
from ..state import State
from .referral import Referral

#: What a milestone reports, in this order; the first is mostly there already.
EVENTS = ("registered", "qualified")


def qualify(player: t.Any) -> Referral | None:
    """Report that a player has reached the milestone that the site defines.

    If the player was referred, ``qualified`` is recorded. Once MMOLove has credited it,
    the callback of ``@mmolove.reward`` is called. Calling this again changes nothing.

    A signup that was never recorded here counts too if ``player.mmref`` has the token,
    where an older integration kept it. Then its ``registered`` is reported first, which
    MMOLove recognises if it has had it before.

    :param player: The site's object for the account, or its id.
    :return: How far the referral got, or None if the player was not referred. Also None
        while the outbox cannot be read: then the milestone is spooled, and reported
        later if the player turns out to be referred.
    :raises IdentityError: If the player has no identity.
    :raises OutboxError: If not even the spool could take it.
    :raises sqlalchemy.exc.SQLAlchemyError: With ``MMOLove(app, db=db)``, if the
        database refuses what the site has changed.
    """
    state = current_state()
    if not state.settings.enabled:
        return None
    recorder = state.recorder
    recorder.flush(player)
    identity = recorder.identify(player)
    token = as_token(kept_token(player))
    # Looked at first: what is imported meanwhile is in the outbox then.
    is_spooled = _is_spooled(state, identity)
    report = recorder.report(identity, Invitation(token) if token else None, *EVENTS)
    try:
        entries = recorder.entries(identity)
        if "qualified" in entries:
            return Referral.from_entries(entries)
        if known := entries.get("registered"):
            report = report._replace(token=known.token, referrer=known.referrer)
        if report.token is None and is_spooled:
            # A milestone must not overtake its signup in the spool.
            raise OutboxError("The outbox does not have this player's signup yet.")
        if report.token is None or not recorder.prepare(report, player).submit():
            return None
        return Referral.from_entries(recorder.entries(identity))
    except Exception as e:  # whatever it is, the milestone must not vanish
        recorder.prepare(report, player, str(e)).submit()
        return None


def _is_spooled(state: State, identity: str) -> bool:
    """Whether a report of a player is in the spool, or may be."""
    try:
        return bool(state.spool.of(identity, strict=True))
    except OutboxError:
        return True
