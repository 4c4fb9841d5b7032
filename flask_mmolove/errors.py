"""Everything this package raises, in one tree.

.. code-block:: text

    MMOLoveError
    ├── ConfigError       a setting is missing or wrong
    ├── IdentityError     a player has no stable identity (yet)
    ├── EventError        an event that MMOLove could only refuse
    ├── ActionError       an action of the owner's that cannot be done
    ├── RewardLater       raised by a reward callback: retry the reward later
    ├── SignatureError    a signature header is malformed
    └── OutboxError       the outbox could not be read or written
        └── OutboxBusy    ... within the caller's timeout

None of them breaks a signup: there they are logged.
"""

from __future__ import annotations


class MMOLoveError(Exception):
    """The base of every error of this package."""


class ConfigError(MMOLoveError):
    """A setting is missing or wrong. Raised at start, and by :meth:`MMOLove.invite` if
    its page or the site's ``SECRET_KEY`` is missing.

    :param key: The key in ``app.config``, or ``None`` if it is not about a single one.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class IdentityError(MMOLoveError):
    """A player without a stable identity."""


class EventError(MMOLoveError, ValueError):
    """An event that MMOLove could only refuse.

    :param field: The name of the field at fault.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class ActionError(MMOLoveError):
    """An action on the dashboard or the command line that cannot be done."""


class RewardLater(MMOLoveError):
    """Raise it in a reward callback if the game cannot grant the reward now, such as
    while it restarts. The callback is called again later, and no traceback is logged.

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
    """The outbox stayed locked for longer than the caller's timeout."""
