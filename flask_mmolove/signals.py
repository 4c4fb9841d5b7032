"""What others may listen to.

The sender is always the Flask app. A receiver takes ``sender`` and keyword arguments,
``**extra`` among them. One that raises is logged and harms neither a signup nor the
delivery. blinker holds receivers weakly: connect functions of a module, not ones made
inside a function.
"""

from __future__ import annotations

import typing as t

from blinker import Namespace

from .clock import milliseconds
from .log import logger

if t.TYPE_CHECKING:
    from blinker import NamedSignal
    from flask import Flask

    from .outbox import Breaker
    from .outbox import Entry

_signals = Namespace()

#: A visitor arrived with a token, and it was kept. Argument: ``token``.
referral_captured = _signals.signal("referral-captured")

#: An event was recorded. Argument: ``entry``, an
#: :class:`~flask_mmolove.outbox.Entry`.
event_recorded = _signals.signal("event-recorded")

#: MMOLove accepted an event. Argument: ``entry``.
event_accepted = _signals.signal("event-accepted")

#: An event is ignored: another referrer registered the referee first, or another
#: account was reported with the token first. Argument: ``entry``, whose ``is_second``
#: says which.
event_ignored = _signals.signal("event-ignored")

#: An event was rejected, or failed for too long: a dead letter, until ``flask mmolove
#: retry``. Argument: ``entry``, whose ``answer`` says why.
event_rejected = _signals.signal("event-rejected")

#: A reward was granted. Argument: ``referral``, a
#: :class:`~flask_mmolove.Referral`.
player_rewarded = _signals.signal("player-rewarded")

#: The site's reward callback raised. Arguments: ``referral`` and ``error``.
reward_raised = _signals.signal("reward-raised")

#: A reward is not tried again until a person decides: the callback failed too often, or
#: the site has none.
#: Argument: ``entry``, whose ``answer`` says why.
reward_failed = _signals.signal("reward-failed")

#: Somebody sends a rejected event again. Argument: ``entry``.
event_retried = _signals.signal("event-retried")

#: MMOLove cannot be reached, fails, or refuses the settings: delivery is paused but for
#: a probe now and then. Argument: ``reason``, in words.
delivery_paused = _signals.signal("delivery-paused")

#: MMOLove responds again. Argument: ``seconds``, for how long it did not.
delivery_resumed = _signals.signal("delivery-resumed")

#: Everything stored about a player was erased. Argument: ``count``, of events.
player_forgotten = _signals.signal("player-forgotten")


_OF_STATE = {
    "accepted": event_accepted,
    "ignored": event_ignored,
    "rejected": event_rejected,
    "unpaid": reward_failed,
}


def announce(app: Flask, entry: Entry) -> None:
    """Send the signal of an entry that is new or whose state changed."""
    if entry.state == "pending" and not entry.attempts:
        notify(event_recorded, app, entry=entry)
    elif entry.state in _OF_STATE:
        notify(_OF_STATE[entry.state], app, entry=entry)


def announce_breaker(app: Flask, before: Breaker, after: Breaker) -> None:
    """Send the signal of a delivery that is paused, or resumed."""
    if before.open_since is None:
        notify(delivery_paused, app, reason=after.reason)
    else:
        seconds = (milliseconds() - before.open_since) // 1000
        notify(delivery_resumed, app, seconds=seconds)


def notify(signal: NamedSignal, app: Flask, **arguments: t.Any) -> None:
    """Send a signal; a receiver that raises is logged and the next one is called."""
    if not signal.receivers:
        return
    for receiver in signal.receivers_for(app):
        try:
            receiver(app, **arguments)
        except Exception:
            logger.exception(
                "A receiver of the signal %r raised; nothing else is affected.",
                signal.name,
            )
