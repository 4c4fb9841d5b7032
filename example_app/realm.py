"""What the site reads and writes in the game's database."""

from __future__ import annotations

import typing as t

from sqlalchemy import bindparam
from sqlalchemy import text

from .models import db


class Character(t.NamedTuple):
    """A player as the game knows them."""

    level: int
    bag: list[str]


def log_in(account: int) -> None:
    """Let a player into the game, which makes a character for one who is new.

    :raises OperationalError: If the game's database is away, as in the others.
    """
    _write("INSERT OR IGNORE INTO logins VALUES (:account)", account=str(account))


def character(account: int) -> Character | None:
    """A player's character; None until the game has let the player in."""
    found = _read(
        "SELECT level FROM characters WHERE account = :account"
        " AND account NOT IN (SELECT account FROM logins)",
        account=str(account),
    )
    if not found:
        return None
    bag = _read("SELECT item FROM bags WHERE account = :account", account=str(account))
    return Character(found[0].level, [row.item for row in bag])


def levels_of(accounts: t.Iterable[str]) -> dict[str, int]:
    """The levels of those accounts that have a character."""
    rows = _read(
        "SELECT account, level FROM characters WHERE account IN :accounts",
        accounts=list(accounts),
    )
    return {row.account: row.level for row in rows}


def those_at(level: int, accounts: t.Iterable[str]) -> list[str]:
    """Those accounts whose character has reached a level."""
    rows = _read(
        "SELECT account FROM characters WHERE level >= :level AND account IN :accounts",
        level=level,
        accounts=list(accounts),
    )
    return [row.account for row in rows]


def add_reward(key: str, account: str, item: str) -> None:
    """Have the game give an item at the player's next login; once for each key."""
    _write(
        "INSERT OR IGNORE INTO pending_rewards (reward_key, account, item)"
        " VALUES (:key, :account, :item)",
        key=key,
        account=account,
        item=item,
    )


def forget(account: int) -> None:
    """Delete a player's character and all that belongs to it."""
    for table in ("characters", "bags", "logins", "pending_rewards"):
        _write(f"DELETE FROM {table} WHERE account = :account", account=str(account))


def _read(sql: str, **values: t.Any) -> t.Sequence[t.Any]:
    lists = [name for name, value in values.items() if isinstance(value, list)]
    query = text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))
    with db.engines["game"].connect() as game:
        return game.execute(query, values).all()


def _write(sql: str, **values: t.Any) -> None:
    with db.engines["game"].begin() as game:
        game.execute(text(sql), values)
