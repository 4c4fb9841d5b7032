"""The site's reward callback, called for a milestone that MMOLove has credited."""

from __future__ import annotations

import typing as t
from functools import partial

from flask import current_app
from flask import Flask

from ..callbacks import Callbacks
from ..clock import milliseconds
from ..log import shielded
from ..outbox.entry import Entry
from ..outbox.entry import Settlement
from ..outbox.store import Outbox
from ..signals import announce
from ..signals import notify
from ..signals import player_rewarded
from ..signals import reward_raised
from .referral import Referral

if t.TYPE_CHECKING:
    from ..delivery.grant import Promise
    from ..outbox.sql.session import SessionOutbox


class CallbackRewarder:
    """Calls the site's reward callback, in the app's context."""

    def __init__(
        self,
        app: Flask,
        callbacks: Callbacks,
        outbox: Outbox,
        session: SessionOutbox | None,
    ) -> None:
        self._app = app
        self._callbacks = callbacks
        self._outbox = outbox
        self._session = session

    def if_registered(self) -> CallbackRewarder | None:
        """This, once the site has a callback."""
        return self if self._callbacks.reward else None

    @property
    def promise(self) -> Promise:
        if self._callbacks.at_most_once:
            return "at-most-once"
        return "at-least-once" if self._session is None else "exactly-once"

    def prepare(self, entry: Entry) -> t.Callable[[], Entry | None]:
        return partial(self._give, entry, self._referral(entry))

    def _referral(self, entry: Entry) -> Referral:
        entries = self._outbox.of(entry.identity, entry.test)
        return Referral.from_entries({**entries, "qualified": entry})

    def _give(self, entry: Entry, referral: Referral) -> Entry | None:
        try:
            with self._app.app_context():
                callback = t.cast(t.Callable[..., t.Any], self._callbacks.reward)
                give = partial(current_app.ensure_sync(callback), referral)
                if self._session is None or self.promise != "exactly-once":
                    give()
                    return None
                granted = Settlement(entry, "rewarded", status=entry.status)
                return self._session.grant(granted, milliseconds(), give)
        except BaseException as e:
            notify(reward_raised, self._app, referral=referral, error=e)
            raise

    def announce(self, entry: Entry) -> None:
        """Send the signal of an entry whose state changed."""
        if entry.state == "rewarded":
            with shielded("A reward was given, and the site could not be told."):
                self._tell_rewarded(entry)
        announce(self._app, entry)

    def _tell_rewarded(self, entry: Entry) -> None:
        notify(player_rewarded, self._app, referral=self._referral(entry))
