"""The outbox's tables in a SQL database, and what is done with them in a transaction.

Rows are taken by compare-and-set, which every database does alike and which needs no
lock while nobody else wants the same row. What must not change between two statements
is locked, always the host first and then events, so that two processes seldom wait for
one another in a circle; where they do, the database ends one of them, and it begins
anew.
"""

from __future__ import annotations

import itertools
import typing as t

from sqlalchemy import BigInteger
from sqlalchemy import bindparam
from sqlalchemy import Boolean
from sqlalchemy import Column
from sqlalchemy import ColumnElement
from sqlalchemy import Connection
from sqlalchemy import delete
from sqlalchemy import func
from sqlalchemy import Index
from sqlalchemy import insert
from sqlalchemy import inspect
from sqlalchemy import Integer
from sqlalchemy import LargeBinary
from sqlalchemy import MetaData
from sqlalchemy import Select
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy import Table
from sqlalchemy import Text
from sqlalchemy import text
from sqlalchemy import UniqueConstraint
from sqlalchemy import update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from ..errors import EventError
from ..wire import Event
from ..wire import TOKEN_LIMIT
from .entry import Entry
from .entry import Invitation
from .entry import Settlement
from .entry import State
from .entry import Summary
from .host import Host
from .journal import count
from .journal import Dialect
from .journal import Values
from .rules import absolved
from .rules import begin
from .rules import drawn
from .rules import HOLD
from .rules import hold
from .rules import HORIZON
from .rules import new_entry
from .rules import refused
from .rules import REFUTED
from .rules import separate
from .rules import settled
from .rules import soonest
from .tally import Mark
from .tally import reached

#: The longest identity and server id: with four bytes a character, a key of MariaDB
#: holds no more.
TEXT_LIMIT = 255

_ONCE = "mmolove_event_once"

# MariaDB knows it too, but would pass over what is wrong with a row besides.
_UNLESS_THERE: dict[str, t.Any] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
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

    event: Table
    held: Table
    fact: Table
    tally: Table
    referrer: Table


def tables(metadata: MetaData) -> Tables:
    """Define the outbox's tables, so that they stand beside a site's own and its
    migrations see them. If they are defined already, they are given as they are.
    """
    event = Table(
        "mmolove_event",
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("identity", String(TEXT_LIMIT), nullable=False),
        Column("event", String(16), nullable=False),
        Column("test", Boolean, nullable=False),
        Column("token", String(TOKEN_LIMIT), nullable=False),
        Column("server_id", String(TEXT_LIMIT), nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("state", String(16), nullable=False),
        Column("due", BigInteger),
        Column("claim", String(32)),
        Column("attempts", Integer, nullable=False),
        Column("crashes", Integer, nullable=False),
        Column("recorded", BigInteger, nullable=False),
        Column("begun", BigInteger, nullable=False),
        Column("settled", BigInteger),
        Column("status", Integer),
        Column("answer", Text),
        Column("referral_id", String(500)),
        Column("referrer", String(TEXT_LIMIT)),
        Column("history", Text),
        UniqueConstraint("identity", "event", "test", name=_ONCE),
        Index("mmolove_event_due", "state", "due", "id"),
        Index("mmolove_event_state", "state", "id"),
        Index("mmolove_event_referrer", "referrer"),
        keep_existing=True,
        **_OPTIONS,
    )
    held = Table(
        "mmolove_held",
        metadata,
        Column("name", String(64), primary_key=True),
        Column("token", String(TOKEN_LIMIT), nullable=False),
        Column("referrer", String(TEXT_LIMIT)),
        Column("expires", BigInteger, nullable=False),
        Index("mmolove_held_expires", "expires"),
        keep_existing=True,
        **_OPTIONS,
    )
    fact = Table(
        "mmolove_fact",
        metadata,
        Column("name", String(64), primary_key=True),
        Column("value", Text, nullable=False),
        keep_existing=True,
        **_OPTIONS,
    )
    tally = Table(
        "mmolove_tally",
        metadata,
        Column("day", BigInteger, primary_key=True, autoincrement=False),
        Column("step", String(16), primary_key=True),
        Column("count", BigInteger, nullable=False),
        keep_existing=True,
        **_OPTIONS,
    )
    referrer = Table(
        "mmolove_referrer",
        metadata,
        Column("player", String(TEXT_LIMIT), primary_key=True),
        Column("step", String(16), primary_key=True),
        Column("count", BigInteger, nullable=False),
        Index("mmolove_referrer_best", "step", "count"),
        keep_existing=True,
        **_OPTIONS,
    )
    return Tables(event, held, fact, tally, referrer)


class Transaction:
    """The outbox within one open transaction.

    What it can meet of others' doing is an error of the database, after which the
    whole transaction is to be done anew.
    """

    def __init__(self, db: Connection, tables: Tables) -> None:
        self._db = db
        self._tables = tables
        self._event = tables.event
        self._e = tables.event.c

    def create(self) -> bool:
        names = {table.name for table in self._tables}
        missing = names - {*inspect(self._db).get_table_names()}
        metadata = self._event.metadata
        metadata.create_all(self._db, tables=list(self._tables))
        # MariaDB commits after each statement: one may have died between table and
        # index.
        for table in self._tables:
            for index in table.indexes:
                index.create(self._db, checkfirst=True)
        return bool(missing)

    def add(
        self,
        identity: str,
        events: t.Sequence[Event],
        now: int,
        *,
        referrer: str | None = None,
    ) -> list[Entry]:
        new = []
        for event in events:
            _check_texts(identity, event)
            start = self._start(identity, event.event, event.test, now)
            entry = new_entry(identity, event, start, now, referrer)
            id = self._insert(entry)
            if id is not None:
                new.append(entry._replace(id=id))
        return new

    def hold(self, key: str, invitation: Invitation, now: int) -> None:
        held = self._tables.held
        self._db.execute(delete(held).where(held.c.expires <= now))
        values = {**invitation._asdict(), "expires": now + HOLD}
        change = update(held).where(held.c.name == key).values(values)
        if not self._db.execute(change).rowcount:
            self._db.execute(insert(held).values(name=key, **values))

    def held(self, key: str, now: int) -> Invitation | None:
        held = self._tables.held
        query = select(held.c.token, held.c.referrer)
        row = self._db.execute(
            query.where(held.c.name == key, held.c.expires > now)
        ).one_or_none()
        return None if row is None else Invitation._make(row)

    def let_go(self, key: str) -> None:
        held = self._tables.held
        self._db.execute(delete(held).where(held.c.name == key))

    def of(self, identity: str, test: bool) -> dict[str, Entry]:
        query = self._select().where(self._e.identity == identity, self._e.test == test)
        return {entry.event: entry for entry in self._entries(query)}

    def claim(
        self,
        state: State,
        now: int,
        lease: int,
        limit: int,
        ids: t.Collection[int] | None = None,
    ) -> list[Entry]:
        host = self.host()
        if state == "pending":
            if host.open_since is not None or host.width is not None:
                # There is room for few: one process after another looks and takes.
                host = self._lock_host()
            limit = host.room(now, lambda: self._in_flight(now), limit)
        taken: list[Entry] = []
        while not taken:
            batch = separate(self._due(state, now, limit, ids))
            if not batch:
                return []
            taken = self._take(batch, hold(batch, now, lease, host.uptime(now)))
        if state == "pending":
            self._remember(host.probing(now, lease), host)
        return taken

    def settle(
        self,
        settlements: t.Sequence[Settlement],
        now: int,
        learn: t.Callable[[Host], Host],
        *,
        counts: bool = True,
    ) -> list[Entry]:
        before, after = self._learn(learn)
        changed = [
            settlement
            for settlement in sorted(settlements, key=lambda each: each.entry.id)
            if self._settle(settlement, now)
        ]
        ids = [settlement.entry.id for settlement in changed]
        entries = self._read(ids)
        self._follow(entries, now)
        if (before.open_since is None) != (after.open_since is None):
            if after.open_since is not None:
                # The settings turned out to be at fault, not the events.
                for entry in absolved(self.find(["rejected"], -1), after):
                    self._redrive(entry, now, entry.attempts)
            else:
                self._hasten(now)
            entries = self._read(ids)
        if counts:
            self.count(changed, entries)
        return entries

    def release(self, entries: t.Sequence[Entry]) -> None:
        if entries:
            self._db.execute(
                update(self._event)
                .where(self._e.id == bindparam("of"), self._e.claim == bindparam("by"))
                .values(
                    due=self._e.recorded, claim=None, attempts=self._e.attempts - 1
                ),
                [{"of": entry.id, "by": entry.claim} for entry in entries],
            )

    def next_due(self, now: int) -> int | None:
        pending, accepted = (
            self._db.scalar(
                select(func.min(self._e.due)).where(
                    self._e.state == state, self._e.due > 0
                )
            )
            for state in ("pending", "accepted")
        )
        return soonest(pending, accepted, self.host(), now)

    def adopt(self, fingerprint: str, server_id: str, now: int) -> int:
        host = self._lock_host()  # one process after another
        known = self.fact("settings")
        self._set_fact("settings", fingerprint)
        if known in (None, fingerprint):
            return 0
        again = [
            entry
            for entry in refused(self.find(["rejected"], -1))
            if self._redrive(entry, now)
        ]
        self._hasten(now)
        self._readdress(server_id)
        self._remember(Host(down=now - host.uptime(now)), None)
        return len(again)

    def retry(self, now: int, ids: t.Collection[int] | None) -> list[Entry]:
        return self._read(
            [
                entry.id
                for entry in self.find(["rejected"], -1)
                if (ids is None or entry.id in ids) and self._redrive(entry, now)
            ]
        )

    def find(self, states: t.Collection[State], limit: int) -> list[Entry]:
        query = self._select().where(self._e.state.in_(states))
        query = query.order_by(self._e.id.desc())
        return self._entries(query if limit < 0 else query.limit(limit))

    def decide(self, id: int, state: State, now: int) -> Entry | None:
        changed = self._update(
            (self._e.id == id, self._e.state.in_(("unknown", "unpaid"))),
            state=state,
            due=now if state == "accepted" else None,
            settled=now,
            attempts=0,
            crashes=0,
        )
        if not changed:
            return None
        (decided,) = self._read([id])
        self._count(reached(decided, was="unknown"))
        return decided

    def host(self) -> Host:
        return Host.from_json(self.fact("host"))

    def summary(self) -> Summary:
        e = self._e
        pending = e.state == "pending"
        rows = self._db.execute(select(e.state, func.count()).group_by(e.state)).all()
        waiting = self._db.scalar(select(func.count()).where(pending, e.due.is_(None)))
        oldest = self._db.scalar(
            select(e.recorded).where(pending).order_by(e.id).limit(1)
        )
        counts = {state: n for state, n in rows}
        return Summary(counts, waiting or 0, oldest, self.host())

    def execute(self, sql: str, values: Values | list[Values]) -> list[t.Any]:
        """The rows of a statement in the SQL that all databases understand."""
        result = self._db.execute(text(sql), values)
        return list(result.all()) if result.returns_rows else []

    def fact(self, name: str, *, lock: bool = False) -> str | None:
        fact = self._tables.fact
        query = select(fact.c.value).where(fact.c.name == name)
        return self._db.scalar(query.with_for_update() if lock else query)

    def count(
        self, settlements: t.Iterable[Settlement], entries: t.Iterable[Entry]
    ) -> None:
        """Count what was settled. All who count wait for one another, to the end of
        their transactions.

        :param entries: What came of it.
        """
        was = (settlement.entry.state for settlement in settlements)
        self._count(itertools.chain(*map(reached, entries, was)))

    def _count(self, marks: t.Iterable[Mark]) -> None:
        count(self.execute, marks, dialect_of(self._db.dialect.name))

    def _set_fact(self, name: str, value: str) -> None:
        fact = self._tables.fact
        change = update(fact).where(fact.c.name == name).values(value=value)
        if not self._db.execute(change).rowcount:
            self._db.execute(insert(fact).values(name=name, value=value))

    def _lock_host(self) -> Host:
        """What is known of the host; nobody else changes it until the end of this."""
        text = self.fact("host", lock=True)
        if text is None:
            # There must be a row to lock. If another process makes it at this moment,
            # that is an error, and not to be written over.
            text = Host().to_json()
            self._db.execute(insert(self._tables.fact).values(name="host", value=text))
        return Host.from_json(text)

    def _learn(self, learn: t.Callable[[Host], Host]) -> tuple[Host, Host]:
        """What was known of the host, and what is from now on. As long as all is well
        nothing changes, and nobody waits for a lock.
        """
        before = self.host()
        after = learn(before)
        if after != before:
            found = self._lock_host()
            if found != before:
                before, after = found, learn(found)
            self._remember(after, before)
        return before, after

    def _remember(self, host: Host, before: Host | None) -> None:
        if host != before:
            self._set_fact("host", host.to_json())

    def _start(
        self, identity: str, name: str, test: bool, now: int
    ) -> tuple[State, int | None]:
        """What an event begins as: a ``qualified`` goes by its ``registered``, which
        is locked, for it must not be settled before this ``qualified`` is to be seen.
        """
        if name == "registered":
            return begin(name, None, now)
        registered = self._db.scalar(
            select(self._e.state)
            .where(
                self._e.identity == identity,
                self._e.event == "registered",
                self._e.test == test,
            )
            .with_for_update()
        )
        return begin(name, registered, now)

    def _insert(self, entry: Entry) -> int | None:
        """The id of a new row; None if the event stands already."""
        values = entry._asdict()
        del values["id"]
        dialect = self._db.dialect
        if dialect.name in _UNLESS_THERE and dialect.insert_returning:
            statement = _UNLESS_THERE[dialect.name](self._event)
            statement = statement.on_conflict_do_nothing().returning(self._e.id)
            return t.cast("int | None", self._db.scalar(statement, values))
        try:
            with self._db.begin_nested():
                result = self._db.execute(insert(self._event), values)
        except IntegrityError as e:
            # SQLite tells the columns, the others the name.
            words = str(e.orig)
            if _ONCE in words or f"{self._event.name}.identity" in words:
                return None
            raise
        return int(result.inserted_primary_key[0])  # type: ignore[index]

    def _in_flight(self, now: int) -> int:
        return (
            self._db.scalar(
                select(func.count()).where(
                    self._e.state == "pending",
                    self._e.due > now,
                    self._e.claim.is_not(None),
                )
            )
            or 0
        )

    def _due(
        self, state: State, now: int, limit: int, ids: t.Collection[int] | None
    ) -> list[Entry]:
        found: list[Entry] = []
        for condition in (self._e.due <= now, self._e.due > now + HORIZON):
            if len(found) < limit:
                query = self._select().where(self._e.state == state, condition)
                if ids is not None:
                    query = query.where(self._e.id.in_(ids))
                query = query.order_by(self._e.due, self._e.id)
                found += self._entries(query.limit(limit - len(found)))
        return found

    def _take(self, seen: list[Entry], held: list[Entry]) -> list[Entry]:
        """Claim those entries that nobody has claimed since they were seen."""
        e = self._e
        self._db.execute(
            update(self._event)
            .where(
                e.id == bindparam("of"),
                e.attempts == bindparam("seen_attempts"),
                e.state == bindparam("seen_state"),
                e.due == bindparam("seen_due"),
            )
            .values(
                due=bindparam("held_due"),
                claim=bindparam("held_claim"),
                attempts=bindparam("held_attempts"),
                crashes=bindparam("held_crashes"),
                begun=bindparam("held_begun"),
            ),
            [
                {
                    "of": was.id,
                    "seen_attempts": was.attempts,
                    "seen_state": was.state,
                    "seen_due": was.due,
                    "held_due": now.due,
                    "held_claim": now.claim,
                    "held_attempts": now.attempts,
                    "held_crashes": now.crashes,
                    "held_begun": now.begun,
                }
                # In one order, so that two that want the same do not deadlock.
                for was, now in sorted(zip(seen, held, strict=True))
            ],
        )
        # As it is now: it may have been addressed anew since it was seen.
        taken = self._read([entry.id for entry in held])
        mine = {entry.id: entry for entry in taken if entry.claim == held[0].claim}
        return [mine[entry.id] for entry in held if entry.id in mine]

    def _settle(self, settlement: Settlement, now: int) -> bool:
        entry = settlement.entry
        found: ColumnElement[bool]
        if settlement.sure:
            found = self._e.state.in_((entry.state, REFUTED[entry.state]))
        else:
            found = (self._e.state == entry.state) & (self._e.claim == entry.claim)
        values = settled(settlement, now)
        if values["referral_id"] is None:
            del values["referral_id"]
        return self._update((self._e.id == entry.id, found), **values)

    def _follow(self, changed: list[Entry], now: int) -> None:
        """Let each ``registered`` draw its ``qualified`` along."""
        for (state, due, test), players in drawn(changed, now).items():
            waiting = (
                self._e.identity.in_(players),
                self._e.event == "qualified",
                self._e.test == test,
                self._e.state == "pending",
                self._e.due.is_(None),
            )
            self._update(waiting, state=state, due=due)

    def _redrive(self, entry: Entry, now: int, attempts: int = 0) -> bool:
        """Send a rejected entry again. False if it is not rejected any more."""
        state, due = self._start(entry.identity, entry.event, entry.test, now)
        return self._update(
            (self._e.id == entry.id, self._e.state == "rejected"),
            state=state,
            due=due,
            attempts=attempts,
            crashes=0,
        )

    def _hasten(self, now: int) -> None:
        """The host is well again: what failed meanwhile need not wait any longer."""
        self._update(
            (
                self._e.state == "pending",
                self._e.due > now,
                self._e.claim.is_(None),
            ),
            due=now,
        )

    def _readdress(self, server_id: str) -> None:
        """The id of the server stands inside the bytes, so they are made anew."""
        query = self._select().where(
            self._e.state == "pending", self._e.server_id != server_id
        )
        for entry in self._entries(query):
            event = entry.addressed_to(server_id)
            self._update(
                (self._e.id == entry.id,), server_id=server_id, body=event.encode()
            )

    def _update(self, where: t.Iterable[t.Any], **values: t.Any) -> bool:
        change = update(self._event).where(*where).values(values)
        return self._db.execute(change).rowcount > 0

    def _select(self) -> Select[t.Any]:
        return select(*(self._e[name] for name in Entry._fields))

    def _entries(self, query: Select[t.Any]) -> list[Entry]:
        return [Entry._make(row) for row in self._db.execute(query)]

    def _read(self, ids: list[int]) -> list[Entry]:
        """Entries in the order of the ids."""
        if not ids:
            return []
        query = self._select().where(self._e.id.in_(ids))
        found = {entry.id: entry for entry in self._entries(query)}
        return [found[id] for id in ids]


def dialect_of(name: str) -> Dialect:
    """How a database, by its SQLAlchemy name, says what is said differently."""
    if name in ("mysql", "mariadb"):
        return Dialect(
            "mmolove_",
            # It would read all newer rows of the state before those that are wanted.
            by_state="FORCE INDEX (mmolove_event_state)",
            or_add="ON DUPLICATE KEY UPDATE count = {table}.count + VALUES(count)",
        )
    return Dialect("mmolove_")


def _check_texts(identity: str, event: Event) -> None:
    """Refuse what a database would cut off or choke on, and what could then never be
    recorded.
    """
    for name, value, limit in (
        ("referee_identity", identity, TEXT_LIMIT),
        ("token", event.token, TOKEN_LIMIT),
        ("server_id", event.server_id, TEXT_LIMIT),
    ):
        if len(value) > limit or "\0" in value:
            raise EventError(
                f"{name!r} is longer than {limit} characters or holds a NUL.", name
            )
