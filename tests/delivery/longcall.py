"""Pays what is due in an outbox, with a callback that ends when it is told to.

It says on its output what happens, a word a line, and is answered by a line each time
it asks whether to go on.
"""

from __future__ import annotations

import random
import sys
import time
import typing as t
from pathlib import Path

from flask_mmolove.delivery.grant import Granter
from flask_mmolove.delivery.grant import Promise
from flask_mmolove.delivery.lease import Leases
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.store import Outbox


def say(word: str) -> None:
    # In one piece, for a thread that renews the lease speaks too.
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def ask(word: str) -> None:
    say(word)
    sys.stdin.readline()


class Telling(Leases):
    def renew(self) -> bool:
        renewed = super().renew()
        say("renewed" if renewed else "failed")
        return renewed


class Slow:
    def __init__(self, promise: Promise) -> None:
        self.promise: Promise = promise

    def prepare(self, entry: Entry) -> t.Callable[[], None]:
        ask("claimed")
        return lambda: ask("called")


def open_outbox(where: str) -> Outbox:
    return SQLAlchemyOutbox(where) if "://" in where else SQLiteOutbox(Path(where))


def main(where: str, promise: Promise, lease: int, now: int) -> None:
    """
    :param now: The time, which then stands still; 0 for the machine's.
    """
    outbox = open_outbox(where)

    def clock() -> int:
        return now or int(time.time() * 1000)

    granter = Granter(
        outbox,
        lambda: Slow(promise),
        lambda entry: say(entry.state),
        clock,
        random.uniform,
        Telling(outbox, clock, lease),
        7 * 86_400,
    )
    granter.grant()
    outbox.close()
    say("done")


if __name__ == "__main__":
    main(sys.argv[1], t.cast(Promise, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
