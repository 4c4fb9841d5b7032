"""The delivery: takes what is due out of the outbox, and gets it done."""

from .engine import Engine as Engine
from .engine import InlineEngine as InlineEngine
from .engine import ManualEngine as ManualEngine
