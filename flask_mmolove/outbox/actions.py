"""What a person does with the rows, and what follows from new settings."""

from __future__ import annotations

import typing as t

from .breaker import Breaker
from .claims import Claims
from .counters import reached
from .entry import Entry
from .ownership import Ownership
from .rows import REWARDS
from .rules import decision
from .rules import refused
from .states import EntryState
from .tokens import digest

# Nothing more can come of these. A player's accepted ``registered`` is not among them:
# the milestone is still to come.
_FINISHED = (
    "due IS NULL AND coalesce(settled, recorded) < :before"
    " AND (state IN ('ignored', 'rewarded')"
    " OR state = 'accepted' AND (event = 'qualified' OR test = :yes))"
)

# States that all events of a player have then.
_DONE = {"accepted", "ignored", "rewarded"}


class Actions(Claims, Ownership):
    """Sends again, decides, forgets and removes."""

    def apply_settings(self, fingerprint: str, server_id: str, now: int) -> int | None:
        """Apply the settings. If they have changed, what may still be sent is addressed
        to the new server, what was refused under the old ones is sent again, and the
        breaker is reset. Gives how many were refused; None if nothing has changed.

        :param fingerprint: :attr:`flask_mmolove.settings.Settings.fingerprint`.
        """
        breaker = self._lock_breaker()  # one process after another
        known = self.fact("settings")
        self.set_fact("settings", fingerprint)
        if known in (None, fingerprint):
            return None
        rejected = refused(self._rejected())
        again = [entry for entry in rejected if self._send_again(entry, now)]
        self._reschedule("pending", now)
        self._readdress(server_id)
        self._remember(Breaker(downtime=now - breaker.uptime(now)), None)
        return len(again)

    def resume(self, now: int) -> None:
        """Try everything now. What still fails is paused again."""
        breaker = self._lock_breaker()
        self._remember(breaker._replace(not_before=0), breaker)
        rewards = self.reward_breaker(self._dialect.lock)
        if rewards.not_before:
            self.set_fact(REWARDS, rewards._replace(not_before=0).to_json())
        self._reschedule("pending", now)
        self._reschedule("accepted", now)

    def rejected(self) -> list[int]:
        """The ids of the entries that are rejected, newest first."""
        rows = self.execute(
            f"SELECT id FROM {self._event} WHERE state = 'rejected' ORDER BY id DESC",
            {},
        )
        return [id for (id,) in rows]

    def retry(self, now: int, ids: t.Collection[int]) -> list[Entry]:
        """Send those entries again that are rejected, and give them as they are now.

        :param ids: A few hundred at the most.
        """
        again = [
            entry
            for entry in self._read(ids)
            if entry.state == "rejected" and self._send_again(entry, now)
        ]
        return list(self._current(again).values())

    def decide(
        self, ids: t.Collection[int], state: EntryState, now: int
    ) -> list[Entry]:
        """Settle rewards as a person has decided, and give those that were changed: the
        ones that still are ``reward_unconfirmed`` or ``reward_failed``.

        :param state: ``rewarded``, or ``accepted`` to have them granted now.
        """
        open_ = ("reward_unconfirmed", "reward_failed")
        found = self._read(ids)
        decisions = [decision(e, state, now) for e in found if e.state in open_]
        return self.settle(decisions, now)

    def use_tokens(self, player: str, tokens: t.Iterable[str]) -> None:
        """Keep a player's tokens from other accounts, whatever is erased afterwards.

        :param tokens: Those that the outbox does not have yet.
        """
        self.use(map(digest, tokens))
        self._use_of(self.of(player, False).values())

    def erase(self, player: str) -> list[Entry]:
        """Erase what is stored of a player but the counts and the digests of used
        tokens, and give the entries. What was not sent yet never will be, and the
        player is nobody's referrer any more.
        """
        found = self.entries(
            f"identity = :player ORDER BY id{self._dialect.lock}", {"player": player}
        )
        self._use_of(found)
        self._delete(found)
        for table in (self._event, self._dialect.held):
            self.execute(
                f"UPDATE {table} SET referrer = NULL WHERE referrer = :player",
                {"player": player},
            )
        self.execute(
            f"DELETE FROM {self._dialect.referrer} WHERE player = :player",
            {"player": player},
        )
        self._count_unfinished(found)
        return found

    def dismiss(self, id: int) -> list[Entry]:
        """Remove a signup whose token MMOLove does not know, with the milestone that
        waits for it, and give those entries: none if it is another event by now.
        """
        gone = [
            entry
            for junk in self._read([id], self._dialect.lock)
            if junk.is_junk
            for entry in self.of(junk.identity, junk.test).values()
        ]
        self._use_of(gone)
        self._delete(gone)
        self._count_unfinished(gone)
        return gone

    def purge(self, after: int, before: int, limit: int) -> tuple[int, int | None]:
        """Remove the players of whom everything among a few rows is finished. Gives how
        many entries that were, and the id after which to go on, if there is one.

        :param after: The id after which to begin.
        :param before: The moment since when they are finished, in milliseconds.
        :param limit: How many rows are looked at.
        """
        gone, last = self._finished(after, before, limit)
        self._use_of(gone)
        self._delete(gone)
        return len(gone), last

    def use_finished(self, after: int, before: int, limit: int) -> None:
        """Keep the digests of what :meth:`purge` would remove."""
        gone, _ = self._finished(after, before, limit)
        self._use_of(gone)

    def _finished(
        self, after: int, before: int, limit: int
    ) -> tuple[list[Entry], int | None]:
        ids = self.execute(
            f"SELECT id FROM {self._event} WHERE id > :after ORDER BY id LIMIT :limit",
            {"after": after, "limit": limit},
        )
        if not ids:
            return [], None
        (first,), (last,) = ids[0], ids[-1]
        finished = self.entries(
            f"id BETWEEN :first AND :last AND {_FINISHED}",
            {"first": first, "last": last, "before": before, "yes": True},
        )
        gone: dict[int, Entry] = {}
        for each in finished:
            entries = self.of(each.identity, each.test).values()
            if all(_is_done(entry, before) for entry in entries):
                gone |= {entry.id: entry for entry in entries}
        return list(gone.values()), last

    def _readdress(self, server_id: str) -> None:
        """Encode the events again: their bytes contain the server id."""
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

    def _use_of(self, entries: t.Iterable[Entry]) -> None:
        self.use(entry.digest for entry in entries if entry.digest)

    def _count_unfinished(self, gone: t.Iterable[Entry]) -> None:
        """Count what would have been counted when it was finished."""
        for entry in gone:
            if entry.state in ("pending", "rejected"):
                finished = entry._replace(state="ignored")
                self.count(reached(finished, entry.state))

    def _delete(self, entries: t.Iterable[Entry]) -> None:
        for entry in sorted(entries):  # in one order, so that two do not deadlock
            self.execute(f"DELETE FROM {self._event} WHERE id = :id", {"id": entry.id})


def _is_done(entry: Entry, before: int) -> bool:
    """Whether nothing is to come of an entry, and nothing has come since a moment."""
    is_done = entry.due is None and entry.state in _DONE
    return is_done and (entry.settled or entry.recorded) < before
