"""The signals that a site can listen to. The sender is always the Flask app."""

from __future__ import annotations

import typing as t

from blinker import Namespace

from .clock import milliseconds
from .log import logger

if t.TYPE_CHECKING:
    from blinker import NamedSignal
    from flask import Flask

    from .outbox.breaker import Breaker
    from .outbox.entry import Entry

_signals = Namespace()

#: A visitor arrived with a token, and it was kept.
#:
#: :param str token: The token.
referral_captured = _signals.signal("referral-captured")

#: An event was recorded.
#:
#: :param ~flask_mmolove.outbox.entry.Entry entry: The event.
event_recorded = _signals.signal("event-recorded")

#: MMOLove accepted an event.
#:
#: :param ~flask_mmolove.outbox.entry.Entry entry: The event.
event_accepted = _signals.signal("event-accepted")

#: An event is ignored: another referrer registered the player first, or another account
#: was reported with the token first.
#:
#: :param ~flask_mmolove.outbox.entry.Entry entry: The event.
#:     Its ``is_second`` tells which.
event_ignored = _signals.signal("event-ignored")

#: An event was refused, or retried for too long. It waits for the owner.
#:
#: :param ~flask_mmolove.outbox.entry.Entry entry: The event.
#:     Its ``answer`` tells why.
event_rejected = _signals.signal("event-rejected")

#: A reward was granted.
#:
#: :param ~flask_mmolove.Referral referral: The friend, and the referrer if known.
player_rewarded = _signals.signal("player-rewarded")

#: The site's reward callback raised.
#:
#: :param ~flask_mmolove.Referral referral: What it was called with.
#: :param BaseException error: What it raised.
reward_raised = _signals.signal("reward-raised")

#: A reward is not retried any more: the callback failed for too long, or the site has
#: none. It waits for the owner.
#:
#: :param ~flask_mmolove.outbox.entry.Entry entry: The event.
#:     Its ``answer`` tells why.
reward_failed = _signals.signal("reward-failed")

#: The owner sends a rejected event again.
#:
#: :param ~flask_mmolove.outbox.entry.Entry entry: The event.
event_retried = _signals.signal("event-retried")

#: Sending is paused, because MMOLove cannot be reached, fails, or refuses the settings.
#:
#: :param str reason: Why, in words.
delivery_paused = _signals.signal("delivery-paused")

#: Sending has resumed, because MMOLove answers again.
#:
#: :param int seconds: For how long it was paused.
delivery_resumed = _signals.signal("delivery-resumed")

#: Everything stored about a player was erased, and events were among it.
#:
#: :param int count: How many events that were.
player_forgotten = _signals.signal("player-forgotten")


_OF_STATE = {
    "accepted": event_accepted,
    "ignored": event_ignored,
    "rejected": event_rejected,
    "reward_failed": reward_failed,
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
