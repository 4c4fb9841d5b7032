"""Step 5, reward: a player qualified, and whoever invited them gets something."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from flask import current_app

from .. import signals
from ..delivery import Promise
from ..errors import OutboxError
from ..orm import kept_token
from ..outbox import Entry
from ..outbox import EntryState
from ..outbox import Invitation
from ..outbox import Note
from ..outbox import Settlement
from ..outbox.entry import as_datetime
from ..protocol.wire import as_token
from ..state import current_state
from ..state import milliseconds
from ..state import State

#: What a milestone reports, in this order; the first is mostly there already.
EVENTS = ("registered", "qualified")


# A dataclass, for of those alone Flask's jsonify() makes an object.
@dataclass(frozen=True)
class Referral:
    """A player who came by invitation, and how far it got.

    :param identity: The referee: the new player's id, as a text. A column of numbers
        or UUIDs is asked for ``int(identity)`` or ``uuid.UUID(identity)``.
    :param state: ``pending`` until MMOLove has answered; ``accepted``, then
        ``rewarded``; ``ignored`` if another referrer was first, or another account with
        the same token; ``rejected`` if MMOLove refused;
        ``reward_unconfirmed`` or ``reward_failed`` if a person has to look at it.
    :param reward_key: Always the same for this referral. A game that gives nothing
        twice for one key pays once, whatever happens.
    :param referral_id: MMOLove's name for the referral, once it answered with one.
    :param registered_at: When the signup was recorded, in UTC.
    :param qualified_at: When the milestone was.
    :param rewarded_at: When the reward was given, if it was.
    :param referrer: The identity of the player who invited, a text as well, if they
        shared the link of :meth:`MMOLove.invite`; None where it is not known.
    """

    identity: str
    state: EntryState
    reward_key: str
    referral_id: str | None
    registered_at: datetime | None
    qualified_at: datetime
    rewarded_at: datetime | None = None
    referrer: str | None = None

    @classmethod
    def from_entries(cls, entries: t.Mapping[str, Entry]) -> Referral:
        """Put a referral together from its ``registered`` and ``qualified``."""
        registered, qualified = entries.get("registered"), entries["qualified"]
        paid = qualified.settled if qualified.state == "rewarded" else None
        return cls(
            identity=qualified.identity,
            state=qualified.state,
            reward_key=f"mmolove-{qualified.server_id}-{qualified.identity}",
            referral_id=qualified.referral_id
            or (registered.referral_id if registered else None),
            registered_at=as_datetime(registered.recorded) if registered else None,
            qualified_at=as_datetime(qualified.recorded),
            rewarded_at=None if paid is None else as_datetime(paid),
            referrer=(registered or qualified).referrer,
        )


def qualify(player: t.Any) -> Referral | None:
    """Say that a player has reached the milestone that the site defines.

    If the player was referred, ``qualified`` is recorded and on its way; once MMOLove
    has credited it, the callback of ``@mmolove.reward`` is called. Saying it again
    changes nothing.

    A signup that was never recorded here counts too if ``player.mmref`` holds the
    token, as hand-made integrations keep it: its ``registered`` is then reported first,
    which MMOLove takes as a repetition if it has come before.

    :param player: The site's object for the account, or its id.
    :return: How far the referral got, or None if the player was not referred. None as
        well while the outbox cannot be read: then the milestone is kept in the
        emergency exit, and reported by itself if the player turns out to be referred.
    :raises IdentityError: If the player has no identity.
    :raises OutboxError: If not even the emergency exit could take it.
    :raises sqlalchemy.exc.SQLAlchemyError: With ``MMOLove(app, db=db)``, if the
        database refuses what the site has changed.
    """
    state = current_state()
    if not state.settings.enabled:
        return None
    if state.session is not None:
        state.session.flush(player)
    identity = state.identify(player)
    token = as_token(kept_token(player))
    invitation = Invitation(token) if token else None
    # Looked at first: what is taken in meanwhile stands in the outbox then.
    is_spooled = _is_spooled(state, identity)
    note = state.note(identity, invitation, *EVENTS)
    try:
        entries = state.entries(identity)
        if "qualified" in entries:
            return Referral.from_entries(entries)
        if known := entries.get("registered"):
            note = note._replace(token=known.token, referrer=known.referrer)
        if note.token is None and is_spooled:
            # A milestone must not overtake its signup in the emergency exit.
            raise OutboxError("The outbox does not have this player's signup yet.")
        if note.token is None or not _record(state, note, player):
            return None
        return Referral.from_entries(state.entries(identity))
    except Exception as e:  # whatever it is, the milestone must not vanish
        _put_by(state, note, player, str(e))
        return None


def _is_spooled(state: State, identity: str) -> bool:
    """Whether a player stands in the emergency exit, or may."""
    try:
        return bool(state.spool.of(identity, strict=True))
    except OutboxError:
        return True


def _record(state: State, note: Note, player: t.Any) -> bool:
    if state.session is None:
        return state.record(note)
    state.session.enlist(note, player)
    return True


def _put_by(state: State, note: Note, player: t.Any, reason: str) -> None:
    if state.session is None:
        state.spool_report(note, reason)
    else:
        state.session.enlist(note, player, reason)


class CallbackRewarder:
    """Calls the site's reward callback, in the app's context."""

    def __init__(self, state: State, callback: t.Callable[[Referral], t.Any]) -> None:
        self._state = state
        self._callback = callback

    @property
    def promise(self) -> Promise:
        if self._state.callbacks.at_most_once:
            return "at-most-once"
        return "at-least-once" if self._state.session is None else "exactly-once"

    def prepare(self, entry: Entry) -> t.Callable[[], Entry | None]:
        entries = self._state.outbox.of(entry.identity, entry.test)
        referral = Referral.from_entries({**entries, "qualified": entry})
        return partial(self._give, entry, referral)

    def _give(self, entry: Entry, referral: Referral) -> Entry | None:
        session = self._state.session
        try:
            with self._state.app.app_context():
                give = partial(current_app.ensure_sync(self._callback), referral)
                if session is None or self.promise != "exactly-once":
                    give()
                    return None
                paid = Settlement(entry, "rewarded", status=entry.status)
                return session.pay(paid, milliseconds(), give)
        except BaseException as e:
            self._state.notify(signals.reward_failed, referral=referral, error=e)
            raise


def tell_rewarded(state: State, entry: Entry) -> None:
    """Send ``player_rewarded`` for an entry whose reward is written down."""
    entries = state.outbox.of(entry.identity, entry.test)
    state.notify(signals.player_rewarded, referral=Referral.from_entries(entries))
