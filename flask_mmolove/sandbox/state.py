"""The stand-in as its tests see it: servers, ledger, clock and faults in one place."""

from __future__ import annotations

import json
import threading
import typing as t

from . import tokens
from .faults import Faults
from .ledger import Arrival
from .ledger import Ledger
from .ledger import Referral
from .received import glance
from .rules import find_referral
from .rules import judge
from .rules import Message
from .rules import Server
from .rules import Verdict


class State:
    """Everything that one stand-in is and knows; it stands in
    ``app.extensions["mmolove_sandbox"]``.

    :param server: The server that :meth:`mint` takes unless told otherwise.
    :param ledger: What is remembered.
    :param faults: What goes wrong; may be replaced at any time.
    :param now: Unix seconds.
    """

    def __init__(
        self,
        server: Server,
        ledger: Ledger,
        faults: Faults,
        now: t.Callable[[], float],
    ) -> None:
        #: The servers by id. Add others, or put a changed one in place of an old one:
        #: ``dataclasses.replace(server, referrals=False)``.
        self.servers = {server.id: server}
        self.ledger = ledger
        self.faults = faults
        #: Set while the stand-in stops, so that latency does not hold it up.
        self.stopping = threading.Event()
        self._server_id = server.id
        #: Unix seconds; may be replaced at any time.
        self.clock = now

    def time(self) -> float:
        """The stand-in's clock, with the fault that it may have."""
        return self.clock() + self.faults.clock

    def mint(self, ref: str = "demo", server_id: str | None = None) -> str:
        """Do what a click on a share link does, and return the token."""
        if not tokens.is_ref(ref):
            raise ValueError("A ref is 1 to 256 visible ASCII characters.")
        server = self.servers[server_id or self._server_id]
        token = tokens.mint(server.id, ref, self.time())
        find_referral(self.ledger, token, server.id)
        return token

    def close_referral(
        self, token: str, state: t.Literal["reversed", "rejected"]
    ) -> None:
        """Do what happens at MMOLove alone: the owner reverses a referral, or the
        guard against abuse rejects it.
        """
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
        """Take in one request; also returns the faults it met. What it changes and the
        line in the history are written together.
        """
        now = self.time()
        faults = self.faults.strike()
        self.stopping.wait(faults.latency)
        with self.ledger.transaction():
            verdict = _fault(faults) or judge(message, self.servers, self.ledger, now)
            body = message.body or b""
            arrival = Arrival(
                when=now,
                outcome=verdict.outcome,
                status=verdict.status,
                answer=json.dumps(verdict.answer, separators=(",", ":")),
                reason=verdict.reason,
                hint=verdict.hint,
                lost=faults.drop is not None,
                body=body,
                **glance(body),
            )
            self.ledger.record(arrival)
        return arrival, faults


def _fault(faults: Faults) -> Verdict | None:
    if faults.drop == "request":
        return Verdict(
            None,
            {},
            "fault",
            "By order, the connection was closed before anything was done.",
            "Nothing to fix: the site should send it again by itself.",
        )
    if faults.fail is not None:
        return Verdict(
            faults.fail,
            {"error": "fault"},
            "fault",
            f"By order, the answer was {faults.fail} and nothing was done.",
            "Nothing to fix: this is the fault that was asked for.",
        )
    return None
