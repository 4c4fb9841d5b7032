"""A local MMOLove to test a site against: share links, the events endpoint with every
response of the contract, a page that shows what arrived and why it was refused, and
faults that you can switch on.

Nothing here leaves the machine, and nothing here is the real service.
"""

from __future__ import annotations

from .app import create_sandbox
from .faults import Faults
from .ledger import Arrival
from .ledger import Referral
from .rules import Server
from .server import Sandbox
from .service import Service

__all__ = [
    "Arrival",
    "Faults",
    "Referral",
    "Sandbox",
    "Server",
    "Service",
    "create_sandbox",
]
