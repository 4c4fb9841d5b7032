"""Which rows a request inserts and commits, in whatever session of SQLAlchemy.

A row counts once its session commits, and never before: so there is nothing to look for
afterwards, and no connection but the site's own is used.
"""

from __future__ import annotations

import typing as t

from flask import has_request_context
from flask import request
from sqlalchemy import event
from sqlalchemy import inspect
from sqlalchemy.orm import object_session
from sqlalchemy.orm import Session
from sqlalchemy.orm import SessionTransaction

from ..log import shielded

if t.TYPE_CHECKING:
    from .signup import Signup

# The watches of a request, in its environ; and what they saw, in a session's ``info``.
_WATCHES = "flask_mmolove.watches"
_SEEN = "mmolove.inserted"

_FAILED = "A signup could not be reported to MMOLove."


class Watch:
    """Follows a model's rows for as long as a request lasts. The first commit that has
    any decides: one row is the new player, several are nobody.

    :param model: The mapped class.
    """

    def __init__(self, model: type[t.Any]) -> None:
        self._model = model
        #: The signup that hears of the row.
        self.listener: Signup | None = None
        #: The row that was inserted and committed.
        self.row: t.Any = None
        #: How many rows were inserted, committed or not.
        self.inserted = 0
        #: How many the deciding commit had.
        self.committed = 0

    def begin(self) -> None:
        """Watch this request from now on."""
        request.environ.setdefault(_WATCHES, []).append(self)

    def see(self, session: Session, row: t.Any) -> None:
        """A row was inserted."""
        if isinstance(row, self._model):
            self.inserted += 1
            session.info.setdefault(_SEEN, {}).setdefault(self, []).append(row)

    def before_commit(self, session: Session, rows: list[t.Any]) -> None:
        """A session is about to commit."""
        if self._joins(session) and not self.committed and len(rows) == 1:
            self._hand_over(rows[0])

    def after_commit(self, session: Session, rows: list[t.Any]) -> None:
        """The session has committed."""
        if self.committed:
            return
        self.committed = len(rows)
        if len(rows) == 1:
            self.row = rows[0]
            if not self._joins(session):
                self._hand_over(self.row)

    def after_end(self, session: Session) -> None:
        """The session's transaction is over, and its connection free again."""
        if self.row is not None and self.listener and not self._joins(session):
            self.listener.record_row()

    def _joins(self, session: Session) -> bool:
        return self.listener is not None and self.listener.joins(session)

    def _hand_over(self, row: t.Any) -> None:
        if self.listener is not None:
            self.listener.hand_over_row(row)


def listen(model: type[t.Any]) -> None:
    """Let a model's rows be watched. Twice is no more than once."""
    # Also those of its subclasses, and of a class that is mapped later.
    event.listen(model, "after_insert", _after_insert, propagate=True)
    if not event.contains(Session, "before_commit", _before_commit):
        # First, for the outbox writes what it was handed by then.
        event.listen(Session, "before_commit", _before_commit, insert=True)
        event.listen(Session, "after_commit", _after_commit)
        event.listen(Session, "after_transaction_end", _after_transaction_end)


def _watches() -> list[Watch]:
    return request.environ.get(_WATCHES, []) if has_request_context() else []


def _seen(session: Session) -> list[tuple[Watch, list[t.Any]]]:
    """The rows of each watch that a session's transaction still has."""
    seen: dict[Watch, list[t.Any]] = session.info.get(_SEEN, {})
    standing = {
        watch: {id(row): row for row in rows if _stands(row)}
        for watch, rows in seen.items()
    }
    return [(watch, [*rows.values()]) for watch, rows in standing.items() if rows]


def _stands(row: t.Any) -> bool:
    """Whether a row was neither rolled back, perhaps to a savepoint, nor deleted."""
    state = inspect(row)
    return bool(state.has_identity and not state.was_deleted)


def _after_insert(mapper: object, connection: object, row: t.Any) -> None:
    with shielded(_FAILED):
        session = object_session(row)
        if session is not None:
            for watch in _watches():
                watch.see(session, row)


def _before_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    if _watches():
        session.flush()  # what fails in here would fail in the commit itself
    with shielded(_FAILED):
        for watch, rows in _seen(session):
            watch.before_commit(session, rows)


def _after_commit(session: Session) -> None:
    if not session.in_nested_transaction():
        with shielded(_FAILED):
            for watch, rows in _seen(session):
                watch.after_commit(session, rows)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        with shielded(_FAILED):
            for watch in session.info.pop(_SEEN, ()):
                watch.after_end(session)
