"""A kill at every step of an event's life, before it and after it.

**What runs.** One story: the outbox is made, one player signs up and reaches the
milestone, another signs up while the outbox is busy (spooled files), what can be
sent is sent and rewarded, the other player reaches the milestone as well, and that is
sent and rewarded. Each event's first post meets a fault, so that retries are part of
it.

A first run writes down every step: each statement to SQLite, each file that the
spool makes or removes, each call from claim to reward, and the site's own
answers. For each of them, before it and after it, a child is then forked that tells the
story again and kills itself there. A new process delivers what is left, with its clock
moved on past the leases, and the site's diary is compared with the server's history as
after a soak. The steps are found by wrapping methods, from outside; the package knows
nothing of it.

The story is told twice: once for a callback that is called at least once, and once with
``at_most_once``, there with the steps of the reward only.

**What is measured, and why it can fail.** Per step: whether the kill happened where it
was meant to (``fired``), and each promise. Before a step nothing of it may count and
after it all of it must; so one statement in the wrong transaction, an answer before a
commit or a reward on the wrong side of its settlement shows at one step, every time,
and not by luck.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sqlite3
import typing as t
from collections import Counter
from collections import defaultdict
from functools import partial
from functools import wraps
from pathlib import Path
from unittest import mock

from flask_mmolove import OutboxBusy
from flask_mmolove import ReferralClient
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.protocol.transport import Transport
from flask_mmolove.rewards.callback import CallbackRewarder

from . import processes
from .evidence import Evidence
from .report import Counters
from .report import Findings
from .report import harness
from .report import progress
from .server import Arrival
from .server import Mood
from .server import StandIn
from .site import Diary
from .site import read_diary
from .site import Site
from .site import warm_up

#: What the first post of each event meets.
FIRST = {"registered": "unavailable", "qualified": "portal"}

#: The steps of the reward, the only ones that differ with ``at_most_once``.
REWARD = ("claim accepted", "reward", "settle accepted", "settle reward_unconfirmed")

#: The most turns of a drain of two players.
TURNS = 200

#: Times the story is told at most until it takes the same course. On a machine that is
#: very busy, answers that take longer than usual are settled one by one.
TRIALS = 5

#: What the story must pass through, or it is no proof.
PHASES = (
    "migrate",
    "enqueue",
    "spool",
    "import",
    "claim pending",
    "send",
    "settle pending",
    "claim accepted",
    "reward",
    "settle accepted",
)


class Point(t.NamedTuple):
    """A moment at which a process can be killed.

    :param number: Its place in the story.
    :param name: The calls that it lies within, and the steps between which it lies.
    """

    number: int
    name: str

    def is_of(self, phase: str) -> bool:
        """Whether it is the beginning or the end of a phase, or within it."""
        words = re.split(" > |, ", re.sub("before |after ", "", self.name))
        return phase in words


class _Steps:
    """Counts the moments of a story, and kills the process at one of them."""

    def __init__(self, site: Site, fatal: int | None) -> None:
        self.passed: list[Point] = []
        self._note = site.diary.note  # itself, before it is wrapped
        self._fatal = fatal
        self._within: list[str] = []
        self._ended: list[str] | None = None  # within what a step has just ended

    def take(self, name: str, step: t.Callable[[], t.Any]) -> t.Any:
        """Do something that is a step."""
        self._begin(name)
        try:
            result = step()
        finally:
            self._within.pop()
        self._pass(f"after {name}")
        self._ended = list(self._within)
        return result

    def wrap(self, owner: t.Any, method: str, name: str | t.Callable[..., str]) -> None:
        """Make a step of a method. Its name may depend on the arguments."""
        original = getattr(owner, method)

        @wraps(original)
        def wrapper(*args: t.Any, **kwargs: t.Any) -> t.Any:
            words = name if isinstance(name, str) else name(*args, **kwargs)
            return self.take(words, partial(original, *args, **kwargs))

        setattr(owner, method, wrapper)

    def wrap_all(self) -> None:
        """Make steps of all that is done, for the rest of this process's life."""
        self.wrap(SQLiteOutbox, "record", "enqueue")
        self.wrap(SQLiteOutbox, "apply_settings", "apply_settings")
        self.wrap(SQLiteOutbox, "claim", lambda outbox, state, *rest: f"claim {state}")
        self.wrap(SQLiteOutbox, "settle", _name_settlement)
        self.wrap(ReferralClient, "send", "send")
        self.wrap(Transport, "post", "post")
        self.wrap(http.client.HTTPConnection, "getresponse", "answer")
        self.wrap(CallbackRewarder, "_give", "reward")
        self.wrap(Spool, "write", "spool")
        self.wrap(Spool, "remove", "import")
        self.wrap(Path, "rename", "rename")
        self.wrap(Path, "unlink", "unlink")
        self.wrap(os, "fsync", "fsync")
        self.wrap(Diary, "note", lambda diary, letter, *rest: _NOTES[letter])

        class Connection(sqlite3.Connection):
            pass

        for method in ("execute", "executemany"):
            self.wrap(Connection, method, _name_statement)
        connect = partial(sqlite3.connect, factory=Connection)
        mock.patch.object(sqlite3, "connect", connect).start()

    def _begin(self, name: str) -> None:
        if self._ended == self._within:
            # The end of one step is the beginning of the next: nothing is in between.
            number, words = self.passed[-1]
            self.passed[-1] = Point(number, f"{words}, before {name}")
        else:
            self._pass(f"before {name}")
        self._ended = None
        self._within.append(name)

    def _pass(self, moment: str) -> None:
        point = Point(len(self.passed), " > ".join([*self._within, moment]))
        self.passed.append(point)
        if point.number == self._fatal:
            self._note("F", point.name)
            os.kill(os.getpid(), signal.SIGKILL)


_NOTES = {
    "A": "attempt",
    "K": "acknowledgement",
    "R": "effect",
    "X": "surprise",
}


def _name_settlement(outbox: object, settlements: t.Any, *rest: object) -> str:
    (state,) = {settlement.entry.state for settlement in settlements}
    return f"settle {state}"


def _name_statement(connection: object, sql: str, *rest: object) -> str:
    words = sql.split()
    before = {"FROM", "INTO", "UPDATE"}
    tables = [words[i + 1] for i, word in enumerate(words) if word in before]
    return f"{words[0]} {tables[0]}" if tables else " ".join(words[:3])


def _tell(site: Site, player: str, fatal: int | None = None) -> list[Point]:
    """The story, from an empty folder to two rewards."""
    steps = _Steps(site, fatal)
    steps.wrap_all()
    steps.take("migrate", site.state.outbox.inspector.summary)
    prompt, busy = f"{player}-prompt", f"{player}-busy"
    site.sign_up(prompt)
    site.qualify(prompt)
    with mock.patch.object(SQLiteOutbox, "record", side_effect=OutboxBusy("Busy.")):
        site.sign_up(busy)
    site.drain(TURNS)
    site.qualify(busy)
    site.drain(TURNS)
    return steps.passed


class _Take(t.NamedTuple):
    """One telling of the story, on a new stage.

    :param folder: Where its site keeps its files. The last part names the player.
    :param point: Where it is killed; None if it is told to its end.
    """

    folder: Path
    at_most_once: bool
    point: Point | None = None

    def site(self, server: StandIn) -> Site:
        return Site(self.folder, server.endpoint, at_most_once=self.at_most_once)

    def tell(self, server: StandIn) -> list[Point]:
        self.folder.mkdir()
        number = self.point.number if self.point else None
        return _tell(self.site(server), self.folder.name, number)

    def fired(self) -> bool:
        """Whether it was killed where it was meant to be."""
        if self.point is None:
            return True
        (name,) = read_diary(self.folder, "F") or ["nowhere"]
        return self.point.name.startswith(name)


def _rehearse(take: _Take, server: StandIn) -> list[Point]:
    """Tell the story to its end, and give its points."""
    script = take.folder.with_suffix(".points")

    def work() -> None:
        script.write_text(json.dumps(take.tell(server)))

    processes.was_killed(processes.fork(work))
    return [Point(*each) for each in json.loads(script.read_text())]


def _tell_all(
    folder: Path,
    server: StandIn,
    at_most_once: bool,
    only: t.Sequence[str],
    faults: list[str],
) -> t.Iterator[_Take]:
    """Kill the story at each of its points."""
    kind = "most" if at_most_once else "least"
    rehearsal = _Take(folder / f"{kind}-rehearsal", at_most_once)
    points = _rehearse(rehearsal, server)
    yield rehearsal
    faults += [
        f"the story, at {kind} once, never came to: {phase}"
        for phase in PHASES
        if not any(point.is_of(phase) for point in points)
    ]
    phases = only or (REWARD if at_most_once else ())
    if phases:
        points = [point for point in points if any(map(point.is_of, phases))]
    for point in progress(points, f"Killing, at {kind} once"):
        for trial in range(TRIALS):
            name = f"{kind}-{point.number}-{trial}"
            take = _Take(folder / name, at_most_once, point)
            processes.was_killed(processes.fork(partial(take.tell, server)))
            if take.fired():
                break
        yield take


def run(
    only: t.Sequence[str] = (),
    at_most_once: t.Sequence[bool] = (False, True),
) -> Findings:
    """Kill a process at every step, and compare what is left.

    :param only: Phases whose points are tried; all, unless given.
    :param at_most_once: The kinds of callback that the story is told with.
    """
    warm_up()
    faults: list[str] = []
    with processes.scratch() as folder, StandIn(Mood(first=FIRST)) as server:
        takes = [
            take
            for kind in at_most_once
            for take in _tell_all(folder, server, kind, only, faults)
        ]

        def drain() -> None:
            for take in takes:
                take.site(server).drain(TURNS)

        processes.was_killed(processes.fork(drain))
        found = [Evidence.of(take.folder, take.at_most_once) for take in takes]
        fired = [take.fired() for take in takes]
        history = _by_player(server.history())
    total = Counters()
    rows: dict[str, Counter[str]] = {}
    for take, evidence, hit in zip(takes, found, fired, strict=True):
        name = take.point.name if take.point else "no kill"
        counters = evidence.weigh(history[take.folder.name])
        total += counters
        wrong = evidence.faults() + ([] if hit else ["never fired"])
        faults += [f"{name} ({take.folder.name}): {each}" for each in wrong]
        rows.setdefault(name, Counter()).update(
            tried=1,
            fired=int(hit),
            recovered=counters.recovered,
            duplicate_posts=counters.duplicate_posts,
            repeated_calls=counters.repeated_calls,
            broken=len(counters.broken() + wrong),
        )
    return Findings(
        "crashpoints",
        total,
        figures={
            "points": sum(take.point is not None for take in takes),
            "fired": sum(fired) - len(at_most_once),
        },
        rows=[{"point": name, **counts} for name, counts in rows.items()],
        faults=faults,
    )


def _by_player(history: t.Iterable[Arrival]) -> dict[str, list[Arrival]]:
    arrivals: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in history:
        player = arrival.server_event_id.split("-", 1)[1].rsplit("-", 1)[0]
        arrivals[player].append(arrival)
    return arrivals


command = harness()(run)
