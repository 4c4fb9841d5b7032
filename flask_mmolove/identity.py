"""Who a player is to MMOLove: an id that never changes."""

from __future__ import annotations

import typing as t

from .errors import IdentityError
from .wire import is_trimmed
from .wire import TEXT_LIMIT

_CURE = (
    'Pass the account\'s id itself, as in registered(player["id"]), or say with '
    "@mmolove.identity what it is."
)


def identify(player: t.Any, rule: t.Callable[[t.Any], t.Any] | None = None) -> str:
    """A player's stable identity: what the site's rule says, or else ``player.id``, the
    text or number itself, or ``player.get_id()``.

    :param player: The site's own object for an account, or its id.
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
    if isinstance(player, (str, int)):
        return _as_text(player, "A player")
    if hasattr(player, "id"):
        return _as_text(player.id, f"The id of a {name}")
    if callable(getattr(player, "get_id", None)):
        return _as_text(player.get_id(), f"get_id() of a {name}")
    raise IdentityError(f"A {name} has neither an id nor a get_id(). {_CURE}")


def _as_text(value: t.Any, subject: str) -> str:
    if value is None:
        raise IdentityError(
            f"{subject} is None. A new account has its id after "
            "db.session.commit(), or flush(): report the player after that. " + _CURE
        )
    if isinstance(value, (bool, float, bytes)) or _is_anonymous(value):
        raise IdentityError(
            f"{subject} is {value!r}, which is not a lasting id. " + _CURE
        )
    text = str(value)
    if not text.strip():
        raise IdentityError(f"{subject} is empty. {_CURE}")
    if not is_trimmed(text):
        raise IdentityError(
            f"{subject} has white space around it: {text!r}. MMOLove cuts that off, so "
            "that two accounts could be one player there. Pass an id without it, such "
            f"as the number of the account's row. {_CURE}"
        )
    if len(text) > TEXT_LIMIT or "\0" in text:
        raise IdentityError(
            f"{subject} is longer than {TEXT_LIMIT} characters or contains a NUL. "
            + _CURE
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise IdentityError(f"{subject} is not valid text. {_CURE}") from None
    return text


def _is_anonymous(value: object) -> bool:
    """Whether the text of an object is but its address in memory."""
    kind = type(value)
    plain = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    return plain or callable(value)
