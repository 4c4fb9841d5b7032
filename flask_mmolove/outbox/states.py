"""The states of an entry."""

from __future__ import annotations

import typing as t

#: ``pending``
#:     To be sent; or, without ``due``, waiting for its player's ``registered``.
#: ``accepted``
#:     MMOLove took it. A ``qualified`` with ``due`` has a reward to come.
#: ``rewarded``
#:     The site's reward callback did its work.
#: ``ignored``
#:     Another referrer registered the player first, or another account was reported
#:     with the token first: never a reward.
#: ``rejected``
#:     The dead letter: refused, or failed too often; kept until a person acts.
#: ``reward_unconfirmed``
#:     An at-most-once reward that began, and nobody knows whether it was granted.
#: ``reward_failed``
#:     The callback failed too often, or there is none: kept until a person acts.
EntryState = t.Literal[
    "pending",
    "accepted",
    "rewarded",
    "ignored",
    "rejected",
    "reward_unconfirmed",
    "reward_failed",
]

#: What two states were called until the third schema of the SQLite file.
RENAMED: dict[str, EntryState] = {
    "unknown": "reward_unconfirmed",
    "unpaid": "reward_failed",
}
