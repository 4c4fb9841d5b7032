"""What earlier versions have stored, as text."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

#: The second schema of the SQLite file: an outbox with entries in all states, the spool
#: beside it, and the sandbox that had their events. The events are of this moment.
SCHEMA_2 = Path(__file__).with_name("schema-2")
NOW = 1_790_000_000_000
SERVER_ID = "srv-1"
SECRET = "the secret of the tests"


def restore_file(name: str, path: Path) -> None:
    """Make the SQLite file of a dump."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((SCHEMA_2 / name).read_text())


def restore_spool(outbox: Path) -> None:
    """Put the spooled reports beside an outbox."""
    folder = outbox.with_name(f"{outbox.name}.spool")
    folder.mkdir(0o700)
    for file in (SCHEMA_2 / "spool").iterdir():
        shutil.copyfile(file, folder / file.name)


#: The states in it by player and event, as they are called now.
STATES = {
    ("new", "registered"): "pending",
    ("new", "qualified"): "pending",
    ("second", "registered"): "ignored",
    ("second", "qualified"): "ignored",
    ("tester", "registered"): "pending",
    ("retried", "registered"): "pending",
    ("accepted", "registered"): "accepted",
    ("accepted", "qualified"): "pending",
    ("credited", "registered"): "accepted",
    ("credited", "qualified"): "accepted",
    ("conflict", "registered"): "ignored",
    ("conflict", "qualified"): "ignored",
    ("junk", "registered"): "rejected",
    ("rewarded", "registered"): "accepted",
    ("rewarded", "qualified"): "rewarded",
    ("crashed", "registered"): "accepted",
    ("crashed", "qualified"): "reward_unconfirmed",
    ("raised", "registered"): "accepted",
    ("raised", "qualified"): "reward_unconfirmed",
    ("failed", "registered"): "accepted",
    ("failed", "qualified"): "reward_failed",
    ("no callback", "registered"): "accepted",
    ("no callback", "qualified"): "reward_failed",
    ("claimed", "registered"): "pending",
}
