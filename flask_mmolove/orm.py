"""A site's objects of SQLAlchemy, whichever session they belong to."""

from __future__ import annotations

import contextlib
import sys
import typing as t

from werkzeug.local import LocalProxy

from .errors import IdentityError
from .log import logger


@contextlib.contextmanager
def readable(player: t.Any) -> t.Iterator[None]:
    """Let a player's primary key be read in here without a query: after a commit the
    session may be closed, or the database gone.

    :raises IdentityError: In place of SQLAlchemy's error for what else was not loaded.
    """
    _remember_key(player)
    try:
        yield
    except Exception as e:
        if not _is_detached(e):
            raise
        name = type(_unwrap(player)).__name__
        raise IdentityError(
            f"The database session of this {name} is closed, and only its primary key "
            "can still be read. Call registered(player) or qualify(player) before the "
            "session is closed, pass the id itself, or make the session with "
            "expire_on_commit=False."
        ) from e


def check_complete(player: t.Any, identity: str) -> None:
    """Refuse a text made of a primary key that is not there yet, such as "None".

    :raises IdentityError: If so.
    """
    state = _state(player)
    if "None" not in identity or state is None or state.identity is not None:
        return
    if None in state.mapper.primary_key_from_instance(state.obj()):
        raise IdentityError(
            f"The identity of a new {state.class_.__name__} is {identity!r}, for it "
            "has no primary key yet. It has one after commit(), or flush(): report the "
            "player after that."
        )


def is_in_session(player: t.Any) -> bool:
    """Whether a player is an object that a database session has, flushed or not."""
    state = _state(player)
    return bool(state and (state.pending or state.persistent))


def is_undone(player: t.Any) -> bool:
    """Whether a session that had a player was rolled back, or has deleted the row."""
    state = _state(player)
    return bool(state and (state.transient or state.was_deleted))


def is_uncommitted(player: t.Any) -> bool:
    """Whether a player is a row that was rolled back, or may still be."""
    state = _state(player)
    if state is None:
        return False
    if state.transient or state.pending:
        return True
    transaction = state.session and state.session.get_transaction()
    return transaction is not None and state in transaction._new


def kept_token(player: t.Any) -> t.Any:
    """What ``player.mmref`` holds, where a site keeps tokens; None without it."""
    try:
        return getattr(player, "mmref", None)
    except Exception as e:
        if not _is_detached(e):
            raise
        logger.warning(
            "The token in %s.mmref could not be read, because the object's database "
            "session is closed: call registered(player) or qualify(player) before "
            "that, or make the session with expire_on_commit=False.",
            type(_unwrap(player)).__name__,
        )
        return None


def _remember_key(player: t.Any) -> None:
    """Restore the expired primary key, which SQLAlchemy keeps as the identity."""
    state = _state(player)
    if state is None or state.identity is None:
        return
    for column, value in zip(state.mapper.primary_key, state.identity, strict=True):
        key = state.mapper.get_property_by_column(column).key
        if key in state.expired_attributes:
            set_value = sys.modules["sqlalchemy.orm.attributes"].set_committed_value
            set_value(state.obj(), key, value)


def _state(player: t.Any) -> t.Any:
    """What SQLAlchemy knows of an object of its own; None of others."""
    orm = sys.modules.get("sqlalchemy.orm")
    state = getattr(_unwrap(player), "_sa_instance_state", None)
    return state if orm and isinstance(state, orm.InstanceState) else None


def _unwrap(player: t.Any) -> t.Any:
    if isinstance(player, LocalProxy):
        return player._get_current_object()
    return player


def _is_detached(error: Exception) -> bool:
    return type(error).__name__ == "DetachedInstanceError"
