"""Friends whose milestone is still to come, and how far the site has been asked.

They are asked about in the order of their rows: first those of whom the site was never
asked, then on from where the last round ended, and round again. So whoever was asked
about longest ago comes first, and no row is written for it.
"""

import json
import typing as t

from .entry import Entry
from .rows import Rows

# The name of the fact, and the rows that one look goes through.
_FACT = "milestone"
_WINDOW = 5000

# No round is put off for longer; one that seems to be was by a clock since put right.
_LONGEST = 24 * 3_600_000


class Round(t.NamedTuple):
    """How far the site has been asked. Times are integer milliseconds.

    :param due: When the next round is due; while one is at work, when its lease ends.
    :param claim: Names the round that is at work.
    :param newest: The last row of which it was ever asked.
    :param after: The row after which it goes on among those before.
    :param ended: When the last round ended that raised nothing.
    :param asked: About how many friends that asked.
    :param failures: How many rounds in a row raised.
    :param error: What the last one raised.
    """

    due: int = 0
    claim: str | None = None
    newest: int = 0
    after: int = 0
    ended: int | None = None
    asked: int = 0
    failures: int = 0
    error: str | None = None


class Friends(Rows):
    """The rows, and how far the site has been asked about them."""

    def round(self, lock: str = "") -> Round:
        """What is known of the last round."""
        return _load(self.fact(_FACT, lock))

    def claim_round(self, now: int, lease: int, claim: str) -> Round | None:
        """Begin a round, unless none is due, or another process has one at work.

        :param lease: Milliseconds after which another process may begin one all the
            same.
        """
        text = self.fact(_FACT, self._dialect.lock)
        known = _load(text)
        # A clock that was put back must not stop it for long.
        if now < known.due <= now + _LONGEST:
            return None
        begun = known._replace(due=now + lease, claim=claim)
        if text is None:
            # There was no row to lock. If another process makes it at this moment, that
            # is an error, and not to be written over.
            self.execute(
                f"INSERT INTO {self._dialect.fact} VALUES (:name, :value)",
                {"name": _FACT, "value": _dump(begun)},
            )
        else:
            self.set_fact(_FACT, _dump(begun))
        return begun

    def save_round(self, known: Round, claim: str) -> bool:
        """Write down how far a round came. False if another process has begun one."""
        if self.round(self._dialect.lock).claim != claim:
            return False
        self.set_fact(_FACT, _dump(known))
        return True

    def renew_round(self, due: int, claim: str) -> bool:
        """Let a round's lease last until ``due``. False if it is somebody else's."""
        known = self.round(self._dialect.lock)
        return known.claim == claim and self.save_round(known._replace(due=due), claim)

    def last_row(self) -> int:
        """The newest row's id."""
        ((last,),) = self.execute(f"SELECT max(id) FROM {self._event}", {})
        return last or 0

    def friends(
        self, after: int, last: int, test: bool, since: int
    ) -> tuple[list[Entry], int]:
        """The ``registered`` of friends whose ``qualified`` is not recorded, among a
        few thousand rows; and the row after which to go on, at most ``last``.

        :param since: When the oldest token that still counts was recorded.
        """
        ((first,),) = self.execute(
            f"SELECT min(id) FROM {self._event} WHERE id > :after AND id <= :last",
            {"after": after, "last": last},
        )
        if first is None:
            return [], last
        end = min(first + _WINDOW - 1, last)
        found = self.entries(
            "id BETWEEN :first AND :end AND event = 'registered' AND test = :test"
            " AND state IN ('pending', 'accepted') AND recorded > :since"
            f" AND NOT EXISTS (SELECT 1 FROM {self._event} milestone"
            f" WHERE milestone.identity = {self._event}.identity"
            f" AND milestone.event = 'qualified'"
            f" AND milestone.test = {self._event}.test) ORDER BY id",
            {"first": first, "end": end, "test": test, "since": since},
        )
        return found, end


def _load(text: str | None) -> Round:
    return Round(**json.loads(text)) if text else Round()


def _dump(known: Round) -> str:
    return json.dumps(known._asdict(), separators=(",", ":"))
