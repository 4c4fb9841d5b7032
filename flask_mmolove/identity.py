"""Who a player is to MMOLove: an id that never changes."""

from __future__ import annotations

import numbers
import operator
import typing as t
from enum import Enum

from .errors import IdentityError
from .protocol.wire import is_trimmed
from .protocol.wire import TEXT_LIMIT

_CURE = (
    'Pass the account\'s id itself, as in registered(player["id"]), or say with '
    "@mmolove.identity what it is."
)


def identify(player: t.Any, rule: t.Callable[[t.Any], t.Any] | None = None) -> str:
    """A player's stable identity: what the site's rule says, or else ``player.id``,
    ``player.get_id()``, or the id itself.

    :param player: The site's own object for an account, or its id: a text, a number, a
        UUID, or what else a database uses as a primary key.
    :param rule: The site's ``@mmolove.identity``.
    :raises IdentityError: If there is none, or none yet.
    """
    if hasattr(player, "_get_current_object"):
        player = player._get_current_object()
    if isinstance(player, type):
        raise IdentityError(f"{player.__name__} is a class, not a player. {_CURE}")
    name = type(player).__name__
    if rule is not None:
        return _as_text(rule(player), f"What @mmolove.identity returns for a {name}")
    if player is None or _is_scalar(player):
        return _as_text(player, "A player")
    if hasattr(player, "id"):
        return _as_text(player.id, f"The id of a {name}")
    if callable(getattr(player, "get_id", None)):
        return _as_text(player.get_id(), f"get_id() of a {name}")
    if _is_value(player):
        return _as_text(player, "A player")
    raise IdentityError(
        f"A {name} is no id and has neither an id nor a get_id(). {_CURE}"
    )


def _as_text(value: t.Any, subject: str) -> str:
    """An id as the outbox and MMOLove have it: equal ids give the same text.

    :param subject: What it is, for the error.
    :raises IdentityError: If it is not a lasting id.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        problem = (
            "is None. A new account has its id after db.session.commit(), or flush(): "
            "report the player after that"
        )
    elif (text := _plain_text(value)) is None:
        problem = f"is {value!r}, which is not a lasting id"
    elif not text.strip():
        problem = "is empty"
    elif not is_trimmed(text):
        problem = (
            f"has white space around it: {text!r}. MMOLove cuts that off, so that two "
            "accounts could be one player there. Pass an id without it, such as the "
            "number of the account's row"
        )
    elif len(text) > TEXT_LIMIT or "\0" in text:
        problem = f"is longer than {TEXT_LIMIT} characters or contains a NUL"
    elif text != text.encode(errors="ignore").decode():
        problem = "is not valid text"
    else:
        return text
    raise IdentityError(f"{subject} {problem}. {_CURE}")


def _plain_text(value: t.Any) -> str | None:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return None
    if hasattr(value, "__index__") or isinstance(value, numbers.Number):
        return _whole(value)
    if isinstance(value, (bytes, bytearray, memoryview)) or callable(value):
        return None
    kind: t.Any = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        # Its text is but its address in memory.
        return _whole(value) if hasattr(value, "__int__") else None
    return str(value)


def _whole(number: t.Any) -> str | None:
    """The text of a whole number; None of others, and of floats, which round."""
    if isinstance(number, numbers.Complex) and not isinstance(number, numbers.Rational):
        return None
    try:
        if hasattr(number, "__index__"):
            return str(operator.index(number))
        whole = int(number)
    except (TypeError, ValueError, OverflowError):  # numpy's booleans; NaN; infinity
        return None
    is_number = isinstance(number, numbers.Number)
    return None if is_number and whole != number else str(whole)


def _is_scalar(player: object) -> bool:
    is_scalar = isinstance(player, (str, numbers.Number, Enum))
    return is_scalar or hasattr(player, "__index__")


def _is_value(player: object) -> bool:
    """Whether an object is a value such as a UUID: it is a number too, or is equal to
    others like it and has a text of its own. An account's text may be a name, which
    changes.
    """
    kind = type(player)
    if hasattr(player, "_sa_instance_state"):
        return False
    compares = kind.__eq__ is not object.__eq__ and kind.__hash__ is not None
    has_text = kind.__str__ is not object.__str__
    return hasattr(kind, "__int__") or (compares and has_text)
