"""What one app has of this extension, in ``app.extensions["mmolove"]``."""

from __future__ import annotations

import time
import typing as t

from flask import current_app
from flask import Flask
from flask import has_request_context

from . import signals
from .delivery import Delivery
from .delivery import Engine
from .delivery.events import warn_of_other_token
from .delivery.events import warn_of_second
from .errors import MMOLoveError
from .identity import identify
from .log import logger
from .log import shielded
from .log import Throttle
from .orm import check_complete
from .orm import readable
from .outbox import Breaker
from .outbox import Entry
from .outbox import Inspector
from .outbox import Invitation
from .outbox import Note
from .outbox import Outbox
from .outbox import Spool
from .outbox.entry import TIMEOUT
from .registration.views import SignupViews
from .settings import Settings

#: Seconds a request may wait for the outbox; a script waits as a worker does. A signup
#: may be held up for 2 s in all, the emergency exit included.
REQUEST_TIMEOUT = 1.5
READ_TIMEOUT = 0.2

if t.TYPE_CHECKING:
    from blinker import NamedSignal

    from .outbox.sql.session import SessionOutbox

F = t.TypeVar("F", bound=t.Callable[..., t.Any])


class Callbacks:
    """What the site said with ``@mmolove.reward``, ``.identity`` and ``.consent``."""

    def __init__(self) -> None:
        self.reward: t.Callable[..., t.Any] | None = None
        #: The names of earlier reward callbacks: a site has one.
        self.replaced: list[str] = []
        self.at_most_once = False
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


class State(t.NamedTuple):
    """One app's part: its settings, its outbox and what turns its delivery.

    :param make_delivery: Makes a delivery for the calling process.
    :param session: The outbox in the site's own session, where it has one.
    :param once: For warnings that are given once.
    :param views: What its signup views answered.
    :param looked: For tokens of which it is known for a minute whether they are used.
    """

    app: Flask
    settings: Settings
    callbacks: Callbacks
    outbox: Outbox
    spool: Spool
    make_delivery: t.Callable[[], Delivery]
    engine: Engine
    session: SessionOutbox | None
    once: Throttle
    looked: Throttle
    views: SignupViews

    def identify(self, player: t.Any) -> str:
        """See :func:`flask_mmolove.identity.identify`."""
        with readable(player):
            identity = identify(player, self.callbacks.identity)
        check_complete(player, identity)
        return identity

    @property
    def timeout(self) -> float:
        """Seconds the caller may wait for the outbox."""
        return REQUEST_TIMEOUT if has_request_context() else TIMEOUT

    @property
    def read_timeout(self) -> float:
        """The same for a look before and after it."""
        if has_request_context() or self.session is not None:
            # The site's session may hold a lock itself.
            return READ_TIMEOUT
        return TIMEOUT

    @property
    def inspector(self) -> Inspector:
        """What a person asks of the outbox, for as long as the caller may wait."""
        return self.outbox.inspect(self.timeout)

    def record(self, note: Note) -> bool:
        """Put what a note says into the outbox in a transaction of its own, and have it
        delivered. False if it had to take the emergency exit.

        :raises OutboxError: If neither the outbox nor any disk can take it.
        """
        server_id = self.settings.server_id
        try:
            new = self.outbox.record(note, server_id, self.timeout)
        except Exception as e:  # whatever it is, the event must not vanish
            self.spool_report(note, str(e))
            return False
        self.recorded(note, new)
        return True

    def recorded(self, note: Note, new: t.Sequence[Entry]) -> None:
        """Tell of entries that are new in the outbox, and have them delivered."""
        for entry in new:
            self.report(entry)
        self.engine.wake([entry.id for entry in new])
        self.looked.forget(note.token or "")
        if note.token and note.names and not new:
            with shielded("Whether a player came by another token is not known."):
                known = self.outbox.of(note.identity, note.test, READ_TIMEOUT)
                warn_of_other_token(note, known)

    def committed(self, note: Note, new: list[Entry] | None, trouble: str) -> None:
        """The site has committed what a note says.

        :param new: The entries that are new; None if they could not be written.
        :param trouble: Why they could not.
        :raises OutboxError: If not even the emergency exit can take it.
        """
        if new is None:
            self.spool_report(note, trouble)
        else:
            self.recorded(note, new)

    def note(self, identity: str, invitation: Invitation | None, *names: str) -> Note:
        """What happens to a player at this moment.

        :param invitation: By what the player came; None where only the outbox knows.
        """
        token, referrer = invitation or (None, None)
        test = self.settings.test
        return Note(identity, token, names, test, milliseconds(), referrer)

    def entries(self, identity: str) -> dict[str, Entry]:
        """A player's entries by event name; those that are to be committed with the
        site's changes among them.

        :raises OutboxError: If they cannot be had within a caller's patience.
        """
        test = self.settings.test
        known = self.outbox.of(identity, test, self.read_timeout)
        return (
            known if self.session is None else self.session.of(identity, test) | known
        )

    def spool_report(self, note: Note, reason: str) -> None:
        """Take the emergency exit with what the outbox cannot take.

        :param reason: Why it cannot, in a sentence.
        :raises OutboxError: If that is closed as well.
        """
        file = self.spool.write(note)
        logger.error(
            "%s %s is kept in %s and taken in by itself.",
            reason,
            note.subject,
            file,
        )
        if self.settings.delivery != "inline":  # that would wait for the store again
            self.engine.wake()

    def notify(self, signal: NamedSignal, **arguments: t.Any) -> None:
        """Send a signal in the app's name."""
        signals.notify(signal, self.app, **arguments)

    def watch(self, before: Breaker, after: Breaker) -> None:
        """Tell that MMOLove fell out of reach, or is back."""
        if before.open_since is None:
            self.notify(signals.delivery_paused, reason=after.reason)
        else:
            seconds = (milliseconds() - before.open_since) // 1000
            self.notify(signals.delivery_resumed, seconds=seconds)

    def report(self, entry: Entry) -> None:
        """Tell of an entry that is new or whose state changed."""
        if entry.state == "pending" and not entry.attempts:
            self.notify(signals.event_recorded, entry=entry)
        elif entry.state in _SIGNALS:
            if entry.is_second:
                warn_of_second(entry)
            self.notify(_SIGNALS[entry.state], entry=entry)


_SIGNALS = {
    "accepted": signals.event_accepted,
    "ignored": signals.event_ignored,
    "rejected": signals.event_rejected,
    "reward_failed": signals.reward_set_aside,
}


def name_of(function: t.Callable[..., t.Any]) -> str:
    """How a person finds a function of the site's."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


def milliseconds() -> int:
    """The time as the outbox keeps it."""
    return time.time_ns() // 1_000_000


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
