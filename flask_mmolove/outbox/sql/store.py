"""The outbox in PostgreSQL, MariaDB, MySQL, or in SQLite beside a site's own tables."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import typing as t

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import StatementError
from sqlalchemy.pool import StaticPool

from ...errors import OutboxBusy
from ...errors import OutboxError
from ...text import is_secret
from ...text import mask
from ...text import mask_values
from ..statements import Transaction
from ..store import Outbox
from . import engines
from . import errors
from . import locks
from .savepoint import Savepoint
from .savepoint import savepoint
from .tables import Place
from .tables import SQLAlchemyTransaction
from .tables import tables

R = t.TypeVar("R")
T = t.TypeVar("T")

# Times that a connection that was lost, or tables that are missing, are made again.
_MENDS = 3

# The fact that no row has a state that an earlier version knew by another name.
_RENAMED = "states renamed"

_MIGRATE = (
    "The site has Flask-Migrate, so its migrations make the outbox's tables: run "
    "'flask db migrate' and 'flask db upgrade', also after an update of Flask-MMOLove. "
    "If the migrations are not yours to change, run 'flask mmolove init-db --yes' "
    "instead."
)


class SQLAlchemyOutbox(Outbox):
    """An :class:`~flask_mmolove.outbox.store.Outbox` in a SQL database.

    :param engine_or_url: Where it is. Connections are made as an engine's are, but they
        are our own: who holds one of a pool and waits for another could wait for ever.
    :param metadata: Where the tables are to be defined; see :func:`tables`.
    :param creates: Says whether tables that are not there are made at the first use;
        if not, the site's migrations make them.
    :param key: The setting that names the database.
    :param shared: Gives a connection to do everything on, in savepoints; or None.
    :raises ConfigError: If no such database can be used.
    """

    def __init__(
        self,
        engine_or_url: sa.Engine | sa.URL | str,
        metadata: sa.MetaData | None = None,
        *,
        creates: t.Callable[[], bool] = lambda: True,
        key: str = "MMOLOVE_OUTBOX",
        shared: t.Callable[[], sa.Connection | None] = lambda: None,
    ) -> None:
        self._shared = shared
        if isinstance(engine_or_url, sa.Engine):
            self._given: sa.Engine | None = engine_or_url
            self._url = engines.check_url(engine_or_url.url, key)
        else:
            self._given = None
            self._url = engines.check_file(engines.check_url(engine_or_url, key), key)
        self._key = key
        self._is_mysql = self._url.get_backend_name() in {"mysql", "mariadb"}
        self._creates = creates
        self.tables = tables(sa.MetaData() if metadata is None else metadata)
        self._place = Place(self.tables, self._schemas())
        super().__init__(self._place.dialect(self._url.get_dialect()()))
        self._engines: dict[int, sa.Engine] = {}
        # A missing driver is told now, not at a signup. What the site has to say of its
        # own engine's connections may be said later.
        if self._given is None:
            self._engine()

    def __str__(self) -> str:
        shown = mask(self._url.render_as_string(hide_password=True))
        schema = self._place.schema
        return f"{shown}, schema {schema}" if schema else shown

    @property
    def is_in_memory(self) -> bool:
        """Whether it is a SQLite database that lives as long as one connection."""
        return self._given is not None and isinstance(self._given.pool, StaticPool)

    def within(self, connection: sa.Connection) -> SQLAlchemyTransaction:
        """The outbox as part of a transaction that someone else began and will end."""
        locks.begin_immediate(connection)
        return SQLAlchemyTransaction(connection, self._place)

    def ride(
        self,
        connection: sa.Connection,
        work: t.Callable[[Transaction], R],
        timeout: float,
        *,
        is_one_row: bool = False,
    ) -> R:
        """Do a piece of work as part of a transaction of someone else's, so that theirs
        stands whatever becomes of ours. Tables that are not there are made, as at every
        first use.

        :param timeout: Seconds for which it may wait for the locks of others.
        :param is_one_row: Whether the work writes no more than that.
        :raises OutboxError: If it failed.
        :raises SQLAlchemyError: If the whole transaction is lost, with its connection
            or as in a deadlock of MariaDB: then nothing of theirs stands either.
        """

        def attempt(work: t.Callable[[SQLAlchemyTransaction], T], one_row: bool) -> T:
            guard = savepoint(connection, timeout, one_row)
            place, options = self._place, guard.options
            transaction = SQLAlchemyTransaction(connection, place, prefix, options)
            return self._guarded(guard, lambda: work(transaction))

        with locks.limited(connection, timeout) as prefix:
            try:
                locks.begin_immediate(connection)
            except SQLAlchemyError as e:  # of a BEGIN: nothing of theirs is lost
                raise self.in_words(e) from self._cause(e)
            try:
                return attempt(work, is_one_row)
            except errors.NoTables:
                if not self._creates():
                    raise
            if connection.dialect.name == "sqlite":  # its one lock is taken
                attempt(SQLAlchemyTransaction.create, False)
            else:  # MariaDB would commit what is theirs
                self.run(SQLAlchemyTransaction.create, timeout)
            return attempt(work, is_one_row)

    def _guarded(self, guard: Savepoint, work: t.Callable[[], R]) -> R:
        guard.begin()
        try:
            result = work()
            guard.release()
        except BaseException as e:
            stands = guard.undo()
            if stands and isinstance(e, SQLAlchemyError):
                raise self.in_words(e) from self._cause(e)
            if isinstance(e, StatementError):
                # The site's commit raises it, and a log must not show the token.
                e.hide_parameters = True
            raise
        return result

    def create(self) -> bool:
        """Make the tables, columns and indexes that are missing."""
        return self.run(SQLAlchemyTransaction.create)

    def probe(self) -> None:
        super().probe()
        self.run(SQLAlchemyTransaction.probe)
        if not self._creates():
            self._widen()

    def upgrade(self) -> None:
        if self.run(lambda db: db.fact(_RENAMED), writes=False) is None:
            self._widen()
            self.run(SQLAlchemyTransaction.rename_states)
            self.run(SQLAlchemyTransaction.continue_numbers)
            self.run(lambda db: db.set_fact(_RENAMED, "yes"))
        super().upgrade()

    def _widen(self) -> None:
        """Make room for the longest state, or leave that to the site's migrations.

        :raises OutboxError: If it is theirs to do.
        """
        narrow = self.run(lambda db: db.narrow_columns(), writes=False)
        if not narrow:
            return
        if not self._creates():
            names = ", ".join(column.name for column in narrow)
            raise OutboxError(
                f"The outbox in {self} is of an earlier version: mmolove_event has "
                f"columns that are too short ({names}). {_MIGRATE}"
            )
        self.create()

    def close(self) -> None:
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None and engine is not self._given:
            engine.dispose()

    def run(
        self,
        work: t.Callable[[SQLAlchemyTransaction], R],
        timeout: float | None = None,
        *,
        writes: bool = True,
    ) -> R:
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        # A turn that is begun lasts, so the last one begins early.
        latest = deadline - (locks.TURN / 1000 if self._is_mysql else 0)
        for attempt in itertools.count(1):
            try:
                with self._transaction(deadline if writes else None) as transaction:
                    return work(transaction)
            except SQLAlchemyError as e:
                error = e
            is_late = time.monotonic() >= latest
            is_lost = getattr(error, "connection_invalidated", False)
            if errors.has_no_table(error) and attempt <= _MENDS and self._creates():
                self.run(SQLAlchemyTransaction.create, deadline - time.monotonic())
            elif is_lost and attempt <= _MENDS and not is_late:
                continue
            elif is_late or not errors.is_busy(error):
                # The driver's own error: SQLAlchemy's shows what was to be written.
                raise self.in_words(error) from self._cause(error)
            locks.pause(attempt)
        raise AssertionError

    @contextlib.contextmanager
    def _transaction(self, deadline: float | None) -> t.Iterator[SQLAlchemyTransaction]:
        """A transaction; one that writes has a deadline for the locks of others."""
        if shared := self._shared():
            transaction = self.within(shared)
            with shared.begin_nested():
                yield transaction
            return
        with self._engine().begin() as connection:
            if deadline is not None:
                locks.begin_writing(connection, deadline)
            yield SQLAlchemyTransaction(connection, self._place)

    def _schemas(self) -> t.Mapping[str | None, str | None]:
        options = self._given.get_execution_options() if self._given else {}
        return options.get("schema_translate_map") or {}

    def _engine(self) -> sa.Engine:
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            engine = self._engines.setdefault(pid, self._make_engine())
        return engine

    def _make_engine(self) -> sa.Engine:
        options: dict[str, t.Any] = {}
        if schemas := self._schemas():
            options["schema_translate_map"] = schemas
        if self._url.get_backend_name() in engines.SERVERS:
            options["isolation_level"] = engines.ISOLATION
        if self._given is None:
            engine = engines.make_engine(self._url, options)
        elif self.is_in_memory:
            return self._given
        else:
            pool = self._given.pool.recreate()
            engine = sa.create_engine(self._url, pool=pool, hide_parameters=True)
            engine = engine.execution_options(**options)
        sa.event.listen(engine, "connect", engines.settle_in)
        if self._is_mysql:
            sa.event.listen(engine, "connect", locks.wait_in_turns)
        return engine

    def in_words(self, error: SQLAlchemyError) -> OutboxError:
        """What failed in the database, and what to do."""
        if errors.is_busy(error):
            return OutboxBusy(f"The outbox in {self} was kept busy by others.")
        orig = getattr(error, "orig", None)
        cause = str(orig.args[-1] if orig and orig.args else type(error).__name__)
        cause = cause.strip().partition("\n")[0]  # PostgreSQL shows the statement too
        cause = self._masked(cause)
        if self._place.schema and errors.has_no_schema(error):
            cure = f"Make the schema {self._place.schema!r} first."
        elif errors.has_no_table(error) and self._creates():
            cure = (
                "Run 'flask mmolove init-db', or make what is missing with a migration."
            )
        elif errors.has_no_table(error):
            cure = _MIGRATE
        else:
            cure = (
                f"See that the server runs, that {self._key} names it, and that the "
                "user may make its tables mmolove_*, read and write them."
            )
        kind = errors.NoTables if errors.has_no_table(error) else OutboxError
        return kind(f"The outbox in {self} failed: {cause}. {cure}")

    def _cause(self, error: SQLAlchemyError) -> BaseException | None:
        """The driver's own error, for a traceback, unless it quotes a password."""
        orig: BaseException | None = getattr(error, "orig", None)
        return orig if self._masked(str(orig)) == str(orig) else None

    def _masked(self, text: str) -> str:
        query = self._url.normalized_query
        secrets = [each for name in query if is_secret(name) for each in query[name]]
        return mask_values(mask(text), [str(self._url.password or ""), *secrets])
