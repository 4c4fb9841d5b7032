"""A statement that undoes itself if it fails, in one round trip to PostgreSQL.

There a statement that fails spoils the whole transaction, so it needs a savepoint, and
a limit on the wait for locks stays until it is set back. The pipeline of psycopg sends
all of it at once.
"""

from __future__ import annotations

import contextlib
import typing as t

from sqlalchemy import Connection
from sqlalchemy import event
from sqlalchemy.engine import ExecutionContext

#: The option of a statement that is sent so: milliseconds to wait for a lock.
LIMIT = "mmolove_limit"

BEGIN = "SAVEPOINT mmolove"
RELEASE = "RELEASE SAVEPOINT mmolove"
UNDO = f"ROLLBACK TO {BEGIN}; {RELEASE}"

# The site's own limit is kept in a setting of ours. UNDO restores both.
SET_LIMIT = (
    "SELECT set_config('mmolove.site', current_setting('lock_timeout'), true),"
    " set_config('lock_timeout', '{}', true)"
)
RESET_LIMIT = "SELECT set_config('lock_timeout', current_setting('mmolove.site'), true)"


def is_possible(connection: Connection) -> bool:
    """Whether statements of a connection that have the option are sent so."""
    dialect: t.Any = connection.dialect
    pipeline = getattr(dialect.dbapi, "Pipeline", None)
    if pipeline is None or not pipeline.is_supported():
        return False
    if not event.contains(dialect, "do_execute", _execute):
        event.listen(dialect, "do_execute", _execute)
    return True


def _execute(
    cursor: t.Any, statement: str, values: t.Any, context: ExecutionContext
) -> bool:
    limit = context.execution_options.get(LIMIT)
    if limit is None:
        return False  # SQLAlchemy sends it
    driver = cursor.connection
    try:
        with driver.pipeline(), driver.cursor() as other:
            other.execute(BEGIN)
            other.execute(SET_LIMIT.format(limit))
            cursor.execute(statement, values)
            other.execute(RESET_LIMIT)
            other.execute(RELEASE)
    except BaseException:
        with contextlib.suppress(Exception):  # the connection may be lost
            driver.execute(UNDO)
        raise
    return True
