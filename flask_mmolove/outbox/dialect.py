"""What SQL databases do differently, in the statements of an outbox."""

from __future__ import annotations


class Dialect:
    """What a store has to say in its own way.

    :param prefix: What the names of its tables begin with.
    :param lock: The end of a SELECT that locks its rows until the transaction ends.
    :param free: The same, passing over those that another transaction has locked, if
        it can.
    :param by_state: What has the database use the index of states, if needed.
    :param or_add: The end of an INSERT that adds to the count of a row that is there.
        To look for the row first would fail where another one makes it meanwhile.
    :param no_table: What follows the values of a SELECT from no table.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        lock: str = "",
        free: str = "",
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
        self.free = free
        self.no_table = no_table
        self.by_state = by_state
        self.or_add = or_add
