"""Which databases can keep an outbox, and how connections to them are made."""

from __future__ import annotations

import sqlite3
import sys
import typing as t

import sqlalchemy as sa
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.exc import SQLAlchemyError

from ...errors import ConfigError

# Under these an UPDATE and a locking read see what others committed meanwhile. SQLite
# knows one writer at a time, and needs none.
ISOLATION = "READ COMMITTED"
SERVERS = {"postgresql", "mysql", "mariadb"}

# A machine that acknowledges nothing, not even a probe, is gone. How long a statement
# may last is another matter, and not limited.
_LIBPQ = {
    "connect_timeout": 2,
    "tcp_user_timeout": 1500,  # milliseconds
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}

# These drivers can limit no more than the wait for an answer. No statement of ours
# takes nearly that long, for locks are waited for in turns.
_MYSQL_CONNECT = {"connect_timeout": 1, "read_timeout": 5, "write_timeout": 5}

# Seconds for connections whose arguments are ours to choose, by driver.
_CONNECT: dict[str, dict[str, t.Any]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "pymysql": _MYSQL_CONNECT,
    "mysqldb": _MYSQL_CONNECT,
    "pysqlite": {"timeout": 0.1},
}


def check_url(url: sa.URL | str, key: str) -> sa.URL:
    try:
        url = sa.make_url(url)
        dialect = url.get_dialect()
    except NoSuchModuleError as e:
        raise _wrong(key, f"names what SQLAlchemy does not know: {e}") from None
    except (SQLAlchemyError, ValueError):
        # Its words may show the password.
        raise _wrong(key, "is no URL of a database") from None
    if url.get_backend_name() not in {*SERVERS, "sqlite"}:
        raise _wrong(key, f"cannot be {url.get_backend_name()!r}")
    if dialect.is_async:
        raise _wrong(key, f"names a driver for asyncio, {url.get_driver_name()!r}")
    return url


def check_file(url: sa.URL, key: str) -> sa.URL:
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise _wrong(key, "names no file: an outbox in memory would forget")
    return url


def _wrong(key: str, what: str) -> ConfigError:
    return ConfigError(
        f"{key} {what}. The outbox can be in a PostgreSQL, MariaDB, MySQL or SQLite "
        "database, such as 'postgresql+psycopg://user:password@host/database'.",
        key,
    )


def make_engine(url: sa.URL, options: dict[str, t.Any]) -> sa.Engine:
    try:
        return sa.create_engine(
            url,
            connect_args=_connect_args(url),
            hide_parameters=True,
            # Firewalls forget connections that are idle for long.
            pool_recycle=300,
            pool_timeout=1,
            **options,
        )
    except ImportError as e:
        raise ConfigError(
            f"MMOLOVE_OUTBOX needs a driver that is not installed: {e}. Install it, or "
            "name another one in the URL.",
            "MMOLOVE_OUTBOX",
        ) from e


def _connect_args(url: sa.URL) -> dict[str, t.Any]:
    driver = url.get_driver_name()
    args = {k: v for k, v in _CONNECT.get(driver, {}).items() if k not in url.query}
    if "tcp_user_timeout" in args:
        dbapi: t.Any = url.get_dialect().import_dbapi()
        libpq = (
            dbapi.pq.version if driver == "psycopg" else dbapi.extensions.libpq_version
        )
        if libpq() < 120000:  # refuses what it does not know
            del args["tcp_user_timeout"]
    return args


def settle_in(connection: t.Any, record: object) -> None:
    """Have a connection as we need it, whatever the site's engine makes of its own."""
    if hasattr(connection, "prepare_threshold"):
        # PgBouncer gives each transaction another server's connection, which does not
        # have the statements that psycopg prepared.
        connection.prepare_threshold = None
    if sys.version_info >= (3, 12) and isinstance(connection, sqlite3.Connection):
        connection.autocommit = sqlite3.LEGACY_TRANSACTION_CONTROL
