"""Everything this package raises, in one tree.

.. code-block:: text

    MMOLoveError
    ├── ConfigError       a setting is missing or wrong
    ├── IdentityError     a player has no stable identity (yet)
    ├── EventError        an event that MMOLove could only refuse
    ├── ActionError        a person's order that cannot be carried out
    ├── RewardLater       raised by a reward callback: the game cannot give it now
    ├── SignatureError    a signature header is malformed
    └── OutboxError       the outbox could not be read or written
        └── OutboxBusy    ... within the time a caller may wait

None of them reaches a signup by itself: there they are logged.
"""

from __future__ import annotations


class MMOLoveError(Exception):
    """The base of every error of this package."""


class ConfigError(MMOLoveError):
    """A setting is missing or wrong. Raised at start, and by :meth:`MMOLove.invite`
    where its page or the site's key is missing.

    :param key: The key in ``app.config``, or ``None`` where no single one is meant.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class IdentityError(MMOLoveError):
    """A player from whom no stable identity can be had."""


class EventError(MMOLoveError, ValueError):
    """An event whose fields MMOLove could only refuse.

    :param field: The name of the field at fault.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class ActionError(MMOLoveError):
    """A person's order, on the page or the command line, that cannot be carried out."""


class RewardLater(MMOLoveError):
    """Raise it in a reward callback when the reward cannot be granted now, as while the
    game restarts. The callback is called again later, and no traceback is logged.

    .. code-block:: python

        @mmolove.reward
        def grant(referral):
            if not game.is_running():
                raise RewardLater("the game restarts")

    :param reason: What ``flask mmolove status`` and the dashboard show meanwhile.
    """

    def __init__(self, reason: str = "the callback asked to be called later") -> None:
        super().__init__(reason)


class SignatureError(MMOLoveError):
    """A signature header that is malformed."""


class OutboxError(MMOLoveError):
    """The outbox could not be read or written."""


class OutboxBusy(OutboxError):
    """Others held the outbox for longer than the caller may wait."""
