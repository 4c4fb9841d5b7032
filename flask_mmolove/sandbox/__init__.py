"""A stand-in for MMOLove on this machine: share links, the events endpoint with every
answer of the contract, a page that says what arrived and why it was refused, and
faults to order.

Nothing here leaves the machine, and nothing here is the real service.
"""

from __future__ import annotations

from .app import create_sandbox
from .faults import Faults
from .ledger import Arrival
from .ledger import Referral
from .rules import Server
from .server import Sandbox
from .state import State

__all__ = [
    "Arrival",
    "Faults",
    "Referral",
    "Sandbox",
    "Server",
    "State",
    "create_sandbox",
]
