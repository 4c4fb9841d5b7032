"""What is done with the rows of an outbox within one open transaction.

It is written once, in the SQL that every store understands. A store says how that is
run, and how a row is put in.

Rows are taken by compare-and-set, which every database does alike and which needs no
lock while nobody else wants the same row. What must not change between two statements
is locked, always the breaker first and then events, so that two processes seldom wait
for one another in a circle; where they do, the database ends one of them, and it begins
anew.
"""

from __future__ import annotations

import abc
import itertools
import typing as t
from collections import Counter

from ..protocol.wire import Event
from .breaker import Breaker
from .counters import Mark
from .counters import reached
from .entry import Entry
from .entry import EntryState
from .entry import Invitation
from .entry import Settlement
from .reward_breaker import RewardBreaker
from .rules import as_claimed
from .rules import as_second
from .rules import begin
from .rules import decision_columns
from .rules import HELD_FOR
from .rules import HORIZON
from .rules import isolate_crashed
from .rules import may_settle
from .rules import milestones
from .rules import new_entry
from .rules import refused
from .rules import settlement_columns
from .rules import soonest
from .rules import Start
from .rules import wrongly_rejected
from .tokens import digest
from .tokens import digest_of

Values = dict[str, t.Any]

COLUMNS = ", ".join(Entry._fields)

# The name of the fact that holds the reward breaker.
_REWARDS = "rewards"

# Rows that are looked at in one transaction of an upgrade.
_BATCH = 500

_KEY = "identity = :identity AND event = :event AND test = :test"


class Dialect:
    """What a store has to say in its own way.

    :param prefix: What the names of its tables begin with.
    :param lock: The end of a SELECT that keeps others from its rows until the end of
        the transaction.
    :param by_state: What tells the database to go by the index of states, if it has to
        be told.
    :param or_add: The end of an INSERT that adds to the count of a row that is there.
        To look for the row first would fail where another transaction makes it
        meanwhile.
    :param no_table: What follows the values of a SELECT from no table.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        lock: str = "",
        no_table: str = "",
        by_state: str = "",
        or_add: str = (
            "ON CONFLICT ({key}) DO UPDATE SET count = {table}.count + excluded.count"
        ),
    ) -> None:
        self.event = f"{prefix}event"
        self.held = f"{prefix}held"
        self.fact = f"{prefix}fact"
        self.tally = f"{prefix}tally"
        self.referrer = f"{prefix}referrer"
        self.used = f"{prefix}used"
        self.lock = lock
        self.no_table = no_table
        self.by_state = by_state
        self.or_add = or_add


class Transaction(abc.ABC):
    """The outbox within one open transaction.

    What it can meet of others' doing is an error of the database, after which the
    whole transaction is to be done anew.
    """

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

    @abc.abstractmethod
    def _insert(self, entry: Entry) -> int | None:
        """The id of a new row; None if the event stands already, or if its token
        belongs to another account. See :meth:`insertion`.
        """

    def add(
        self,
        identity: str,
        events: t.Sequence[Event],
        now: int,
        *,
        referrer: str | None = None,
    ) -> list[Entry]:
        """Record events of one player, and give those that are new.

        An event that stands already stays as it is. A ``qualified`` waits until its
        player's ``registered`` is accepted. A ``registered`` whose token belongs to
        another account is ignored from the start, and so is what follows it.

        :param referrer: Who invited the player, where it is known.
        """
        new = []
        for event in events:
            start = self._start(identity, event.event, event.test, now)
            entry = new_entry(identity, event, start, now, referrer)
            id = self._insert(entry)
            if id is None and event.event not in self.of(identity, event.test):
                entry = as_second(entry)
                id = self._insert(entry)
            if id is not None:
                new.append(entry._replace(id=id))
        return new

    def insertion(self, names: t.Iterable[str]) -> str:
        """The statement that puts a row in, unless ``:used`` is the digest of a token
        whose row is gone.
        """
        columns, places = ", ".join(names), ", ".join(f":{name}" for name in names)
        return (
            f"INSERT INTO {self._event} ({columns})"
            f" SELECT {places}{self._dialect.no_table} WHERE NOT EXISTS"
            f" (SELECT 1 FROM {self._dialect.used} WHERE digest = :used)"
        )

    def use(self, digests: t.Iterable[str]) -> None:
        """Keep digests of tokens, whatever becomes of the rows that own them."""
        used = self._dialect.used
        values = [{"digest": each, "used": each} for each in sorted({*digests})]
        if values:
            self.execute(
                f"INSERT INTO {used} (digest) SELECT :digest{self._dialect.no_table}"
                f" WHERE NOT EXISTS (SELECT 1 FROM {used} WHERE digest = :used)",
                values,
            )

    def is_used(self, token: str) -> bool:
        """Whether an account was reported with a token, dry runs aside."""
        used = digest(token)
        return self._is_used(used) or bool(
            self.entries("digest = :used", {"used": used})
        )

    def own_tokens(self, after: int) -> int | None:
        """Give their tokens to accounts that were recorded by a version which let
        several have one: a few hundred, and the id at which to go on, if there is one.

        :param after: The id after which to begin.
        """
        found = self.entries(
            "id > :after AND event = 'registered' AND test = :no AND digest IS NULL"
            f" ORDER BY id LIMIT {_BATCH}",
            {"after": after, "no": False},
        )
        for entry in found:
            self.own_token(entry)
        return found[-1].id if found else None

    def own_token(self, entry: Entry) -> None:
        """Let an entry own its token, unless another account has more right to it: one
        that was rewarded, or else the one that was recorded first. The other's rows are
        ignored from now on.
        """
        digest = digest_of(entry)
        if digest is None or entry.is_second:
            return
        loser = None
        if owners := self.entries("digest = :digest", {"digest": digest}):
            loser = max(entry, *owners, key=self._right_to_token)
        elif self._is_used(digest):
            loser = entry
        if loser is not None:
            self._take_token(loser)
        if loser is not entry:
            self.execute(
                f"UPDATE {self._event} SET digest = :digest WHERE id = :id",
                {"digest": digest, "id": entry.id},
            )

    def hold(self, key: str, invitation: Invitation, now: int) -> None:
        """Keep an invitation for an account that is made later, for as long as its
        token is valid. The first one under a key stays: whoever learns the key must
        not replace it.

        :param key: At most 64 characters.
        :param now: When it came. That may be a while ago, so a later one may be here.
        """
        held = self._dialect.held
        self.execute(f"DELETE FROM {held} WHERE expires <= :now", {"now": now})
        row = {"name": key, **invitation._asdict(), "expires": now + HELD_FOR}
        of_this_key = f"FROM {held} WHERE name = :name"
        self.execute(f"DELETE {of_this_key} AND expires > :expires", row)
        if not self.execute(f"SELECT name {of_this_key}", row):
            self.execute(
                f"INSERT INTO {held} (name, token, referrer, expires)"
                " VALUES (:name, :token, :referrer, :expires)",
                row,
            )

    def held(self, key: str, now: int) -> Invitation | None:
        """What is kept under a key."""
        rows = self.execute(
            f"SELECT token, referrer FROM {self._dialect.held}"
            " WHERE name = :name AND expires > :now",
            {"name": key, "now": now},
        )
        return Invitation._make(rows[0]) if rows else None

    def let_go(self, key: str) -> None:
        """Forget what is kept under a key."""
        self.execute(
            f"DELETE FROM {self._dialect.held} WHERE name = :name", {"name": key}
        )

    def of(self, identity: str, test: bool) -> dict[str, Entry]:
        """A player's entries by event name."""
        found = self.entries(
            "identity = :identity AND test = :test",
            {"identity": identity, "test": test},
        )
        return {entry.event: entry for entry in found}

    def claim(
        self,
        state: EntryState,
        now: int,
        lease: int,
        limit: int,
        ids: t.Collection[int] | None = None,
    ) -> list[Entry]:
        """Take due entries of a state, until ``now + lease`` for this caller alone.

        No more ``pending`` ones are given than the breaker bears, and only one
        ``accepted`` now and then while rewards are paused. An entry whose last
        claim was never settled comes alone, so that it is clear which one it is that
        kills its worker.

        :param ids: Take none but these, a few hundred at the most.
        """
        if state == "accepted":
            return self._claim_rewards(now, lease, limit, ids)
        breaker = self.breaker()
        if breaker.is_open or breaker.width is not None:
            # There is room for few: one process after another looks and takes.
            breaker = self._lock_breaker()
        limit = breaker.room(now, lambda: self._in_flight(now), limit)
        taken = self._claim(state, now, lease, limit, breaker.uptime(now), ids)
        if taken:
            self._remember(breaker.probing(now, lease), breaker)
        return taken

    def reward_breaker(self, lock: str = "") -> RewardBreaker:
        """What is known of the site's reward callback."""
        return RewardBreaker.from_json(self.fact(_REWARDS, lock))

    def reward_failed(self, id: int, reason: str, now: int) -> RewardBreaker:
        """The callback failed for a reward. Gives what is known of it now."""
        breaker = self.reward_breaker(self._dialect.lock)
        breaker = breaker.failure(id, reason, now)
        self.set_fact(_REWARDS, breaker.to_json())
        return breaker

    def reward_granted(self, now: int) -> None:
        """The callback works again, so what failed need not wait any longer."""
        self.set_fact(_REWARDS, RewardBreaker().to_json())
        self._hasten("accepted", now)

    def settle(
        self,
        settlements: t.Sequence[Settlement],
        now: int,
        learn: t.Callable[[Breaker], Breaker] = lambda breaker: breaker,
        *,
        counts: bool = True,
    ) -> list[Entry]:
        """Write what became of claimed entries, and give those that were changed.

        A ``registered`` that is accepted makes its player's ``qualified`` due; one that
        is ignored takes it along.

        :param learn: What the attempts taught about MMOLove.
        :param counts: Whether the steps are counted. All who count wait for one
            another, to the end of their transactions.
        """
        before, after = self._learn(learn)
        steps = self._settle(settlements, now)
        changed = [entry for entry, _ in steps]
        self._follow(changed, now)
        if before.is_open != after.is_open:
            if after.is_open:
                # The settings turned out to be at fault, not the events.
                for entry in wrongly_rejected(self._rejected(), after):
                    self._redrive(entry, now, entry.attempts)
            else:
                self._hasten("pending", now)
            changed = list(self._anew(changed).values())
        if counts:
            self.count(itertools.chain(*itertools.starmap(reached, steps)))
        return changed

    def release(self, entries: t.Sequence[Entry]) -> None:
        """Give claims back unused: nothing was tried."""
        if entries:
            self.execute(
                f"UPDATE {self._event} SET due = recorded, claim = NULL,"
                f" attempts = attempts - 1 WHERE {_KEY} AND claim = :claim",
                [{**_key(entry.key), "claim": entry.claim} for entry in entries],
            )

    def renew(self, entries: t.Sequence[Entry], due: int) -> list[Entry]:
        """Let claims last until ``due``, and give the entries whose claim is not the
        caller's any more. One whose lease is over, but which nobody else has claimed,
        still is.
        """
        return [
            entry
            for entry in entries
            if not self.change(
                f"UPDATE {self._event} SET due = :due WHERE {_KEY} AND state = :state"
                " AND coalesce(claim, '') = :claim",
                {
                    **_key(entry.key),
                    "due": due,
                    "state": entry.state,
                    "claim": entry.claim or "",
                },
            )
        ]

    def next_due(self, now: int) -> int | None:
        """When something is next to be done, in milliseconds."""
        first = f"SELECT min(due) FROM {self._event} WHERE due > 0 AND state ="
        fact = f"SELECT value FROM {self._dialect.fact} WHERE name ="
        ((pending, accepted, breaker, rewards),) = self.execute(
            f"SELECT ({first} 'pending'), ({first} 'accepted'),"
            f" ({fact} 'breaker'), ({fact} '{_REWARDS}')",
            {},
        )
        if accepted is not None:
            wait = RewardBreaker.from_json(rewards).wait(now)
            accepted = max(accepted, now + wait) if wait else accepted
        return soonest(pending, accepted, Breaker.from_json(breaker), now)

    def apply_settings(self, fingerprint: str, server_id: str, now: int) -> int | None:
        """Meet settings. If they are not those of before, what may still be sent is
        addressed anew, what was refused under the old ones is sent again, and the
        breaker begins afresh. Gives how many were refused; None if nothing is new.

        :param fingerprint: :attr:`flask_mmolove.settings.Settings.fingerprint`.
        """
        breaker = self._lock_breaker()  # one process after another
        known = self.fact("settings")
        self.set_fact("settings", fingerprint)
        if known in (None, fingerprint):
            return None
        again = [
            entry for entry in refused(self._rejected()) if self._redrive(entry, now)
        ]
        self._hasten("pending", now)
        self._readdress(server_id)
        self._remember(Breaker(down=now - breaker.uptime(now)), None)
        return len(again)

    def resume(self, now: int) -> None:
        """Let everything that waits be tried now, whatever pause was left of it. If
        MMOLove or the callback still fails, all of it waits again.
        """
        breaker = self._lock_breaker()
        self._remember(breaker._replace(not_before=0), breaker)
        rewards = self.reward_breaker(self._dialect.lock)
        if rewards.not_before:
            self.set_fact(_REWARDS, rewards._replace(not_before=0).to_json())
        self._hasten("pending", now)
        self._hasten("accepted", now)

    def rejected(self) -> list[int]:
        """The ids of the entries that are rejected, newest first."""
        rows = self.execute(
            f"SELECT id FROM {self._event} WHERE state = 'rejected' ORDER BY id DESC",
            {},
        )
        return [id for (id,) in rows]

    def retry(self, now: int, ids: t.Collection[int]) -> list[Entry]:
        """Send those of the entries again that are rejected, and give them as they are
        now.

        :param ids: A few hundred at the most.
        """
        again = [
            entry
            for entry in self._read(ids)
            if entry.state == "rejected" and self._redrive(entry, now)
        ]
        return list(self._anew(again).values())

    def decide(self, id: int, state: EntryState, now: int) -> Entry | None:
        """A person's word on a reward that is ``unknown`` or ``unpaid``: it is
        ``rewarded``, or ``accepted`` to be given again. None if it is neither.
        """
        found = self._read([id], self._dialect.lock)
        if not found or found[0].state not in ("unknown", "unpaid"):
            return None
        columns = decision_columns(found[0], state, now)
        names = ", ".join(f"{name} = :{name}" for name in columns)
        self.execute(
            f"UPDATE {self._event} SET {names} WHERE id = :id", {**columns, "id": id}
        )
        (decided,) = self._read([id])
        self.count(reached(decided, was="unknown"))
        return decided

    def breaker(self) -> Breaker:
        """What is known of MMOLove."""
        return Breaker.from_json(self.fact("breaker"))

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

    def _add_up(self, table: str, whose: str, counts: t.Counter[t.Any]) -> None:
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

    def _claim_rewards(
        self, now: int, lease: int, limit: int, ids: t.Collection[int] | None
    ) -> list[Entry]:
        breaker = self.reward_breaker()
        if breaker.is_open:
            breaker = self.reward_breaker(self._dialect.lock)
            if breaker.wait(now):
                return []
            limit = 1
        taken = self._claim("accepted", now, lease, limit, now, ids)
        if taken and breaker.is_open:
            self.set_fact(_REWARDS, breaker.probing(now).to_json())
        return taken

    def _claim(
        self,
        state: EntryState,
        now: int,
        lease: int,
        limit: int,
        uptime: int,
        ids: t.Collection[int] | None,
    ) -> list[Entry]:
        while batch := isolate_crashed(self._due(state, now, limit, ids)):
            claimed = as_claimed(batch, now, lease, uptime)
            if taken := self._take(batch, claimed):
                return taken
        return []

    def _is_used(self, digest: str) -> bool:
        used = self._dialect.used
        sql = f"SELECT 1 FROM {used} WHERE digest = :digest"
        return bool(self.execute(sql, {"digest": digest}))

    def _right_to_token(self, entry: Entry) -> tuple[bool, int, int]:
        """The less, the more right."""
        milestone = self.of(entry.identity, entry.test).get("qualified")
        is_rewarded = milestone and milestone.state in ("rewarded", "unknown")
        return not is_rewarded, entry.recorded, entry.id

    def _take_token(self, entry: Entry) -> None:
        """Ignore an account whose token is another's. What was rewarded stays so."""
        second = as_second(entry)
        self.execute(
            f"UPDATE {self._event} SET state = :state, due = NULL, claim = NULL,"
            " settled = :settled, status = NULL, answer = :answer, digest = NULL"
            " WHERE id = :id",
            {
                "id": entry.id,
                "state": second.state,
                "settled": second.settled,
                "answer": second.answer,
            },
        )
        self.execute(
            f"UPDATE {self._event} SET state = :state, due = NULL, claim = NULL"
            f" WHERE {_KEY} AND state IN ('pending', 'accepted', 'rejected', 'unpaid')",
            {
                "identity": entry.identity,
                "event": "qualified",
                "test": entry.test,
                "state": second.state,
            },
        )

    def _start(self, identity: str, name: str, test: bool, now: int) -> Start:
        """What an event begins as: a ``qualified`` goes by its ``registered``, which
        is locked, for it must not be settled before this ``qualified`` is to be seen.
        """
        if name == "registered":
            return begin(name, None, now)
        rows = self.execute(
            f"SELECT state FROM {self._event} WHERE {_KEY}{self._dialect.lock}",
            _key((identity, "registered", test)),
        )
        return begin(name, rows[0][0] if rows else None, now)

    def _lock_breaker(self) -> Breaker:
        """What is known of MMOLove; nobody else changes it until the end of this."""
        text = self.fact("breaker", self._dialect.lock)
        if text is None:
            # There must be a row to lock. If another process makes it at this moment,
            # that is an error, and not to be written over.
            text = Breaker().to_json()
            self.execute(
                f"INSERT INTO {self._dialect.fact} VALUES ('breaker', :value)",
                {"value": text},
            )
        return Breaker.from_json(text)

    def _learn(self, learn: t.Callable[[Breaker], Breaker]) -> tuple[Breaker, Breaker]:
        """What was known of MMOLove, and what is from now on. As long as all is well
        nothing changes, and nobody waits for a lock.
        """
        before = self.breaker()
        after = learn(before)
        if after != before:
            found = self._lock_breaker()
            if found != before:
                before, after = found, learn(found)
            self._remember(after, before)
        return before, after

    def _remember(self, breaker: Breaker, before: Breaker | None) -> None:
        if breaker != before:
            self.set_fact("breaker", breaker.to_json())

    def _in_flight(self, now: int) -> int:
        ((count,),) = self.execute(
            f"SELECT count(*) FROM {self._event}"
            " WHERE state = 'pending' AND due > :now AND claim IS NOT NULL",
            {"now": now},
        )
        return int(count)

    def _due(
        self, state: EntryState, now: int, limit: int, ids: t.Collection[int] | None
    ) -> list[Entry]:
        places, values = _named(ids or ())
        only = "" if ids is None else f" AND id IN ({places})"
        found: list[Entry] = []
        conditions = {"due <= :moment": now, "due > :moment": now + HORIZON}
        for condition, moment in conditions.items():
            if len(found) < limit:
                values |= {"state": state, "moment": moment}
                values["limit"] = limit - len(found)
                found += self.entries(
                    f"state = :state AND {condition}{only}"
                    " ORDER BY due, id LIMIT :limit",
                    values,
                )
        return found

    def _take(self, seen: list[Entry], claimed: list[Entry]) -> list[Entry]:
        """Claim those entries that nobody has claimed since they were seen."""
        self.execute(
            f"UPDATE {self._event} SET due = :due, claim = :claim,"
            " attempts = :attempts, crashes = :crashes, begun = :begun"
            " WHERE id = :id AND attempts = :seen_attempts AND state = :seen_state"
            " AND due = :seen_due",
            [
                {
                    "id": was.id,
                    "seen_attempts": was.attempts,
                    "seen_state": was.state,
                    "seen_due": was.due,
                    "due": now.due,
                    "claim": now.claim,
                    "attempts": now.attempts,
                    "crashes": now.crashes,
                    "begun": now.begun,
                }
                # In one order, so that two that want the same do not deadlock.
                for was, now in sorted(zip(seen, claimed, strict=True))
            ],
        )
        if self.is_alone:
            return claimed
        # As it is now: it may have been addressed anew since it was seen.
        ours = claimed[0].claim
        taken = self._read([entry.id for entry in claimed])
        mine = {entry.id: entry for entry in taken if entry.claim == ours}
        return [mine[entry.id] for entry in claimed if entry.id in mine]

    def _settle(
        self, settlements: t.Sequence[Settlement], now: int
    ) -> list[tuple[Entry, EntryState]]:
        """What is changed, as it is now, with the states in which it was claimed."""
        entries = [settlement.entry for settlement in settlements]
        rows = self._anew(entries, self._dialect.lock)
        steps: list[tuple[Entry, EntryState]] = []
        changes = []
        for settlement in settlements:
            row = rows.get(settlement.entry.key)
            if row is not None and may_settle(settlement, row):
                columns = settlement_columns(settlement, now)
                columns["referral_id"] = columns["referral_id"] or row.referral_id
                rows[row.key] = row._replace(**columns)
                steps.append((rows[row.key], settlement.entry.state))
                changes.append({**columns, "id": row.id})
        if changes:
            self.execute(
                f"UPDATE {self._event} SET state = :state, due = :due, claim = :claim,"
                " attempts = :attempts, crashes = :crashes, begun = :begun,"
                " settled = :settled, status = :status, answer = :answer,"
                " referral_id = :referral_id, history = :history WHERE id = :id",
                changes,
            )
        return steps

    def _follow(self, changed: t.Iterable[Entry], now: int) -> None:
        """Let each ``registered`` draw its ``qualified`` along."""
        for (state, due, test), players in milestones(changed, now).items():
            places, values = _named(players)
            self.execute(
                f"UPDATE {self._event} SET state = :state, due = :due"
                f" WHERE identity IN ({places}) AND event = 'qualified'"
                # So it goes by the players, and not by all that is pending.
                " AND test = :test AND coalesce(state, '') = 'pending' AND due IS NULL",
                {**values, "state": state, "due": due, "test": test},
            )

    def _redrive(self, entry: Entry, now: int, attempts: int = 0) -> bool:
        """Send a rejected entry again. False if it is not rejected any more."""
        state, due = self._start(entry.identity, entry.event, entry.test, now)
        changed = self.change(
            f"UPDATE {self._event} SET state = :state, due = :due,"
            " attempts = :attempts, crashes = 0 WHERE id = :id AND state = 'rejected'",
            {"id": entry.id, "state": state, "due": due, "attempts": attempts},
        )
        return changed > 0

    def _hasten(self, state: EntryState, now: int) -> None:
        """What failed has a chance again, so it need not wait any longer."""
        self.execute(
            f"UPDATE {self._event} SET due = :now"
            " WHERE state = :state AND due > :now AND claim IS NULL",
            {"state": state, "now": now},
        )

    def _readdress(self, server_id: str) -> None:
        """The id of the server stands inside the bytes, so they are made anew."""
        for state in ("pending", "rejected"):
            for entry in self.entries(
                "state = :state AND server_id != :server_id",
                {"state": state, "server_id": server_id},
            ):
                body = entry.addressed_to(server_id).encode()
                self.execute(
                    f"UPDATE {self._event} SET server_id = :server_id, body = :body"
                    " WHERE id = :id",
                    {"id": entry.id, "server_id": server_id, "body": body},
                )

    def _rejected(self) -> list[Entry]:
        return self.entries("state = 'rejected'", {})

    def _read(self, ids: t.Collection[int], lock: str = "") -> list[Entry]:
        """Entries by their ids, in the order of ids."""
        if not ids:
            return []
        places, values = _named(ids)
        return self.entries(f"id IN ({places}) ORDER BY id{lock}", values)

    def _anew(
        self, entries: t.Collection[Entry], lock: str = ""
    ) -> dict[tuple[str, str, bool], Entry]:
        """Entries as they are now, by their keys, in the order in which they come."""
        read = self._read([entry.id for entry in entries], lock)
        found = {entry.key: entry for entry in read}
        for key in (entry.key for entry in entries if entry.key not in found):
            # Its id is another after its file was damaged.
            found |= {row.key: row for row in self.entries(f"{_KEY}{lock}", _key(key))}
        return {entry.key: found[entry.key] for entry in entries if entry.key in found}


def _key(key: tuple[str, str, bool]) -> Values:
    return dict(zip(("identity", "event", "test"), key, strict=True))


def _named(values: t.Iterable[t.Any]) -> tuple[str, Values]:
    """Places for values in a statement, and the values by their names."""
    named = {f"v{number}": value for number, value in enumerate(values)}
    # Not every database takes an empty list.
    return ", ".join(f":{name}" for name in named) or "NULL", named
