"""The durable outbox: an event is a row on disk before anything is sent."""

from .breaker import Breaker as Breaker
from .entry import Answer as Answer
from .entry import Entry as Entry
from .entry import EntryState as EntryState
from .entry import Invitation as Invitation
from .entry import Settlement as Settlement
from .report import Report as Report
from .reward_breaker import RewardBreaker as RewardBreaker
from .spool import Spool as Spool
from .store import Outbox as Outbox
