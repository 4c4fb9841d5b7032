"""Hypothesis plays with an outbox and with a dictionary, and compares them.

**What runs.** Rules in any order: record events, claim, let a lease end, settle as any
worker may (at once, late, twice, by one that lost its claim), give claims back, crash,
let the clock jump by hours, days and years in either direction, refuse, send again,
meet other settings, and decide about rewards. It goes through the seam, ``Outbox``, so
another store can be put behind it: see :func:`run`.

**What is measured, and why it can fail.** After each rule every entry is read and
compared with the dictionary. Besides, whatever happened:

- an entry is never claimed while a claim on it holds;
- a ``qualified`` is never claimed before its ``registered`` was accepted;
- an event that MMOLove took is never pending again, and what was rewarded stays so;
- a failure changes nothing unless its claim is the entry's last;
- nothing disappears, and nothing has to wait longer than six hours, however the clock
  jumped.

The last is where a clock has its limit: a lease that seems longer than six hours was
made by a clock since put back, and counts as over.
"""

from __future__ import annotations

import os
import secrets
import traceback
import typing as t
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import multiple
from hypothesis.stateful import rule
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.stateful import run_state_machine_as_test

from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.states import EntryState
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add

from . import processes
from .report import Findings
from .report import harness

#: Opens the outbox that stands at a path.
Factory = t.Callable[[Path], Outbox]

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
LEASE = 10 * MINUTE

#: A moment further ahead than this was set by a clock since put right.
HORIZON = 6 * 60 * MINUTE

STEPS = 50

PLAYERS = st.sampled_from(["ada", "bob", "cyd"])

#: Statuses that are refused because of wrong settings, and others.
REFUSALS = (401, 403, 404)
STATUSES = st.sampled_from([*REFUSALS, 400, 422, 503, 0])


@dataclass
class Model:
    """What the dictionary knows of an entry."""

    id: int
    state: EntryState
    due: int | None
    recorded: int
    server_id: str = "srv-a"
    claim: str | None = None
    attempts: int = 0
    crashes: int = 0
    status: int | None = None

    def is_due(self, now: int) -> bool:
        return self.due is not None and not now < self.due <= now + HORIZON


#: For a claim in a state, the state that also gives way to what really happened.
REFUTED: dict[str, EntryState] = {
    "pending": "rejected",
    "accepted": "reward_failed",
    "reward_unconfirmed": "reward_unconfirmed",
}

#: The states that a settlement may bring an entry to.
LATER: dict[EntryState, set[EntryState]] = {
    "pending": {"pending", "accepted", "ignored", "rejected"},
    "rejected": {"accepted", "ignored"},
    "accepted": {"accepted", "rewarded", "reward_unconfirmed", "reward_failed"},
    "reward_unconfirmed": {"rewarded"},
    "reward_failed": {"rewarded"},
    "rewarded": set(),
    "ignored": set(),
}


class OutboxMachine(RuleBasedStateMachine):
    """The rules. A subclass says which outbox and where."""

    folder: t.ClassVar[Path]
    #: How often what matters came about; a game that never does it proves nothing.
    hits: t.ClassVar[Counter[str]]

    claims: Bundle[Entry] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder / secrets.token_hex(8)
        self.outbox = self.open()
        self.model: dict[tuple[str, str], Model] = {}
        self.server_id = "srv-a"
        self.now = 0

    def open(self) -> Outbox:
        """Open the outbox at :attr:`path`."""
        raise NotImplementedError

    @initialize(day=st.integers(4_000, 20_000))
    def begin(self, day: int) -> None:
        self.now = day * DAY
        self.outbox.apply_settings("srv-a", "srv-a", self.now)
        for identity in ("ada", "bob"):
            self.record(identity, ("registered", "qualified"))

    # What the site does.

    @rule(
        identity=PLAYERS,
        names=st.sampled_from([("registered",), ("registered", "qualified")]),
    )
    def record(self, identity: str, names: tuple[str, ...]) -> None:
        new = add(self.outbox, identity, *names, now=self.now, server_id=self.server_id)
        expected = [name for name in names if (identity, name) not in self.model]
        assert [entry.event for entry in new] == expected
        for entry in new:
            state, due = self._start(identity, entry.event)
            self.model[identity, entry.event] = Model(
                entry.id, state, due, self.now, self.server_id
            )

    @rule(id=st.integers(1, 6), state=st.sampled_from(["rewarded", "accepted"]))
    def decide(self, id: int, state: EntryState) -> None:
        found = [m for m in self.model.values() if m.id == id]
        open_ = [m for m in found if m.state in ("reward_unconfirmed", "reward_failed")]
        assert bool(self.outbox.decide(id, state, self.now)) == bool(open_)
        for model in open_:
            model.state = state
            model.due = self.now if state == "accepted" else None
            model.attempts = model.crashes = 0
            model.status = None

    @rule()
    def send_again(self) -> None:
        rejected = [k for k, m in self.model.items() if m.state == "rejected"]
        assert len(self.outbox.retry(self.now)) == len(rejected)
        for key in rejected:
            self._redrive(key)

    @rule(server_id=st.sampled_from(["srv-a", "srv-b"]))
    def meet_settings(self, server_id: str) -> None:
        refused = [
            key
            for key, model in self.model.items()
            if model.state == "rejected" and model.status in REFUSALS
        ]
        count = self.outbox.apply_settings(server_id, server_id, self.now)
        if server_id == self.server_id:
            assert count is None
            return
        assert count == len(refused)
        self.server_id = server_id
        for key in refused:
            self._redrive(key)
        for model in self.model.values():
            if model.state in ("pending", "rejected"):
                model.server_id = server_id
            if model.state == "pending" and model.claim is None and model.due:
                model.due = min(model.due, self.now)

    # What workers do.

    @rule(target=claims, limit=st.integers(1, 4))
    def claim(self, limit: int) -> t.Any:
        return multiple(*self._claim("pending", limit))

    @rule(target=claims)
    def deliver_and_pay(self) -> t.Any:
        """A good day: all that is due is accepted, and a reward is given."""
        entries = [*self._claim("pending", 9), *self._claim("accepted", 1)]
        for entry in entries:
            self.succeed(entry, True, 200)
        return multiple(*entries)

    @rule(target=claims)
    def claim_reward(self) -> t.Any:
        return multiple(*self._claim("accepted", 1))

    @rule(entry=claims, reward=st.booleans(), status=st.sampled_from([200, None]))
    def succeed(self, entry: Entry, reward: bool, status: int | None) -> None:
        if entry.state == "pending":
            due = self.now if reward and entry.event == "qualified" else None
            settled = Settlement(entry, "accepted", due, True, True, status)
        else:
            settled = Settlement(entry, "rewarded", None, True, status=status)
        self._settle(settled)

    @rule(entry=claims)
    def lose_first_touch(self, entry: Entry) -> None:
        if entry.state == "pending":
            self._settle(Settlement(entry, "ignored", None, True, True, 200))

    @rule(entry=claims, status=STATUSES, pause=st.integers(1, 4 * 60))
    def fail(self, entry: Entry, status: int, pause: int) -> None:
        if entry.state == "reward_unconfirmed":
            return  # it is left to a person
        due = self.now + pause * MINUTE
        self._settle(Settlement(entry, entry.state, due, status=status))

    @rule(entry=claims, status=STATUSES)
    def give_up(self, entry: Entry, status: int) -> None:
        if entry.state == "reward_unconfirmed":
            return
        state: EntryState = "rejected" if entry.state == "pending" else "reward_failed"
        self._settle(Settlement(entry, state, status=status))

    @rule(target=claims, entry=claims)
    def begin_at_most_once(self, entry: Entry) -> t.Any:
        if entry.state != "accepted":
            return multiple()
        return multiple(
            *self._settle(Settlement(entry, "reward_unconfirmed", status=200))
        )

    @rule(entry=claims)
    def give_back(self, entry: Entry) -> None:
        self.outbox.release([entry])
        model = self._of(entry)
        if model.claim == entry.claim is not None:
            model.due = model.recorded
            model.claim = None
            model.attempts -= 1

    @rule()
    def crash(self) -> None:
        """All claims stay as they are; another process opens the outbox."""
        self.outbox.close()
        self.outbox = self.open()

    # What time does.

    @rule()
    def let_leases_end(self) -> None:
        self.now += LEASE

    @rule(
        unit=st.sampled_from([1, MINUTE, 60 * MINUTE, DAY, 365 * DAY]),
        count=st.integers(-30, 30),
    )
    def jump(self, unit: int, count: int) -> None:
        self.now = max(DAY, self.now + unit * count)

    # What always holds.

    @invariant()
    def holds(self) -> None:
        self.hits["steps"] += 1
        entries = {
            (entry.identity, entry.event): entry
            for entry in self.outbox.inspector.page(limit=1000)
        }
        assert entries.keys() == self.model.keys()
        for key, entry in entries.items():
            model = self.model[key]
            found = Model(
                entry.id,
                entry.state,
                entry.due,
                entry.recorded,
                entry.server_id,
                entry.claim,
                entry.attempts,
                entry.crashes,
                entry.status,
            )
            assert found == model
            assert f'"server_id":"{model.server_id}"'.encode() in entry.body

    @invariant()
    def waits_no_longer_than_the_horizon(self) -> None:
        if any(m.due is not None for m in self.model.values()):
            due = self.outbox.next_due(self.now)
            assert due is not None and due <= self.now + HORIZON

    def teardown(self) -> None:
        self.outbox.close()
        for file in self.folder.glob(f"{self.path.name}*"):
            file.unlink()

    def _start(self, identity: str, name: str) -> tuple[EntryState, int | None]:
        if name == "registered":
            return "pending", self.now
        registered = self.model.get((identity, "registered"))
        if registered and registered.state == "ignored":
            return "ignored", None
        accepted = registered is not None and registered.state == "accepted"
        return "pending", self.now if accepted else None

    def _redrive(self, key: tuple[str, str]) -> None:
        model = self.model[key]
        model.state, model.due = self._start(*key)
        model.attempts = model.crashes = 0

    def _of(self, entry: Entry) -> Model:
        return self.model[entry.identity, entry.event]

    def _claim(self, state: EntryState, limit: int) -> list[Entry]:
        due = [
            model
            for model in self.model.values()
            if model.state == state and model.is_due(self.now)
        ]
        claimed = self.outbox.claim(state, self.now, LEASE, limit)
        assert bool(claimed) == bool(due)
        assert len(claimed) <= limit
        for entry in claimed:
            model = self._of(entry)
            assert model in due
            if entry.event == "qualified":
                registered = self.model[entry.identity, "registered"]
                assert registered.state == "accepted"
            crashed = model.claim is not None
            assert not crashed or len(claimed) == 1
            assert entry.claim != model.claim
            assert entry.attempts == model.attempts + 1
            assert entry.crashes == model.crashes + crashed
            self.hits["claims_after_a_crash" if crashed else "claims"] += 1
            model.claim, model.due = entry.claim, self.now + LEASE
            model.attempts, model.crashes = entry.attempts, entry.crashes
        return claimed

    def _settle(self, settled: Settlement) -> list[Entry]:
        entry, model = settled.entry, self._of(settled.entry)
        holds = model.state == entry.state and model.claim == entry.claim
        happened = settled.is_fact and model.state in (
            entry.state,
            REFUTED[entry.state],
        )
        changed = self.outbox.settle([settled], self.now)
        assert bool(changed) == (holds or happened)
        if not changed:
            self.hits["settlements_in_vain"] += 1
            return []
        self.hits["settlements" if holds else "settlements_by_another"] += 1
        self.hits[settled.state] += 1
        assert settled.state in LATER[model.state]
        model.state, model.due = settled.state, settled.due
        model.status, model.claim = settled.status, None
        model.attempts = 0 if settled.resets_attempts else entry.attempts
        model.crashes = 0 if settled.resets_attempts else entry.crashes
        self._follow(entry, settled.state)
        return changed

    def _follow(self, entry: Entry, state: EntryState) -> None:
        qualified = self.model.get((entry.identity, "qualified"))
        if entry.event == "qualified" or qualified is None:
            return
        if qualified.state == "pending" and qualified.due is None:
            if state == "accepted":
                qualified.due = self.now
            elif state == "ignored":
                qualified.state = "ignored"


def run(examples: int, factory: Factory = SQLiteOutbox) -> Findings:
    """Compare an outbox with a dictionary.

    :param examples: Games that are played.
    :param factory: Opens the outbox; another store's may be given.
    """
    report = Findings("statemachine")
    with processes.scratch() as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")

        class Machine(OutboxMachine):
            def open(self) -> Outbox:
                return factory(self.path)

        Machine.folder, Machine.hits = folder, Counter()
        try:
            run_state_machine_as_test(
                Machine,
                settings=hypothesis_settings(
                    max_examples=examples,
                    stateful_step_count=STEPS,
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except AssertionError as e:
            line = traceback.extract_tb(e.__traceback__)[-1].line or ""
            report.faults.append("\n".join([line, *getattr(e, "__notes__", [])]))
    report.figures = {"examples": examples, "steps_each": STEPS, **Machine.hits}
    return report


command = harness(
    click.option("--examples", default=200, show_default=True, help="How many games."),
)(run)
