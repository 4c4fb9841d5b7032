"""What the site learns of a referred player."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

from ..outbox import Entry
from ..outbox import EntryState
from ..outbox.entry import as_datetime
from ..state import current_state


# A dataclass, for of those alone Flask's jsonify() makes an object.
@dataclass(frozen=True)
class Referral:
    """A player who came by invitation, and how far it got.

    :param identity: The referee: the new player's id, as a text. A column of numbers
        or UUIDs is asked for ``int(identity)`` or ``uuid.UUID(identity)``.
    :param state: Of the milestone, or of the signup as long as there is no milestone:
        ``pending`` until MMOLove has answered; ``accepted``, then
        ``rewarded``; ``ignored`` if another referrer was first, or another account with
        the same token; ``rejected`` if MMOLove refused;
        ``reward_unconfirmed`` or ``reward_failed`` if you have to look at the reward.
    :param reward_key: Always the same for this referral. A game that gives nothing
        twice for one key pays once, whatever happens.
    :param referral_id: MMOLove's name for the referral, once it answered with one.
    :param registered_at: When the signup was recorded, in UTC.
    :param qualified_at: When the milestone was, if it was.
    :param rewarded_at: When the reward was given, if it was.
    :param referrer: The identity of the player who invited, a text as well, if they
        shared the link of :meth:`MMOLove.invite`; None where it is not known.
    :param number: Which credited friend of the referrer this is: 1, 2, 3, and so on.
        It is set when MMOLove credits the milestone, and never changes; None before
        that, and where the referrer is not known.
    """

    identity: str
    state: EntryState
    reward_key: str
    referral_id: str | None
    registered_at: datetime | None
    qualified_at: datetime | None
    rewarded_at: datetime | None = None
    referrer: str | None = None
    number: int | None = None

    @classmethod
    def from_entries(cls, entries: t.Mapping[str, Entry]) -> Referral:
        """Put a referral together from its ``registered`` and ``qualified``."""
        registered, qualified = entries.get("registered"), entries.get("qualified")
        first = t.cast(Entry, registered or qualified)
        last = t.cast(Entry, qualified or registered)
        granted = last.settled if last.state == "rewarded" else None
        return cls(
            identity=last.identity,
            state=last.state,
            reward_key=f"mmolove-{last.server_id}-{last.identity}",
            referral_id=last.referral_id or first.referral_id,
            registered_at=as_datetime(registered.recorded) if registered else None,
            qualified_at=as_datetime(qualified.recorded) if qualified else None,
            rewarded_at=None if granted is None else as_datetime(granted),
            referrer=first.referrer,
            number=last.number,
        )

    def key(self, name: str) -> str:
        """The key of one gift of several, such as ``"friend"`` and ``"referrer"``. It
        is always the same for this referral, as :attr:`reward_key` is, and each name
        has a key of its own.
        """
        return f"{self.reward_key}-{name}"


def referrals_of(player: t.Any, limit: int) -> list[Referral]:
    """See :meth:`MMOLove.referrals`."""
    state = current_state()
    if not state.settings.enabled:
        return []
    identity, test = state.callbacks.identify(player), state.settings.test
    friends = state.inspector.friends(identity, test, limit)
    identities = [friend.identity for friend in friends]
    known = state.outbox.of_all(identities, test, state.timeout)
    # One of them may have been erased in between.
    return [Referral.from_entries(known[each]) for each in identities if each in known]
