"""MMOLove's Referral Kit for Flask: capture, register, outbox, delivery, reward."""

from .capture.invite import invitations
from .capture.token import current_mmref
from .capture.token import current_referrer
from .errors import ActionError
from .errors import ConfigError
from .errors import EventError
from .errors import IdentityError
from .errors import MMOLoveError
from .errors import OutboxBusy
from .errors import OutboxError
from .errors import RewardLater
from .errors import SignatureError
from .extension import MMOLove
from .protocol.client import ReferralClient
from .protocol.client import SignedBody
from .protocol.response import Outcome
from .protocol.response import Verdict
from .protocol.wire import sign_referral_body
from .registration.by_signal import new_by_signal
from .registration.decorator import referral_register
from .registration.decorator import registered
from .registration.detect import new_by_field
from .registration.detect import new_in_json
from .registration.detect import new_in_session
from .registration.detect import new_login
from .registration.detect import new_row
from .rewards.qualify import qualify
from .rewards.referral import Referral
from .signals import delivery_paused
from .signals import delivery_resumed
from .signals import event_accepted
from .signals import event_ignored
from .signals import event_recorded
from .signals import event_rejected
from .signals import event_retried
from .signals import player_forgotten
from .signals import player_rewarded
from .signals import referral_captured
from .signals import reward_failed
from .signals import reward_raised

__all__ = [
    "new_by_signal",
    "current_mmref",
    "current_referrer",
    "Outcome",
    "ReferralClient",
    "SignedBody",
    "Verdict",
    "ConfigError",
    "EventError",
    "IdentityError",
    "MMOLoveError",
    "ActionError",
    "OutboxBusy",
    "OutboxError",
    "RewardLater",
    "SignatureError",
    "MMOLove",
    "invitations",
    "new_by_field",
    "new_in_json",
    "new_in_session",
    "new_login",
    "new_row",
    "referral_register",
    "registered",
    "qualify",
    "Referral",
    "delivery_paused",
    "delivery_resumed",
    "event_accepted",
    "event_ignored",
    "event_recorded",
    "event_rejected",
    "event_retried",
    "player_forgotten",
    "player_rewarded",
    "referral_captured",
    "reward_raised",
    "reward_failed",
    "sign_referral_body",
]
