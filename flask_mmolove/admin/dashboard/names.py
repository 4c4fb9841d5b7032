"""Players by name, where the site says what they are called."""

from __future__ import annotations

import typing as t

from flask import current_app

from ...log import shielded

#: Takes the ids of some players, and gives the names of those that have one.
PlayerName = t.Callable[[list[str]], t.Mapping[t.Any, t.Any]]


class Names:
    """Asks the site for names.

    :param ask: The site's callback, if it has one.
    """

    def __init__(self, ask: PlayerName | None) -> None:
        self._ask = ask

    def __call__(self, ids: t.Iterable[str | None]) -> dict[str, str]:
        """The names of all players of a page, by id. If the callback fails, that is
        logged, and there are none.
        """
        wanted = list(dict.fromkeys(filter(None, ids)))
        if self._ask is not None and wanted:
            with shielded("The dashboard's player_name failed, so ids are shown."):
                found = current_app.ensure_sync(self._ask)(wanted)
                # A site's ids are numbers more often than texts.
                return {str(id): str(name) for id, name in found.items() if name}
        return {}
