"""The service behind the links and the endpoint: servers, ledger, clock, faults."""

from __future__ import annotations

import json
import threading
import typing as t

from . import tokens
from .faults import Faults
from .ledger import Arrival
from .ledger import Ledger
from .ledger import Referral
from .received import read_texts
from .rules import decide
from .rules import Decision
from .rules import find_referral
from .rules import Message
from .rules import Server


class Service:
    """What a sandbox is and does, apart from HTTP. It is
    ``app.extensions["mmolove_sandbox"]``.

    :param server: The server that :meth:`mint` uses unless told otherwise.
    :param ledger: Where everything is stored.
    :param faults: What goes wrong; may be replaced at any time.
    :param now: Unix seconds.
    """

    def __init__(
        self, server: Server, ledger: Ledger, faults: Faults, now: t.Callable[[], float]
    ) -> None:
        #: The servers by id. Add others, or replace one by a changed copy:
        #: ``dataclasses.replace(server, referrals=False)``.
        self.servers = {server.id: server}
        self.ledger = ledger
        self.faults = faults
        #: Set while the sandbox stops, to cut latencies short.
        self.stopping = threading.Event()
        self._server_id = server.id
        #: Unix seconds; may be replaced at any time.
        self.clock = now

    def time(self) -> float:
        """The sandbox's time, with the fault of its clock."""
        return self.clock() + self.faults.clock

    def mint(self, ref: str = "demo", server_id: str | None = None) -> str:
        """Create a token, as a click on a share link does."""
        if not tokens.is_ref(ref):
            raise ValueError("A ref is 1 to 256 visible ASCII characters.")
        server = self.servers[server_id or self._server_id]
        token = tokens.mint(server.id, ref, self.time())
        find_referral(self.ledger, token, server.id)
        return token

    def close_referral(
        self, token: str, state: t.Literal["reversed", "rejected"]
    ) -> None:
        """Close a referral, as the owner or MMOLove's guard against abuse does."""
        self.ledger.move(token, state)

    @property
    def arrivals(self) -> list[Arrival]:
        """Every request to the events endpoint, oldest first."""
        return self.ledger.arrivals()

    @property
    def referrals(self) -> list[Referral]:
        """Every referral, oldest first."""
        return self.ledger.referrals()

    def receive(self, message: Message) -> tuple[Arrival, Faults]:
        """Handle a request, and return the faults it met as well. Its changes and its
        line in the history are written together.
        """
        now = self.time()
        faults = self.faults.strike()
        self.stopping.wait(faults.latency)
        with self.ledger.transaction():
            decision = _fail(faults) or decide(message, self.servers, self.ledger, now)
            body = message.body or b""
            arrival = Arrival(
                when=now,
                outcome=decision.outcome,
                status=decision.status,
                response=json.dumps(decision.response, separators=(",", ":")),
                reason=decision.reason,
                hint=decision.hint,
                lost=faults.drop is not None,
                body=body,
                **read_texts(body),
            )
            self.ledger.record(arrival)
        return arrival, faults


def _fail(faults: Faults) -> Decision | None:
    if faults.drop == "request":
        return Decision(
            None,
            {},
            "fault",
            "The fault closed the connection before anything was done.",
            "Nothing to fix: the site retries by itself.",
        )
    if faults.fail is not None:
        return Decision(
            faults.fail,
            {"error": "fault"},
            "fault",
            f"The fault made the response {faults.fail}, and nothing was done.",
            "Nothing to fix: this fault is switched on.",
        )
    return None
