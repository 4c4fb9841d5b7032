"""The outbox's tables in a SQL database, and a transaction in them."""

from __future__ import annotations

import functools
import typing as t

import sqlalchemy as sa
from sqlalchemy.engine import Dialect as DatabaseDialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import SchemaItem

from ...errors import EventError
from ...protocol.wire import TEXT_LIMIT
from ...protocol.wire import TOKEN_LIMIT
from ..dialect import Dialect
from ..entry import Entry
from ..rows import COLUMNS
from ..rows import Values
from ..statements import Transaction
from ..states import RENAMED

_ONCE = "mmolove_event_once"
_DIGEST = "mmolove_event_digest"

# MariaDB knows it too, but would pass over what is wrong with a row besides.
_KNOW_UNLESS_THERE = {"postgresql", "sqlite"}

_PREFIX = "mmolove_"

# By what SQLAlchemy calls a database.
_WAYS = {"postgresql": {"lock": " FOR UPDATE"}, "sqlite": {}}
_WAYS["mysql"] = _WAYS["mariadb"] = {
    "lock": " FOR UPDATE",
    "no_table": " FROM DUAL",
    # It would read all newer rows of the state before those that are wanted.
    "by_state": "FORCE INDEX (mmolove_event_state)",
    "or_add": "ON DUPLICATE KEY UPDATE count = {table}.count + VALUES(count)",
}

# A collation of MariaDB's choice would take "Ann" and "ann" for one player.
_OPTIONS: dict[str, t.Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}


class Tables(t.NamedTuple):
    """The outbox's tables."""

    event: sa.Table
    held: sa.Table
    fact: sa.Table
    tally: sa.Table
    referrer: sa.Table
    used: sa.Table


def tables(metadata: sa.MetaData) -> Tables:
    """Define the outbox's tables, so that they stand beside a site's own and its
    migrations see them. If they are defined already, they are given as they are.
    """

    def define(name: str, *parts: SchemaItem) -> sa.Table:
        return sa.Table(name, metadata, *parts, keep_existing=True, **_OPTIONS)

    event = define(
        "mmolove_event",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True
        ),
        sa.Column("identity", sa.String(TEXT_LIMIT), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("test", sa.Boolean, nullable=False),
        sa.Column("token", sa.String(TOKEN_LIMIT), nullable=False),
        sa.Column("server_id", sa.String(TEXT_LIMIT), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.Column("claim", sa.String(32)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("recorded", sa.BigInteger, nullable=False),
        sa.Column("begun", sa.BigInteger, nullable=False),
        sa.Column("settled", sa.BigInteger),
        sa.Column("status", sa.Integer),
        sa.Column("answer", sa.Text),
        sa.Column("referral_id", sa.String(500)),
        sa.Column("referrer", sa.String(TEXT_LIMIT)),
        sa.Column("history", sa.Text),
        sa.Column("digest", sa.String(32)),
        sa.Column("number", sa.Integer),
        sa.Column("took", sa.Integer),
        sa.UniqueConstraint("identity", "event", "test", name=_ONCE),
        sa.Index("mmolove_event_due", "state", "due", "id"),
        sa.Index("mmolove_event_state", "state", "id"),
        sa.Index("mmolove_event_referrer", "referrer"),
        sa.Index(_DIGEST, "digest", unique=True),
    )
    held = define(
        "mmolove_held",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("token", sa.String(TOKEN_LIMIT), nullable=False),
        sa.Column("referrer", sa.String(TEXT_LIMIT)),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Index("mmolove_held_expires", "expires"),
    )
    fact = define(
        "mmolove_fact",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    tally = define(
        "mmolove_tally",
        sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("step", sa.String(16), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    referrer = define(
        "mmolove_referrer",
        sa.Column("player", sa.String(TEXT_LIMIT), primary_key=True),
        sa.Column("step", sa.String(16), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Index("mmolove_referrer_best", "step", "count"),
    )
    used = define("mmolove_used", sa.Column("digest", sa.String(32), primary_key=True))
    return Tables(event, held, fact, tally, referrer, used)


class Place(t.NamedTuple):
    """Where the tables are.

    :param schemas: The ``schema_translate_map`` of the site's engine. Delivery goes by
        it, so that of a session does not count.
    """

    tables: Tables
    schemas: t.Mapping[str | None, str | None]

    @property
    def schema(self) -> str | None:
        """The tables' schema, where it is not the connection's own."""
        named = self.tables.event.schema
        return self.schemas.get(named, named)

    def dialect(self, database: DatabaseDialect) -> Dialect:
        """How a database names the tables, and what else is its own way."""
        prefix = _PREFIX
        if self.schema:
            schema = database.identifier_preparer.quote_schema(self.schema)
            prefix = f"{schema}.{prefix}"
        free = " FOR UPDATE SKIP LOCKED" if _skips_locked(database) else ""
        return Dialect(prefix, free=free, **_WAYS[database.name])


def _skips_locked(database: DatabaseDialect) -> bool:
    """Whether a SELECT can pass over rows that are locked, as far as is known."""
    if database.name not in {"mysql", "mariadb"}:
        return database.name == "postgresql"
    since = (10, 6) if getattr(database, "is_mariadb", False) else (8, 0, 1)
    return (database.server_version_info or (0,)) >= since


class SQLAlchemyTransaction(Transaction):
    """A transaction in a SQL database.

    :param prefix: What each statement begins with.
    :param options: SQLAlchemy's options for each.
    """

    def __init__(
        self,
        db: sa.Connection,
        place: Place,
        prefix: str = "",
        options: t.Mapping[str, t.Any] | None = None,
    ) -> None:
        super().__init__(place.dialect(db.dialect))
        self._db = db
        self._prefix = prefix
        self._options = options or {}
        self._place = place
        self._tables = place.tables

    def create(self) -> bool:
        """Create the tables, columns and indexes that are missing, and widen columns
        that are too short. Returns whether any table or column was.
        """
        there, schema = sa.inspect(self._db), self._place.schema
        missing = {
            table.name
            for table in self._tables
            if not there.has_table(table.name, schema=schema)
        }
        metadata = self._tables.event.metadata
        metadata.create_all(self._db, tables=list(self._tables))
        missing |= self._add_columns() | self._widen_columns()
        # MariaDB commits each statement: one may have died between table and index.
        for table in self._tables:
            for index in table.indexes:
                index.create(self._db, checkfirst=True)
        return bool(missing)

    def _add_columns(self) -> set[str]:
        """Add those that a later version brought: all may be NULL."""
        event = self._tables.event
        columns = sa.inspect(self._db).get_columns(event.name, self._place.schema)
        there = {column["name"] for column in columns}
        missing = [column for column in event.c if column.name not in there]
        for column in missing:
            kind = column.type.compile(self._db.dialect)
            sql = f"ALTER TABLE {self._event} ADD COLUMN {column.name} {kind}"
            self._db.exec_driver_sql(sql)
        return {column.name for column in missing}

    def narrow_columns(self) -> list[sa.Column[t.Any]]:
        """The columns that were made by an earlier version, and are too short now."""
        if self._db.dialect.name == "sqlite":  # it does not look at a length
            return []
        event = self._tables.event
        found = sa.inspect(self._db).get_columns(event.name, self._place.schema)
        # None where any length fits.
        lengths = {c["name"]: getattr(c["type"], "length", None) for c in found}
        return [
            column
            for column in event.c
            if isinstance(column.type, sa.String)
            and (length := lengths.get(column.name)) is not None
            and length < (column.type.length or 0)
        ]

    def _widen_columns(self) -> set[str]:
        narrow = self.narrow_columns()
        for column in narrow:
            kind = column.type.compile(self._db.dialect)
            change = f"ALTER COLUMN {column.name} TYPE {kind}"
            if self._db.dialect.name != "postgresql":
                null = "NULL" if column.nullable else "NOT NULL"
                change = f"MODIFY COLUMN {column.name} {kind} {null}"
            self._db.exec_driver_sql(f"ALTER TABLE {self._event} {change}")
        return {column.name for column in narrow}

    def rename_states(self) -> None:
        """Bring states up to date that earlier versions knew by other names."""
        for old, new in RENAMED.items():
            self.execute(
                f"UPDATE {self._event} SET state = :new WHERE state = :old",
                {"old": old, "new": new},
            )

    def probe(self) -> None:
        """Fail if a table or a column is missing."""
        options = {"schema_translate_map": self._place.schemas}
        for table in self._tables:
            self._db.execute(sa.select(table).limit(0), execution_options=options)

    def execute(self, sql: str, values: Values | list[Values]) -> list[t.Any]:
        result = self._run(self._text(sql), values)
        return list(result.all()) if result.returns_rows else []

    def change(self, sql: str, values: Values) -> int:
        return self._run(self._text(sql), values).rowcount

    def _text(self, sql: str) -> sa.TextClause:
        return _text(self._prefix + sql)

    def _run(
        self, statement: sa.Executable, values: Values | list[Values]
    ) -> sa.CursorResult[t.Any]:
        return self._db.execute(statement, values, execution_options=self._options)

    def entries(self, where: str, values: Values, hint: str = "") -> list[Entry]:
        columns = (self._tables.event.c[name] for name in Entry._fields)
        sql = f"SELECT {COLUMNS} FROM {self._event} {hint} WHERE {where}"
        rows = self._run(self._text(sql).columns(*columns), values)
        return [Entry._make(row) for row in rows]

    def _insert(self, entry: Entry) -> int | None:
        _check_texts(entry)
        event = self._tables.event
        values = entry._asdict()
        del values["id"]
        sql = self.insertion(values)
        values["used"] = entry.digest
        dialect = self._db.dialect
        if dialect.name in _KNOW_UNLESS_THERE and dialect.insert_returning:
            statement = self._text(f"{sql} ON CONFLICT DO NOTHING RETURNING id")
            return t.cast("int | None", self._run(statement, values).scalar())
        try:
            result = self._run(self._text(sql), values)
        except IntegrityError as e:
            # SQLite tells the columns, the others the name.
            words = str(e.orig)
            signs = _ONCE, _DIGEST, f"{event.name}.identity", f"{event.name}.digest"
            if any(sign in words for sign in signs):
                return None
            raise
        return result.lastrowid if result.rowcount else None


@functools.lru_cache(256)
def _text(sql: str) -> sa.TextClause:
    # To look through it for its parameters takes as long as a short statement.
    return sa.text(sql)


def _check_texts(entry: Entry) -> None:
    """Refuse what a database would cut off or choke on."""
    for name, value, limit in (
        ("referee_identity", entry.identity, TEXT_LIMIT),
        ("token", entry.token, TOKEN_LIMIT),
        ("server_id", entry.server_id, TEXT_LIMIT),
    ):
        if len(value) > limit or "\0" in value:
            raise EventError(
                f"{name!r} is longer than {limit} characters or holds a NUL.", name
            )
