"""What one app has of this extension, in ``app.extensions["mmolove"]``."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from flask import current_app
from flask import Flask
from flask import has_request_context

from . import signals
from .delivery import Delivery
from .delivery import Engine
from .errors import MMOLoveError
from .identity import identify
from .outbox import Entry
from .outbox import Outbox
from .outbox.entry import make_event
from .settings import Settings

#: Seconds a request may wait for the outbox, and a script.
PATIENCE_REQUEST = 2.0
PATIENCE_SCRIPT = 30.0

if t.TYPE_CHECKING:
    from blinker import NamedSignal

F = t.TypeVar("F", bound=t.Callable[..., t.Any])


@dataclass
class Callbacks:
    """What the site said with ``@mmolove.reward``, ``.identity`` and ``.consent``."""

    reward: t.Callable[..., t.Any] | None = None
    at_most_once: bool = False
    identity: t.Callable[[t.Any], t.Any] | None = None
    consent: t.Callable[[], t.Any] | None = None


@dataclass(frozen=True)
class State:
    """One app's part: its settings, its outbox and what turns its delivery.

    :param deliveries: Makes a delivery for the calling process.
    """

    app: Flask
    settings: Settings
    callbacks: Callbacks
    outbox: Outbox
    deliveries: t.Callable[[], Delivery]
    engine: Engine

    def identify(self, player: t.Any) -> str:
        """See :func:`flask_mmolove.identity.identify`."""
        return identify(player, self.callbacks.identity)

    def record(self, identity: str, token: str, *names: str) -> None:
        """Put a player's events into the outbox, and have them delivered.

        :raises OutboxError: If the outbox cannot take them.
        """
        now = time.time()
        events = [
            make_event(
                name,
                identity,
                token,
                self.settings.server_id,
                int(now),
                self.settings.test,
            )
            for name in names
        ]
        patience = PATIENCE_REQUEST if has_request_context() else PATIENCE_SCRIPT
        for entry in self.outbox.add(identity, events, int(now * 1000), patience):
            self.notify(signals.event_recorded, entry=entry)
        self.engine.wake()

    def notify(self, signal: NamedSignal, **arguments: t.Any) -> None:
        """Send a signal in the app's name."""
        signals.notify(signal, self.app, **arguments)

    def report(self, entry: Entry) -> None:
        """Tell of an entry whose state changed."""
        signal = _SIGNALS.get(entry.state)
        if signal is not None:
            self.notify(signal, entry=entry)


_SIGNALS = {
    "accepted": signals.event_accepted,
    "ignored": signals.event_ignored,
    "rejected": signals.event_rejected,
}


def current_state() -> State:
    """The state of the current app.

    :raises MMOLoveError: If the app has none.
    """
    try:
        return t.cast(State, current_app.extensions["mmolove"])
    except KeyError:
        raise MMOLoveError(
            "The current Flask app has no MMOLove. Did you forget "
            "mmolove.init_app(app), or did you create several Flask apps?"
        ) from None
