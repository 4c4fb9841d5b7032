"""Which account owns a token; see :mod:`~flask_mmolove.outbox.tokens`."""

from __future__ import annotations

import typing as t

from .entry import Entry
from .rows import BY_KEY
from .rows import Rows
from .rules import as_second
from .tokens import digest
from .tokens import digest_of

# Rows that are looked at in one transaction of an upgrade.
_BATCH = 500


class Ownership(Rows):
    """Gives each token to one account."""

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

    def _is_used(self, digest: str) -> bool:
        used = self._dialect.used
        sql = f"SELECT 1 FROM {used} WHERE digest = :digest"
        return bool(self.execute(sql, {"digest": digest}))

    def _right_to_token(self, entry: Entry) -> tuple[bool, int, int]:
        """The less, the more right."""
        milestone = self.of(entry.identity, entry.test).get("qualified")
        rewarded = ("rewarded", "reward_unconfirmed")
        is_rewarded = milestone and milestone.state in rewarded
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
            f" WHERE {BY_KEY}"
            " AND state IN ('pending', 'accepted', 'rejected', 'reward_failed')",
            {
                "identity": entry.identity,
                "event": "qualified",
                "test": entry.test,
                "state": second.state,
            },
        )
