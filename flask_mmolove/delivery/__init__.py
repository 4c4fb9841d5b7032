"""The delivery: takes what is due out of the outbox, and gets it done."""

from .engine import Engine as Engine
from .engine import InlineEngine as InlineEngine
from .engine import ManualEngine as ManualEngine
from .grant import Promise as Promise
from .grant import Rewarder as Rewarder
from .senders import Senders as Senders
from .step import Delivery as Delivery
from .thread import ThreadEngine as ThreadEngine
