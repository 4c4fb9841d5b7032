"""What a database's errors mean."""

from __future__ import annotations

import typing as t

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ...errors import OutboxError

# Another transaction was in the way: a deadlock, a lock, a serialization failure. After
# a deadlock MariaDB has forgotten the savepoint too (1305); one over the next id has a
# number of its own (1467). SQLite has words only.
_CONFLICT = {"40P01", "55P03", "40001", "1213", "1205", "1020", "1305", "1467"}
_CONFLICT_SQLITE = ("is locked",)

# The same, or someone made the same table or fact first.
_IN_THE_WAY = _CONFLICT | {"23505", "42P07", "42701", "1062", "1050", "1060", "1061"}
_IN_THE_WAY_SQLITE = (
    *_CONFLICT_SQLITE,
    "already exists",
    "duplicate column name",
    "UNIQUE constraint failed",
)

# A table is not there, or a column that a later version has brought.
_NO_TABLE = {"42P01", "1146", "42703", "1054"}
_NO_TABLE_SQLITE = ("no such table", "no such column", "has no column named")

_NO_SCHEMA = {"3F000", "1049"}
_NO_SCHEMA_SQLITE = ("unknown database",)


class NoTables(OutboxError):
    """The outbox's tables, or columns of them, are not there."""


def is_busy(error: SQLAlchemyError) -> bool:
    """Whether others kept the database busy."""
    if isinstance(error, PoolTimeout):
        return True
    return _says(error, _IN_THE_WAY, _IN_THE_WAY_SQLITE)


def has_no_table(error: SQLAlchemyError) -> bool:
    """Whether a table of ours, or a column, is missing."""
    return _says(error, _NO_TABLE, _NO_TABLE_SQLITE)


def has_no_schema(error: SQLAlchemyError) -> bool:
    """Whether the tables' schema does not exist."""
    return _says(error, _NO_SCHEMA, _NO_SCHEMA_SQLITE)


def is_conflict(error: SQLAlchemyError) -> bool:
    """Whether a transaction failed for another's sake, and may do better next time."""
    return _says(error, _CONFLICT, _CONFLICT_SQLITE)


def _codes(error: SQLAlchemyError) -> set[str]:
    """What the driver says: an SQLSTATE, MariaDB's number, or words."""
    orig = getattr(error, "orig", None)
    said = [getattr(orig, name, None) for name in ("sqlstate", "pgcode")]
    said += getattr(orig, "args", ())[:1]
    return {str(each) for each in said if each is not None}


def _says(error: SQLAlchemyError, codes: set[str], words: t.Iterable[str]) -> bool:
    said = _codes(error)
    return bool(said & codes) or any(each in text for each in words for text in said)
