"""What the site learns of a referred player."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone

from ..outbox import Entry
from ..outbox import EntryState


# A dataclass, for of those alone Flask's jsonify() makes an object.
@dataclass(frozen=True)
class Referral:
    """A player who came by invitation, and how far it got.

    :param identity: The referee: the new player's id, as a text. A column of numbers
        or UUIDs is asked for ``int(identity)`` or ``uuid.UUID(identity)``.
    :param state: ``pending`` until MMOLove has answered; ``accepted``, then
        ``rewarded``; ``ignored`` if another referrer was first, or another account with
        the same token; ``rejected`` if MMOLove refused; ``unknown`` or ``unpaid`` if a
        person has to look at the reward.
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
            registered_at=_utc(registered.recorded) if registered else None,
            qualified_at=_utc(qualified.recorded),
            rewarded_at=None if paid is None else _utc(paid),
            referrer=(registered or qualified).referrer,
        )


def _utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
