"""Which credited friend of its referrer each one is: 1, 2, 3, and so on.

The number is given in the transaction that accepts the milestone, once, and stays. Its
count is kept apart from the rows, so nothing that is removed frees a number.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict

from .entry import Entry
from .rows import Rows
from .states import EntryState

# The step of a referrer under which numbers are counted.
_STEP = "numbered"


class Numbers(Rows):
    """Gives friends their numbers."""

    def number(self, steps: t.Iterable[tuple[Entry, EntryState]]) -> dict[int, int]:
        """Number the milestones that have just been credited, and give the numbers by
        the ids of their rows.

        :param steps: Entries as they are now, each with its state before.
        """
        friends = defaultdict(list)
        for entry, was in steps:
            if entry.referrer is not None and _is_credited(entry, was):
                friends[entry.referrer].append(entry.id)
        numbers: dict[int, int] = {}
        # In one order, so that two that number for the same players do not deadlock.
        for referrer, ids in sorted(friends.items()):
            last = self._add_numbers(referrer, len(ids))
            numbers.update(zip(ids, range(last - len(ids) + 1, last + 1), strict=True))
        if numbers:
            self.execute(
                f"UPDATE {self._event} SET number = :number WHERE id = :id",
                [{"number": number, "id": id} for id, number in numbers.items()],
            )
        return numbers

    def keep_numbers(self, entries: t.Iterable[Entry]) -> None:
        """Give no number again that recovered entries have."""
        highest: dict[str, int] = {}
        for entry in entries:
            if entry.referrer is not None and entry.number is not None:
                known = highest.get(entry.referrer, 0)
                highest[entry.referrer] = max(known, entry.number)
        for referrer, number in sorted(highest.items()):
            self._add_numbers(referrer, max(0, number - self._last_number(referrer)))

    def continue_numbers(self) -> None:
        """Go on after the friends who qualified before there were numbers."""
        table = self._dialect.referrer
        self.execute(
            f"INSERT INTO {table} (player, step, count)"
            f" SELECT player, '{_STEP}', count FROM {table} known"
            " WHERE step = 'qualified' AND NOT EXISTS (SELECT 1 FROM"
            f" (SELECT player FROM {table} WHERE step = '{_STEP}') numbered"
            " WHERE numbered.player = known.player)",
            {},
        )

    def _add_numbers(self, referrer: str, more: int) -> int:
        """Count so many more friends, and give how many there are now. Nobody else
        counts for this referrer until the transaction ends.
        """
        if more:
            self._add_up(self._dialect.referrer, "player", {(referrer, _STEP): more})
        return self._last_number(referrer)

    def _last_number(self, referrer: str) -> int:
        rows = self.execute(
            f"SELECT count FROM {self._dialect.referrer}"
            " WHERE player = :referrer AND step = :step",
            {"referrer": referrer, "step": _STEP},
        )
        return int(rows[0][0]) if rows else 0


def _is_credited(entry: Entry, was: EntryState) -> bool:
    """Whether MMOLove has just credited a milestone: its reward is due, or failed for
    want of a callback.
    """
    if entry.event != "qualified" or entry.test or entry.number is not None:
        return False
    if was != "pending":
        return False
    return entry.state == "reward_failed" or (
        entry.state == "accepted" and entry.due is not None
    )
