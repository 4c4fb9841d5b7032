"""What the owner can do, on the dashboard or the command line."""

from __future__ import annotations

import typing as t

from .. import signals
from ..clock import milliseconds
from ..errors import ActionError
from ..log import logger
from ..outbox.entry import Entry
from ..outbox.states import EntryState
from ..state import current_state
from ..state import State


def retry(state: State, ids: t.Collection[int] | None = None) -> list[Entry]:
    """Send rejected events again.

    :param ids: Those to send; None for all.
    :return: Those that were rejected, as they are now.
    """
    entries = state.outbox.retry(milliseconds(), ids, state.timeout)
    for entry in entries:
        state.notify(signals.event_retried, entry=entry)
    state.engine.wake([entry.id for entry in entries])
    return entries


def settle_reward(state: State, id: int, *, granted: bool) -> Entry:
    """Record that an unconfirmed or failed reward was granted, or grant it now.

    :param id: The event's.
    :raises ActionError: If there is no such reward, or it cannot be granted.
    """
    now = milliseconds()
    if not granted:
        _check_again(state, state.inspector.get(id), now)
    wanted: EntryState = "rewarded" if granted else "accepted"
    decided = state.outbox.decide(id, wanted, now, state.timeout)
    if decided is None:
        raise ActionError(f"Event {id} has no reward to settle.")
    state.engine.wake([id])
    return decided


def retry_rewards(state: State) -> int:
    """Grant all rewards that the callback could not grant, and return their number.
    Unconfirmed ones are left alone, because they may have been granted.

    :raises ActionError: If the site has no callback.
    """
    _check_callback(state)
    count = state.outbox.retry_rewards(milliseconds(), state.timeout)
    state.engine.wake()
    return count


def dismiss(state: State, id: int) -> list[Entry]:
    """Remove a signup whose token MMOLove does not know, with the milestone that waits
    for it. The token is kept from other accounts, as in :func:`forget`.

    :param id: The event's.
    :raises ActionError: If MMOLove did not refuse the event's token, or it is being
        sent again.
    """
    entry = state.inspector.get(id)
    gone = state.outbox.dismiss(entry, state.timeout) if entry and entry.is_junk else []
    if not gone:
        raise ActionError(f"Event {id} is not a signup with an unknown token.")
    for each in gone:
        logger.info(
            "Event %s (%s of player %s) was dismissed.",
            each.id,
            each.event,
            each.identity,
            extra={"event_id": each.id},
        )
    return gone


def forget(state: State, player: str) -> list[Entry]:
    """Erase everything stored about a player, in the outbox and in the spool, except
    the daily counts and the digests of used tokens. Returns what was erased.

    :raises OutboxError: If something cannot be read or written. Then call it again.
    """
    reports = (report for _, report in state.spool.of(player, strict=True))
    tokens = [report.token for report in reports if report.token and not report.test]
    state.outbox.use_tokens(player, tokens, state.timeout)
    state.spool.erase(player)
    erased = state.outbox.erase(player, state.timeout)
    if erased:
        state.notify(signals.player_forgotten, count=len(erased))
    return erased


def forget_player(player: t.Any) -> None:
    """See :meth:`flask_mmolove.MMOLove.forget`."""
    state = current_state()
    forget(state, state.callbacks.identify(player))


def _check_again(state: State, entry: Entry | None, now: int) -> None:
    _check_callback(state)
    # Its callback is renewing that lease, or ended less than one lease ago.
    if entry and entry.state == "reward_unconfirmed" and (entry.due or 0) > now:
        raise ActionError(
            f"The reward of event {entry.id} may be in progress right now. Try again "
            "in half a minute."
        )


def _check_callback(state: State) -> None:
    if state.callbacks.reward is None:
        raise ActionError("The site has no @mmolove.reward, so nothing can be granted.")
