"""Uses an outbox in a process without threads and, at once, in children it forks."""

from __future__ import annotations

import os
import sys

from sqlalchemy import create_engine

from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox

EVENTS = 20


def add(outbox: SQLAlchemyOutbox, name: str) -> None:
    for number in range(EVENTS):
        identity = f"{name}-{number}"
        note = Report(identity, identity, ["registered"], False, 1000)
        assert len(outbox.record(note, "srv")) == 1


def main(url: str, how: str) -> None:
    outbox = SQLAlchemyOutbox(create_engine(url) if how == "engine" else url)
    outbox.create()
    children = []
    for number in range(2):
        child = os.fork()
        if not child:
            try:
                add(outbox, f"{how}-{number}")
                outbox.close()
            except BaseException as e:
                os.write(2, repr(e).encode())
                os._exit(1)
            os._exit(0)
        children.append(child)
    add(outbox, f"{how}-parent")
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    # The parent's connection has outlived its children.
    assert outbox.inspector.summary().counts["pending"] >= 3 * EVENTS
    outbox.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
