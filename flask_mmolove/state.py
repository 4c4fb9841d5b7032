"""What one app has of this extension, in ``app.extensions["mmolove"]``."""

from __future__ import annotations

import typing as t

from flask import current_app
from flask import Flask

from . import signals
from .errors import MMOLoveError
from .log import Throttle

if t.TYPE_CHECKING:
    from blinker import NamedSignal

    from .callbacks import Callbacks
    from .delivery.engine import Asker
    from .delivery.engine import Engine
    from .delivery.step import Delivery
    from .delivery.watchdog import Watchdog
    from .outbox.inspector import Inspector
    from .outbox.spool import Spool
    from .outbox.sql.session import SessionOutbox
    from .outbox.store import Outbox
    from .recording.recorder import Recorder
    from .recording.views import SignupViews
    from .settings import Settings


class State:
    """One app's part.

    :ivar session: The outbox in the site's own session, where it has one.
    :ivar make_delivery: Makes a delivery for the calling process.
    :ivar asker: Asks the site which friends have reached the milestone.
    :ivar looked: For tokens of which it is known for a minute whether they are used.
    :ivar views: What its signup views answered.
    :ivar once: For warnings that are given once.
    """

    asker: Asker

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        callbacks: Callbacks,
        outbox: Outbox,
        session: SessionOutbox | None,
        spool: Spool,
        make_delivery: t.Callable[[], Delivery],
        engine: Engine,
        watchdog: Watchdog,
        recorder: Recorder,
        looked: Throttle,
        views: SignupViews,
    ) -> None:
        self.app = app
        self.settings = settings
        self.callbacks = callbacks
        self.outbox = outbox
        self.session = session
        self.spool = spool
        self.make_delivery = make_delivery
        self.engine = engine
        self.watchdog = watchdog
        self.recorder = recorder
        self.looked = looked
        self.views = views
        self.once = Throttle(float("inf"))

    @property
    def timeout(self) -> float:
        """Seconds the caller may wait for the outbox."""
        return self.recorder.timeout

    @property
    def inspector(self) -> Inspector:
        """What a person asks of the outbox, for as long as the caller may wait."""
        return self.outbox.inspect(self.timeout)

    def notify(self, signal: NamedSignal, **arguments: t.Any) -> None:
        """Send a signal in the app's name."""
        signals.notify(signal, self.app, **arguments)


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
