"""What the site registers: ``@mmolove.reward``, ``.milestone`` and others."""

from __future__ import annotations

import typing as t

from .identity import identify
from .log import logger
from .orm import check_complete
from .orm import readable


class Callbacks:
    """The functions that the site registered, the same for all apps of an extension."""

    def __init__(self) -> None:
        self.reward: t.Callable[..., t.Any] | None = None
        #: The names of earlier reward callbacks: a site has one.
        self.replaced: list[str] = []
        self.at_most_once = False
        self.milestone: t.Callable[..., t.Iterable[t.Any]] | None = None
        self.identity: t.Callable[[t.Any], t.Any] | None = None
        self.consent: t.Callable[[], t.Any] | None = None

    def set_reward(self, callback: t.Callable[..., t.Any]) -> None:
        """Take a reward callback. A factory that makes several apps registers the same
        one for each.
        """
        known, self.reward = self.reward, callback
        if known is None or name_of(known) == name_of(callback):
            return
        self.replaced.append(name_of(known))
        logger.warning(
            "%s is the reward callback now, and %s is not called any more: a site has "
            "one. Call both from one function.",
            name_of(callback),
            name_of(known),
        )

    def identify(self, player: t.Any) -> str:
        """See :func:`flask_mmolove.identity.identify`."""
        with readable(player):
            identity = identify(player, self.identity)
        check_complete(player, identity)
        return identity


def name_of(function: t.Callable[..., t.Any]) -> str:
    """How a person finds a function of the site's."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"
