"""How damage of a SQLite file shows."""

from __future__ import annotations

import sqlite3
import time

#: Seconds for which a file is looked through.
CHECK = 0.5

# What SQLite says, in all the ways that a changed byte can show.
_SIGNS = (
    "malformed",
    "not a database",
    "could not decode",
    "unsupported file format",
    "no such table",
    "no such column",
    "already exists",
    "has no column",
)


class DamagedError(Exception):
    """Something was found in a file that SQLite itself does not complain of."""


def is_damage(error: Exception) -> bool:
    """Whether an error means that the file is damaged."""
    if isinstance(error, DamagedError):
        return True
    words = str(error).lower()
    # Python 3.10 says nothing where SQLite's message quotes bytes that are no text.
    return not words or any(sign in words for sign in _SIGNS)


def is_sound(connection: sqlite3.Connection) -> bool:
    """Whether SQLite finds nothing wrong in the time that it has."""
    deadline = time.monotonic() + CHECK
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        rows = connection.execute("PRAGMA integrity_check(1)").fetchall()
    except sqlite3.OperationalError as e:
        return "is locked" in str(e) or "interrupted" in str(e)
    except (sqlite3.Error, UnicodeDecodeError):
        return False
    finally:
        connection.set_progress_handler(None, 0)
    return rows == [("ok",)]


def in_words(error: Exception) -> str:
    """What an error says, without the text it quotes: that may be a token."""
    return str(error).partition(" with text ")[0]
