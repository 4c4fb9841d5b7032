"""The game: a program of its own with a database of its own, as games are.

It knows nothing of the web site, of Flask or of MMOLove. Every character gains levels,
whether its player is logged in or not, and what waits for a player goes into the bag at
the next login.

.. code-block:: sh

    python example_app/game.py instance/game.db

It ends with its input, or on Ctrl+C.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

TOP_LEVEL = 60

SCHEMA = """
CREATE TABLE IF NOT EXISTS characters (
    account TEXT PRIMARY KEY,
    level INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS bags (
    account TEXT NOT NULL,
    item TEXT NOT NULL
);
-- Whoever comes in through the web site's door.
CREATE TABLE IF NOT EXISTS logins (
    account TEXT PRIMARY KEY
);
-- What others want a player to be given. Each key is given once.
CREATE TABLE IF NOT EXISTS pending_rewards (
    reward_key TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    item TEXT NOT NULL,
    given_at TEXT
);
"""


class Game:
    """The world, which is a SQLite file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(SCHEMA)

    def tick(self) -> None:
        """Let every character gain a level, and everybody who logged in enter."""
        with self._open() as db:
            db.execute(
                "UPDATE characters SET level = level + 1 WHERE level < ?", (TOP_LEVEL,)
            )
            for (account,) in db.execute("SELECT account FROM logins").fetchall():
                self._enter(db, account)

    def _enter(self, db: sqlite3.Connection, account: str) -> None:
        db.execute("INSERT OR IGNORE INTO characters (account) VALUES (?)", (account,))
        # In one transaction: what is in the bag does not wait any more.
        db.execute(
            "INSERT INTO bags SELECT account, item FROM pending_rewards"
            " WHERE account = ? AND given_at IS NULL",
            (account,),
        )
        db.execute(
            "UPDATE pending_rewards SET given_at = datetime() WHERE account = ?"
            " AND given_at IS NULL",
            (account,),
        )
        db.execute("DELETE FROM logins WHERE account = ?", (account,))

    @contextlib.contextmanager
    def _open(self) -> t.Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path)) as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db


def run(path: Path, seconds: float) -> None:
    """Run the game until the input ends."""
    game, end = Game(path), threading.Event()

    def live() -> None:
        while not end.wait(seconds):
            game.tick()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    finally:
        end.set()
        thread.join()


@contextlib.contextmanager
def playing(folder: Path, level: float) -> t.Iterator[None]:
    """Have the game run in a process of its own, with its file in a folder.

    :param level: Seconds that a level takes.
    """
    path = folder / "game.db"
    Game(path)  # its tables are there before the site looks for them
    command = (sys.executable, __file__, path, "--level", str(level))
    # Its input ends with this process, however that ends; Ctrl+C is not for it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description="The game of Lanternmoor.")
    parser.add_argument("path", type=Path, help="the file of the game's database")
    parser.add_argument(
        "--level", type=float, default=1, metavar="SECONDS", help="time a level takes"
    )
    options = parser.parse_args()
    run(options.path, options.level)


if __name__ == "__main__":
    main()
