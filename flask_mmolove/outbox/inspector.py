"""What the dashboard and the command line ask of an outbox."""

from __future__ import annotations

import json
import typing as t
from collections import Counter

from .breaker import Breaker
from .counters import DAY
from .entry import Entry
from .entry import is_id
from .entry import LAST
from .statements import Transaction
from .states import EntryState

if t.TYPE_CHECKING:
    from .store import Outbox

R = t.TypeVar("R")

# Ids that are looked through at a time for what has no index.
_CHUNK = 10_000


class Day(t.NamedTuple):
    """How far the players came whose signup, or milestone, was recorded on one day.

    :param start: Midnight UTC, in milliseconds.
    :param arrived: The visitors who came with a token, about.
    :param unreferred: The rewards that were given although no referrer is known.
    """

    start: int
    signed_up: int = 0
    accepted: int = 0
    qualified: int = 0
    rewarded: int = 0
    unreferred: int = 0
    arrived: int = 0


class Referrer(t.NamedTuple):
    """The friends a player referred, as far as is known, and how far they came.

    :param arrived: The visitors who came by the player's link, about.
    """

    player: str
    accepted: int
    qualified: int = 0
    rewarded: int = 0
    arrived: int = 0


class Worker(t.NamedTuple):
    """What delivers, as it last showed itself.

    :param seen: When, in milliseconds, to within a minute.
    :param ahead: Seconds that MMOLove's clock was ahead of ours, if that was too much.
    """

    seen: int
    ahead: float = 0


class Summary(t.NamedTuple):
    """What is in an outbox.

    :param counts: How many entries are in each state.
    :param waiting: Those of these pending that wait for their ``registered``.
    :param oldest: When the oldest pending entry was recorded, in milliseconds.
    :param breaker: What is known of MMOLove.
    """

    counts: dict[EntryState, int]
    waiting: int
    oldest: int | None
    breaker: Breaker


class Inspector:
    """Reads pages and counts of an outbox.

    :param timeout: Seconds each question may wait; the outbox's own, unless given.
    """

    def __init__(self, outbox: Outbox, timeout: float | None = None) -> None:
        self._outbox = outbox
        self._timeout = timeout
        self._dialect = outbox.dialect
        self._event = outbox.dialect.event

    def page(
        self,
        *,
        state: EntryState | None = None,
        event: str | None = None,
        player: str | None = None,
        referrer: str | None = None,
        since: int | None = None,
        until: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Entry]:
        """Entries, newest first. One that was spooled stands where it was imported.

        :param state: Only those in this state.
        :param event: Only those of this name.
        :param player: Only those of this player.
        :param referrer: Only those of this player's friends.
        :param since: Only those recorded then or later, in milliseconds.
        :param until: Only those recorded earlier than that, in milliseconds.
        :param before: Only those that came before the one with this id.
        """
        end = LAST if before is None else max(0, min(before, LAST))
        named = {"state": state, "event": event, "referrer": referrer}
        wanted = {name: value for name, value in named.items() if value is not None}
        if player is not None:
            found = [
                entry
                for entry in self._entries("identity = :player", player=player)
                if entry.id < end
                and (since or 0) <= entry.recorded < (until or LAST)
                and all(getattr(entry, name) == wanted[name] for name in wanted)
            ]
            return sorted(found, reverse=True)[:limit]
        first = 0 if since is None else self._first_from(since)
        end = end if until is None else min(end, self._first_from(until))
        return self._newest(wanted, first, end, limit)

    def _newest(
        self, wanted: dict[str, t.Any], first: int, end: int, limit: int
    ) -> list[Entry]:
        equal = [f"{name} = :{name}" for name in wanted]
        rows = " AND ".join([*equal, "id >= :first", "id < :end"])
        newest = f"{rows} ORDER BY id DESC LIMIT :limit"
        by_state = "state" in wanted and "referrer" not in wanted
        hint = self._dialect.by_state if by_state else ""
        # There is no index of the event, and others wait for what a statement reads.
        chunks = self._chunks(first, end) if "event" in wanted else [(first, end)]
        found: list[Entry] = []
        for start, stop in chunks:
            values = {**wanted, "first": start, "end": stop}
            found += self._entries(newest, hint, **values, limit=limit - len(found))
            if len(found) == limit:
                break
        return found

    def _chunks(self, first: int, end: int) -> t.Iterator[tuple[int, int]]:
        """Ranges of the ids in use, newest first."""
        lowest, highest = self._run(lambda db: _ids(db, self._event))
        first, end = max(first, lowest), min(end, highest + 1)
        for stop in range(end, first, -_CHUNK):
            yield max(first, stop - _CHUNK), stop

    def _first_from(self, moment: int) -> int:
        """The id of the first entry that was recorded at a moment or later."""
        return self._run(lambda db: _search(db, self._event, moment))

    def get(self, id: int) -> Entry | None:
        """The entry with an id."""
        found = self._entries("id = :id", id=id) if is_id(id) else []
        return found[0] if found else None

    def count(self, state: EntryState, most: int = LAST) -> int:
        """How many entries are in a state.

        :param most: Where to stop, for a million take a while.
        """
        sql = f"SELECT count(*) FROM {self._some('id')}"
        return int(self._read(sql, state=state, most=most)[0][0])

    def oldest_pending(self) -> int | None:
        """When the pending entry that stands first was recorded, in milliseconds."""
        rows = self._read(
            f"SELECT recorded FROM {self._event} WHERE state = 'pending'"
            " ORDER BY id LIMIT 1"
        )
        return rows[0][0] if rows else None

    def summary(self, most: int = LAST) -> Summary:
        """What is in the outbox.

        :param most: How many entries of each state are looked at.
        """
        counts = {state: self.count(state, most) for state in t.get_args(EntryState)}
        sql = f"SELECT count(*) FROM {self._some('due')} WHERE due IS NULL"
        waiting = int(self._read(sql, state="pending", most=most)[0][0])
        breaker = self._run(lambda db: db.breaker())
        there = {state: count for state, count in counts.items() if count}
        return Summary(there, waiting, self.oldest_pending(), breaker)

    def failing_events(self) -> list[Entry]:
        """Those of the 100 oldest pending events whose last attempt failed."""
        oldest = self._entries("state = 'pending' ORDER BY id LIMIT 100")
        return [entry for entry in oldest if entry.due and entry.status is not None]

    def failing_rewards(self) -> list[Entry]:
        """Those of the 100 rewards due last whose callback failed and is called again
        by itself: after a pause, so others were due before.
        """
        last = self._entries(
            "state = 'accepted' AND due > 0 ORDER BY due DESC LIMIT 100"
        )
        return [entry for entry in last if entry.attempts and entry.status is None]

    def last_signup(self) -> int | None:
        """When MMOLove last took a signup, in milliseconds."""
        moments = [
            entry.settled or 0
            for entry in self.page(state="accepted", limit=20)
            if entry.event == "registered"  # a milestone is settled again later
        ]
        return max(moments, default=None)

    def days(self, first: int, last: int, most: int = LAST) -> list[Day]:
        """How far players came, day by day; dry runs apart.

        :param first: A moment of the first day, in milliseconds.
        :param last: A moment of the last day.
        :param most: How many pending events are looked at, the newest, and how many
            rejected ones. All others are counted already.
        """
        first -= first % DAY
        counts: t.Counter[tuple[int, str]] = Counter()
        for day, step, count in self._read(
            f"SELECT day, step, count FROM {self._dialect.tally} WHERE day >= :first",
            first=first,
        ):
            counts[day, step] += count
        for state in ("pending", "rejected"):
            for day, count in self._read(
                f"SELECT recorded - recorded % {DAY}, count(*)"
                f" FROM {self._some('recorded, event, test', 'ORDER BY id DESC')}"
                " WHERE event = 'registered' AND test = :no AND recorded >= :first"
                f" GROUP BY recorded - recorded % {DAY}",
                state=state,
                most=most,
                no=False,
                first=first,
            ):
                counts[int(day), "open"] += count
        return [_day(start, counts) for start in range(first, last + 1, DAY)]

    def best_referrers(self, limit: int = 10) -> list[Referrer]:
        """The players who invited most friends, best first."""
        table = self._dialect.referrer
        others = ("qualified", "rewarded", "arrived")
        counts = ", ".join(f"coalesce({step}.count, 0)" for step in others)
        joins = " ".join(
            f"LEFT JOIN {table} {step}"
            f" ON {step}.player = best.player AND {step}.step = '{step}'"
            for step in others
        )
        # The best first of all, so that the others are looked up for those alone.
        best = (
            f"SELECT player, count FROM {table} WHERE step = 'accepted'"
            " ORDER BY count DESC LIMIT :limit"
        )
        rows = self._read(
            f"SELECT best.player, best.count, {counts} FROM ({best}) best {joins}",
            limit=limit,
        )
        found = [Referrer(*row) for row in rows]
        return sorted(found, key=lambda each: (*(-n for n in each[1:]), each.player))

    def count_friends(self, player: str) -> int:
        """How many players in the outbox a player has invited."""
        wanted = "referrer = :player AND event = 'registered'"
        return self._count(wanted, player=player)

    def friends(self, player: str, test: bool, limit: int) -> list[Entry]:
        """The signups of the friends a player referred, newest first.

        :param limit: How many at most.
        """
        return self._entries(
            "referrer = :player AND event = 'registered' AND test = :test"
            " ORDER BY id DESC LIMIT :limit",
            player=player,
            test=test,
            limit=limit,
        )

    def worker(self) -> Worker | None:
        """What delivers, if anything ever did."""
        known = self._run(lambda db: db.fact("worker"))
        return Worker(*json.loads(known)) if known else None

    def _entries(self, where: str, hint: str = "", **values: t.Any) -> list[Entry]:
        return self._run(lambda db: db.entries(where, values, hint))

    def _count(self, where: str, **values: t.Any) -> int:
        sql = f"SELECT count(*) FROM {self._event} WHERE {where}"
        return int(self._read(sql, **values)[0][0])

    def _some(self, columns: str, order: str = "") -> str:
        """A subquery for no more entries of a state than may be looked at."""
        return (
            f"(SELECT {columns} FROM {self._event} {self._dialect.by_state}"
            f" WHERE state = :state {order} LIMIT :most) found"
        )

    def _read(self, sql: str, **values: t.Any) -> list[t.Any]:
        return self._run(lambda db: db.execute(sql, values))

    def _run(self, work: t.Callable[[Transaction], R]) -> R:
        return self._outbox.run(work, self._timeout, writes=False)


def _ids(db: Transaction, table: str) -> tuple[int, int]:
    """The lowest and the highest id."""
    ((lowest,),) = db.execute(f"SELECT min(id) FROM {table}", {})
    ((highest,),) = db.execute(f"SELECT max(id) FROM {table}", {})
    return lowest or 0, highest or 0


def _search(db: Transaction, table: str, moment: int) -> int:
    # There is no index of the time, and ids follow it.
    low, highest = _ids(db, table)
    high = highest + 1
    next_row = f"SELECT id, recorded FROM {table} WHERE id >= :id ORDER BY id LIMIT 1"
    while low < high:
        middle = (low + high) // 2
        rows = db.execute(next_row, {"id": middle})
        if rows and rows[0][1] < moment:
            low = rows[0][0] + 1
        else:
            high = middle
    return int(low)


def _day(start: int, counts: t.Mapping[tuple[int, str], int]) -> Day:
    done = counts[start, "accepted"], counts[start, "ignored"]
    return Day(
        start,
        signed_up=sum(done) + counts[start, "open"],
        accepted=done[0],
        qualified=counts[start, "qualified"],
        rewarded=counts[start, "rewarded"],
        unreferred=counts[start, "unreferred"],
        arrived=counts[start, "arrived"],
    )
