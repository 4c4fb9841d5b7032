"""The comparison of what a site was told with what the server took."""

from __future__ import annotations

import sqlite3
import typing as t
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine

from .report import Counters
from .server import Arrival
from .server import TAKEN
from .site import KEYS
from .site import OUTBOX
from .site import read_diary

#: The states of a milestone that MMOLove has credited.
_CREDITED = {"accepted", "rewarded", "reward_unconfirmed", "reward_failed"}

#: What an entry may be when nothing is left to do.
_AT_REST = {"accepted", "rewarded", "ignored", "reward_unconfirmed"}


@dataclass(frozen=True)
class Evidence:
    """What a run left behind, read once all its processes have ended.

    :param attempted: The keys of the events that were begun.
    :param acknowledged: Those of which the site was told that they are recorded.
    :param rewards: The calls of the reward callback: player and reward key.
    :param at_most_once: How that was registered.
    :param surprises: What was logged that no code had foreseen.
    :param states: The state of each row, by key.
    :param numbers: The numbers of the credited friends, by referrer.
    :param intact: Whether SQLite finds nothing wrong with the file. A database's server
        looks after its own.
    """

    attempted: set[str]
    acknowledged: set[str]
    rewards: list[tuple[str, str]]
    at_most_once: bool
    surprises: list[str]
    states: dict[str, str]
    numbers: dict[str, list[int | None]]
    intact: bool

    @classmethod
    def of(
        cls, folder: Path, at_most_once: bool = False, database: str | None = None
    ) -> Evidence:
        """Read what a site left in its folder, and in its database."""
        if database is None:
            intact, rows = _read_file(folder / OUTBOX)
        else:
            intact, rows = True, _read_database(database)
        rewards = [line.split(" ", 1) for line in read_diary(folder, "R")]
        return cls(
            attempted=set(read_diary(folder, "A")),
            acknowledged=set(read_diary(folder, "K")),
            rewards=[(player, key) for player, key in rewards],
            at_most_once=at_most_once,
            surprises=read_diary(folder, "X"),
            states={KEYS[event] + who: state for event, who, state, _, _ in rows},
            numbers=_numbers(rows),
            intact=intact,
        )

    def weigh(self, history: t.Sequence[Arrival]) -> Counters:
        """Compare it with the server's history."""
        taken = {e.server_event_id for e in history if e.outcome == "accepted"}
        ignored = {e.server_event_id for e in history if e.outcome == "ignored"}
        credited = {e.server_event_id for e in history if _credits(e)}
        calls = Counter(self.rewards)
        return Counters(
            attempted=len(self.attempted),
            acknowledged=len(self.acknowledged),
            delivered=len(taken | ignored),
            duplicate_posts=sum(e.outcome == "duplicate" for e in history),
            recovered=len((taken | ignored) - self.acknowledged),
            repeated_calls=len(self.rewards) - len(calls),
            lost=len(self.acknowledged - taken - ignored - _moot(self.acknowledged)),
            unexpected=len((taken | ignored) - self.attempted),
            double_rewards=self._double(calls, credited),
            missing_rewards=self._missing(calls, credited),
            order_inversions=_inversions(history),
            wrong_numbers=sum(map(_wrong, self.numbers.values())),
            file_intact=self.intact,
        )

    def faults(self) -> list[str]:
        """What is wrong besides the counters."""
        restless = Counter(s for s in self.states.values() if s not in _AT_REST)
        return [
            *(f"not foreseen: {words}" for words in self.surprises[:5]),
            *(f"left over: {count} {state}" for state, count in restless.items()),
        ]

    def _double(self, calls: Counter[tuple[str, str]], credited: set[str]) -> int:
        unjust = sum(KEYS["qualified"] + player not in credited for player, _ in calls)
        players = Counter(player for player, _ in calls)
        twice = sum(count - 1 for count in players.values())
        if self.at_most_once:
            twice += sum(count - 1 for count in calls.values())
        return unjust + twice

    def _missing(self, calls: Counter[tuple[str, str]], credited: set[str]) -> int:
        given = {KEYS["qualified"] + player for player, _ in calls}
        if self.at_most_once:
            # A person is told of these, with `flask mmolove rewards`.
            given |= {
                key
                for key, state in self.states.items()
                if state == "reward_unconfirmed"
            }
        return len(credited - given)


def _wrong(numbers: list[int | None]) -> int:
    """How many numbers are not as they should be: one for each, from 1 on."""
    return len({*range(1, len(numbers) + 1)}.difference(numbers))


def _credits(arrival: Arrival) -> bool:
    return arrival.event == "qualified" and arrival.outcome == "accepted"


def _moot(keys: set[str]) -> set[str]:
    """The milestones of players that another referrer had registered before: MMOLove
    takes none, and the site does not send them.
    """
    return {key for key in keys if key.startswith(KEYS["qualified"] + TAKEN)}


def _inversions(history: t.Iterable[Arrival]) -> int:
    """How many milestones arrived before the signup had been taken."""
    registered: set[str] = set()
    early = 0
    for arrival in history:
        player = arrival.server_event_id.removeprefix(KEYS[arrival.event])
        if arrival.event == "registered":
            if arrival.outcome in {"accepted", "ignored"}:
                registered.add(player)
        elif player not in registered:
            early += 1
    return early


#: What is read of each row.
_COLUMNS = "event, identity, state, referrer, number"

Rows = list[tuple[str, str, str, "str | None", "int | None"]]


def _read_file(path: Path) -> tuple[bool, Rows]:
    connection = sqlite3.connect(path)
    try:
        verdict = connection.execute("PRAGMA integrity_check").fetchall()
        rows = connection.execute(f"SELECT {_COLUMNS} FROM event").fetchall()
    except sqlite3.DatabaseError:
        return False, []
    finally:
        connection.close()
    return verdict == [("ok",)], rows


def _read_database(url: str) -> Rows:
    engine = create_engine(url)
    with engine.connect() as connection:
        query = f"SELECT {_COLUMNS} FROM mmolove_event"
        rows = connection.exec_driver_sql(query).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def _numbers(rows: Rows) -> dict[str, list[int | None]]:
    """The numbers of the credited friends, by referrer."""
    found: dict[str, list[int | None]] = {}
    for event, _, state, referrer, number in rows:
        if referrer and event == "qualified" and state in _CREDITED:
            found.setdefault(referrer, []).append(number)
    return found
