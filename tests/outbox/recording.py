"""Events in an outbox, without a site."""

from __future__ import annotations

from flask_mmolove.outbox import Entry
from flask_mmolove.outbox import Note
from flask_mmolove.outbox import Outbox

SERVER_ID = "srv"


def add(
    outbox: Outbox,
    identity: str = "7",
    *names: str,
    token: str | None = None,
    now: int = 1000,
    server_id: str = SERVER_ID,
    test: bool = False,
    referrer: str | None = None,
    timeout: float | None = None,
) -> list[Entry]:
    """Record what happened to a player at one moment, a signup unless named."""
    token = f"tok-{identity}" if token is None else token
    note = Note(identity, token, names or ("registered",), test, now, referrer)
    return outbox.record(note, server_id, timeout)
