"""The shape of a SQLite file, and whose file it is."""

from __future__ import annotations

import re
import sqlite3
import typing as t
from pathlib import Path

from ...errors import OutboxError
from ..owner import make_file
from .damage import DamagedError

# Elsewhere in the header than ``user_version``: if the two differ, the file is damaged.
_MARK = 0x4D4D4C00

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


class Schema:
    """What an outbox's file is like.

    :param migrations: Scripts that each bring it one version further.
    :param signs: Bytes of which one stands near the beginning of each such file.
    """

    def __init__(self, migrations: t.Sequence[str], signs: t.Sequence[bytes]) -> None:
        self._migrations = migrations
        self._signs = signs
        # Those of the first version are in every later one.
        self._tables = {*re.findall(r"CREATE TABLE (\w+)", migrations[0])}

    def is_current(self, read: t.Callable[[str], list[t.Any]]) -> bool:
        """Whether nothing is to be done.

        :param read: Gives a statement's rows.
        """
        newest = len(self._migrations)
        found = read("PRAGMA user_version") + read("PRAGMA application_id")
        return found == [(newest,), (_MARK + newest,)]

    def migrate(self, connection: sqlite3.Connection, path: Path) -> None:
        """Bring a file up to date, in a transaction that keeps others away.

        :raises OutboxError: If it is a newer one, or something else.
        :raises DamagedError: If it is damaged.
        """
        version = self._version(connection, path)
        newest = len(self._migrations)
        if version > newest:
            raise OutboxError(
                f"The outbox {path} was made by a newer Flask-MMOLove (schema "
                f"{version}, this one knows {newest}): update the package, or set "
                "MMOLOVE_OUTBOX to another file."
            )
        make_file(lock_file(path))
        for script in self._migrations[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={newest}")
        connection.execute(f"PRAGMA application_id={_MARK + newest}")

    def was_ours(self, path: Path) -> bool:
        """Whether an unreadable file was an outbox, by its content or its lock file."""
        if lock_file(path).exists():
            return True
        with path.open("rb") as file:
            beginning = file.read(1 << 20)
        return any(sign in beginning for sign in self._signs)

    def _version(self, connection: sqlite3.Connection, path: Path) -> int:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((mark,),) = connection.execute("PRAGMA application_id").fetchall()
        if version and mark == _MARK + version:
            return int(version)
        tables = {name for (name,) in connection.execute(_TABLES)}
        if tables >= self._tables:
            raise DamagedError("its version is unreadable")
        if tables:
            raise foreign(path)
        return 0


def foreign(path: Path) -> OutboxError:
    """The error for a file that was named by mistake: it is never touched."""
    return OutboxError(
        f"{path} is a file of something else. The outbox wants one of its own: set "
        "MMOLOVE_OUTBOX to another."
    )


def lock_file(path: Path) -> Path:
    """A file beside each outbox, locked to move a damaged one aside."""
    return path.with_name(f"{path.name}-lock")
