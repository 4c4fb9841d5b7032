"""What a delivery does with the rows: claims them, and writes what became of them.

Rows are taken by compare-and-set, which every database does alike and which needs no
lock while nobody else wants the same row. What must not change between two statements
is locked, always the breaker first and then events, so that two processes seldom wait
for one another in a circle; where they do, the database ends one of the transactions,
and it is run again.
"""

from __future__ import annotations

import itertools
import typing as t

from .breaker import Breaker
from .counters import reached
from .entry import Entry
from .entry import Settlement
from .numbers import Numbers
from .reward_breaker import RewardBreaker
from .rows import BY_KEY
from .rows import key_values
from .rows import named
from .rows import REWARDS
from .rules import as_claimed
from .rules import HORIZON
from .rules import isolate_crashed
from .rules import may_settle
from .rules import milestones
from .rules import settlement_columns
from .rules import soonest
from .rules import wrongly_rejected
from .states import EntryState


class Claims(Numbers):
    """Claims entries, and settles them."""

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
        if breaker.is_open or breaker.max_in_flight is not None:
            # There is room for few: one process after another looks and takes.
            breaker = self._lock_breaker()
        limit = breaker.room(now, lambda: self._in_flight(now), limit)
        taken = self._claim(state, now, lease, limit, breaker.uptime(now), ids)
        if taken:
            self._remember(breaker.probing(now, lease), breaker)
        return taken

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
        numbers = self.number(steps)
        changed = [
            entry._replace(number=numbers.get(entry.id, entry.number))
            for entry, _ in steps
        ]
        self._follow(changed, now)
        if before.is_open != after.is_open:
            if after.is_open:
                # The settings turned out to be at fault, not the events.
                for entry in wrongly_rejected(self._rejected(), after):
                    self._send_again(entry, now, entry.attempts)
            else:
                self._reschedule("pending", now)
            changed = list(self._current(changed).values())
        if counts:
            self.count(itertools.chain(*itertools.starmap(reached, steps)))
        return changed

    def release(self, entries: t.Sequence[Entry]) -> None:
        """Give claims back unused: nothing was tried."""
        if entries:
            self.execute(
                f"UPDATE {self._event} SET due = recorded, claim = NULL,"
                f" attempts = attempts - 1 WHERE {BY_KEY} AND claim = :claim",
                [{**key_values(entry.key), "claim": entry.claim} for entry in entries],
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
                f"UPDATE {self._event} SET due = :due WHERE {BY_KEY} AND state = :state"
                " AND coalesce(claim, '') = :claim",
                {
                    **key_values(entry.key),
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
            f" ({fact} 'breaker'), ({fact} '{REWARDS}')",
            {},
        )
        if accepted is not None:
            wait = RewardBreaker.from_json(rewards).wait(now)
            accepted = max(accepted, now + wait) if wait else accepted
        return soonest(pending, accepted, Breaker.from_json(breaker), now)

    def reward_failed(self, id: int, reason: str, now: int) -> RewardBreaker:
        """The callback failed for a reward. Gives what is known of it now."""
        breaker = self.reward_breaker(self._dialect.lock)
        breaker = breaker.failure(id, reason, now)
        self.set_fact(REWARDS, breaker.to_json())
        return breaker

    def reward_granted(self, now: int) -> None:
        """The callback works again, so what failed need not wait any longer."""
        self.set_fact(REWARDS, RewardBreaker().to_json())
        self._reschedule("accepted", now)

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
            self.set_fact(REWARDS, breaker.probing(now, lease).to_json())
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
        # The row of a reward that is granted in the site's transaction is locked until
        # that ends, and the others need not wait for it.
        free = self._dialect.free if state == "accepted" else ""
        while batch := isolate_crashed(self._due(state, now, limit, ids, free)):
            claimed = as_claimed(batch, now, lease, uptime)
            if taken := self._take(batch, claimed):
                return taken
        return []

    def _due(
        self,
        state: EntryState,
        now: int,
        limit: int,
        ids: t.Collection[int] | None,
        free: str,
    ) -> list[Entry]:
        places, values = named(ids or ())
        only = "" if ids is None else f" AND id IN ({places})"
        found: list[Entry] = []
        conditions = {"due <= :moment": now, "due > :moment": now + HORIZON}
        for condition, moment in conditions.items():
            if len(found) < limit:
                values |= {"state": state, "moment": moment}
                values["limit"] = limit - len(found)
                found += self.entries(
                    f"state = :state AND {condition}{only}"
                    f" ORDER BY due, id LIMIT :limit{free}",
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
        # As it is now: new settings may have readdressed it since it was seen.
        ours = claimed[0].claim
        taken = self._read([entry.id for entry in claimed])
        mine = {entry.id: entry for entry in taken if entry.claim == ours}
        return [mine[entry.id] for entry in claimed if entry.id in mine]

    def _in_flight(self, now: int) -> int:
        ((count,),) = self.execute(
            f"SELECT count(*) FROM {self._event}"
            " WHERE state = 'pending' AND due > :now AND claim IS NOT NULL",
            {"now": now},
        )
        return int(count)

    def _settle(
        self, settlements: t.Sequence[Settlement], now: int
    ) -> list[tuple[Entry, EntryState]]:
        """What is changed, as it is now, with the states in which it was claimed."""
        entries = [settlement.entry for settlement in settlements]
        rows = self._current(entries, self._dialect.lock)
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
                " referral_id = :referral_id, history = :history, took = :took"
                " WHERE id = :id",
                changes,
            )
        return steps

    def _follow(self, changed: t.Iterable[Entry], now: int) -> None:
        """Let each ``registered`` draw its ``qualified`` along."""
        for (state, due, test), players in milestones(changed, now).items():
            places, values = named(players)
            self.execute(
                f"UPDATE {self._event} SET state = :state, due = :due"
                f" WHERE identity IN ({places}) AND event = 'qualified'"
                # So it goes by the players, and not by all that is pending.
                " AND test = :test AND coalesce(state, '') = 'pending' AND due IS NULL",
                {**values, "state": state, "due": due, "test": test},
            )

    def _learn(self, learn: t.Callable[[Breaker], Breaker]) -> tuple[Breaker, Breaker]:
        """The breaker before and after. While MMOLove answers, nothing changes, and
        nobody waits for a lock.
        """
        before = self.breaker()
        after = learn(before)
        if after != before:
            found = self._lock_breaker()
            if found != before:
                before, after = found, learn(found)
            self._remember(after, before)
        return before, after

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

    def _remember(self, breaker: Breaker, before: Breaker | None) -> None:
        if breaker != before:
            self.set_fact("breaker", breaker.to_json())

    def _send_again(self, entry: Entry, now: int, attempts: int = 0) -> bool:
        """Send a rejected entry again. False if it is not rejected any more."""
        state, due = self._start(entry.identity, entry.event, entry.test, now)
        changed = self.change(
            f"UPDATE {self._event} SET state = :state, due = :due,"
            " attempts = :attempts, crashes = 0 WHERE id = :id AND state = 'rejected'",
            {"id": entry.id, "state": state, "due": due, "attempts": attempts},
        )
        return changed > 0

    def _reschedule(self, state: EntryState, now: int) -> None:
        """What failed has a chance again, so it need not wait any longer."""
        self.execute(
            f"UPDATE {self._event} SET due = :now"
            " WHERE state = :state AND due > :now AND claim IS NULL",
            {"state": state, "now": now},
        )

    def _rejected(self) -> list[Entry]:
        return self.entries("state = 'rejected'", {})
