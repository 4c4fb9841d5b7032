"""What the site learns of a referred player."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

from ..clock import as_datetime
from ..outbox.states import EntryState
from ..state import current_state

if t.TYPE_CHECKING:
    from ..outbox.entry import Entry


# A dataclass, for of those alone Flask's jsonify() makes an object.
@dataclass(frozen=True)
class Referral:
    """A friend who came by a link, and how far they got.

    :param identity: The friend's id, as text. Write ``int(referral.identity)`` or
        ``uuid.UUID(referral.identity)`` to look up an account.
    :param state: The state of the milestone, or of the signup as long as there is no
        milestone.
    :param reward_key: Text that is always the same for this friend. A game that grants
        nothing twice for one key grants each reward once.
    :param referral_id: MMOLove's id of the referral, once a response contained it.
    :param registered_at: When the signup was recorded, in UTC.
    :param qualified_at: When the milestone was recorded, if it was.
    :param rewarded_at: When the reward was granted, if it was.
    :param referrer: The id of the player who invited, as text, if the friend came by
        the link of :meth:`MMOLove.invite`; None if it is not known.
    :param number: Which credited friend of the referrer this is: 1, 2, 3, and so on.
        It is set when MMOLove credits the milestone, and never changes. None before
        that, and if the referrer is not known.
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
        first = t.cast("Entry", registered or qualified)
        last = t.cast("Entry", qualified or registered)
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
        """Return the key of one gift of several, such as ``"friend"`` and
        ``"referrer"``. Like ``reward_key`` it is always the same for this friend, and
        each name has a key of its own.
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
