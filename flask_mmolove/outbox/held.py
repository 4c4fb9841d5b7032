"""Tokens that are held for an account that is made later."""

from __future__ import annotations

from .invitation import Invitation
from .rows import Rows
from .rules import HELD_FOR


class Held(Rows):
    """Holds invitations under a key."""

    def hold(self, key: str, invitation: Invitation, now: int) -> None:
        """Keep an invitation for an account that is made later, for as long as its
        token is valid. The first stays: who learns the key must not replace it.

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
        sql = f"DELETE FROM {self._dialect.held} WHERE name = :name"
        self.execute(sql, {"name": key})
