"""The rows of an outbox within one open transaction: what all statements share."""

from __future__ import annotations

import abc
import typing as t
from collections import Counter

from .breaker import Breaker
from .counters import Mark
from .dialect import Dialect
from .entry import Entry
from .reward_breaker import RewardBreaker
from .rules import begin
from .rules import Start

Values = dict[str, t.Any]

COLUMNS = ", ".join(Entry._fields)

#: The condition for one entry; its values are those of :func:`key_values`.
BY_KEY = "identity = :identity AND event = :event AND test = :test"

#: The name of the fact that holds the reward breaker.
REWARDS = "rewards"


class Rows(abc.ABC):
    """How a store runs statements, and what is read and counted everywhere."""

    #: Whether nobody else writes as long as it is open.
    is_alone = False

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._event = dialect.event

    @abc.abstractmethod
    def execute(self, sql: str, values: Values | list[Values]) -> list[t.Any]:
        """Run a statement and give its rows; or run it once for each values of a list,
        and give none.
        """

    @abc.abstractmethod
    def change(self, sql: str, values: Values) -> int:
        """Run a statement, and give how many rows it has changed."""

    @abc.abstractmethod
    def entries(self, where: str, values: Values, hint: str = "") -> list[Entry]:
        """Entries by a condition, and what may follow it in a SELECT.

        :param hint: What may follow the table's name.
        """

    def of(self, identity: str, test: bool) -> dict[str, Entry]:
        """A player's entries by event name."""
        found = self.entries(
            "identity = :identity AND test = :test",
            {"identity": identity, "test": test},
        )
        return {entry.event: entry for entry in found}

    def of_all(
        self, identities: t.Collection[str], test: bool
    ) -> dict[str, dict[str, Entry]]:
        """The same of some hundred players, by their identities."""
        places, values = named(identities)
        found: dict[str, dict[str, Entry]] = {}
        for entry in self.entries(
            f"identity IN ({places}) AND test = :test", {**values, "test": test}
        ):
            found.setdefault(entry.identity, {})[entry.event] = entry
        return found

    def breaker(self) -> Breaker:
        """What is known of MMOLove."""
        return Breaker.from_json(self.fact("breaker"))

    def reward_breaker(self, lock: str = "") -> RewardBreaker:
        """What is known of the site's reward callback."""
        return RewardBreaker.from_json(self.fact(REWARDS, lock))

    def fact(self, name: str, lock: str = "") -> str | None:
        """What is written down under a name."""
        rows = self.execute(
            f"SELECT value FROM {self._dialect.fact} WHERE name = :name{lock}",
            {"name": name},
        )
        return rows[0][0] if rows else None

    def set_fact(self, name: str, value: str) -> None:
        """Write something down under a name."""
        fact, values = self._dialect.fact, {"name": name, "value": value}
        update = f"UPDATE {fact} SET value = :value WHERE name = :name"
        if not self.change(update, values):
            self.execute(f"INSERT INTO {fact} VALUES (:name, :value)", values)

    def update_fact(self, name: str, change: t.Callable[[str | None], str]) -> None:
        """Change what is written down under a name, whoever else does at once.

        :param change: Takes what is there and gives what is there from now on.
        """
        self.set_fact(name, change(self.fact(name, self._dialect.lock)))

    def count(self, marks: t.Iterable[Mark]) -> None:
        """Count steps, as the last part of the transaction in which they are taken: a
        count is what transactions meet at, and the day's most of all.
        """
        days: t.Counter[tuple[int, str]] = Counter()
        referrers: t.Counter[tuple[str, str]] = Counter()
        for mark, more in Counter(marks).items():
            days[mark.day, mark.step] += more
            if mark.referrer is not None and mark.step != "ignored":
                referrers[mark.referrer, mark.step] += more
        self._add_up(self._dialect.referrer, "player", referrers)
        self._add_up(self._dialect.tally, "day", days)

    def _add_up(self, table: str, whose: str, counts: t.Mapping[t.Any, int]) -> None:
        if not counts:
            return
        key = f"{whose}, step"
        or_add = self._dialect.or_add.format(table=table, key=key)
        self.execute(
            f"INSERT INTO {table} ({key}, count) VALUES (:whose, :step, :count)"
            f" {or_add}",
            # In one order, so that two that add to the same do not deadlock.
            [
                {"whose": each, "step": step, "count": more}
                for (each, step), more in sorted(counts.items())
            ],
        )

    def _start(self, identity: str, name: str, test: bool, now: int) -> Start:
        """What an event begins as: a ``qualified`` goes by its ``registered``, which
        is locked, for it must not be settled before this ``qualified`` is to be seen.
        """
        if name == "registered":
            return begin(name, None, now)
        rows = self.execute(
            f"SELECT state FROM {self._event} WHERE {BY_KEY}{self._dialect.lock}",
            key_values((identity, "registered", test)),
        )
        return begin(name, rows[0][0] if rows else None, now)

    def _read(self, ids: t.Collection[int], lock: str = "") -> list[Entry]:
        """Entries by their ids, in the order of ids."""
        if not ids:
            return []
        places, values = named(ids)
        return self.entries(f"id IN ({places}) ORDER BY id{lock}", values)

    def _current(
        self, entries: t.Collection[Entry], lock: str = ""
    ) -> dict[tuple[str, str, bool], Entry]:
        """Entries as they are now, by their keys, in the order in which they come."""
        read = self._read([entry.id for entry in entries], lock)
        found = {entry.key: entry for entry in read}
        for key in (entry.key for entry in entries if entry.key not in found):
            # Its id is another after its file was damaged.
            found |= {
                row.key: row for row in self.entries(f"{BY_KEY}{lock}", key_values(key))
            }
        return {entry.key: found[entry.key] for entry in entries if entry.key in found}


def key_values(key: tuple[str, str, bool]) -> Values:
    return dict(zip(("identity", "event", "test"), key, strict=True))


def named(values: t.Iterable[t.Any]) -> tuple[str, Values]:
    """Places for values in a statement, and the values by their names."""
    named = {f"v{number}": value for number, value in enumerate(values)}
    # Not every database takes an empty list.
    return ", ".join(f":{name}" for name in named) or "NULL", named
