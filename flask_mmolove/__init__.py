"""MMOLove's Referral Kit for Flask: capture, register, outbox, delivery, reward."""

from .capture import current_mmref as current_mmref
from .client import Outcome as Outcome
from .client import ReferralClient as ReferralClient
from .errors import ConfigError as ConfigError
from .errors import EventError as EventError
from .errors import IdentityError as IdentityError
from .errors import MMOLoveError as MMOLoveError
from .errors import OutboxBusy as OutboxBusy
from .errors import OutboxError as OutboxError
from .errors import SignatureError as SignatureError
from .extension import MMOLove as MMOLove
from .register import referral_register as referral_register
from .register import registered as registered
from .reward import qualify as qualify
from .reward import Referral as Referral
from .signals import event_accepted as event_accepted
from .signals import event_ignored as event_ignored
from .signals import event_recorded as event_recorded
from .signals import event_rejected as event_rejected
from .signals import player_rewarded as player_rewarded
from .signals import referral_captured as referral_captured
from .signals import reward_failed as reward_failed
from .wire import sign_referral_body as sign_referral_body
