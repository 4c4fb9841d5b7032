"""MMOLove as it behaves on a bad day, in a process of its own.

Whether an event is taken is judged by the rules of ``flask_mmolove.sandbox``, with the
signature, the clock, the order and the first touch. Around them stand the faults, and a
server that keeps connections open, as the real one does. Its history is the truth with
which a harness compares what the site believes.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import time
import typing as t
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer

from flask_mmolove.protocol.wire import SIGNATURE_HEADER
from flask_mmolove.protocol.wire import TOKEN_LIFETIME
from flask_mmolove.sandbox import tokens
from flask_mmolove.sandbox.ledger import Ledger
from flask_mmolove.sandbox.ledger import Referral
from flask_mmolove.sandbox.rules import decide
from flask_mmolove.sandbox.rules import Decision
from flask_mmolove.sandbox.rules import Message
from flask_mmolove.sandbox.rules import Server

from . import processes

SERVER_ID = "srv-reliability"
SECRET = "a secret for this machine only"

#: Players of this prefix were registered by another referrer before.
TAKEN = "taken-"

#: Each fault and how often it comes among the faults.
#:
#: ``unavailable``
#:     503, and nothing done.
#: ``timeout``
#:     429 with ``Retry-After: 1``, and nothing done.
#: ``portal``
#:     200 with a page, and nothing done.
#: ``before``
#:     The connection is closed, and nothing done.
#: ``after``
#:     The event is taken, and the connection closed instead of an answer.
#: ``slow``
#:     The event is taken and answered after a while.
#: ``late``
#:     The event is taken and answered when nobody waits any more.
FAULTS = {
    "unavailable": 6,
    "timeout": 1,
    "portal": 5,
    "before": 6,
    "after": 8,
    "slow": 6,
    "late": 1,
}


class Arrival(t.NamedTuple):
    """One post.

    :param outcome: ``"accepted"``, ``"duplicate"``, ``"ignored"``, ``"refused"``, or
        ``"fault"`` where nothing was done.
    """

    event: str
    server_event_id: str
    outcome: str
    status: int


@dataclass
class Mood:
    """How the server behaves; a harness may change it while it runs.

    :param rate: The share of posts that meet a fault.
    :param first: The fault that the first post of each event meets, by event name.
    :param ahead: Seconds by which its clock is ahead.
    :param late: Seconds after which a late answer comes.
    """

    rate: float = 0.0
    first: t.Mapping[str, str] | None = None
    ahead: float = 0.0
    late: float = 0.4


class StandIn:
    """The server, as the harness that started it sees it.

    .. code-block:: python

        with StandIn(Mood(rate=0.25)) as server:
            ...

    It ends with the harness, even if that is killed.
    """

    def __init__(self, mood: Mood) -> None:
        self._mood = mood
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self.port = int(self._http.server_address[1])
        #: What the site gets as MMOLOVE_ENDPOINT.
        self.endpoint = f"http://127.0.0.1:{self.port}/api/referral/events"
        self._pid = 0

    def __enter__(self) -> StandIn:
        self._pid = processes.fork(lambda: self._http.serve(self._mood))
        self._http.server_close()  # the child has it
        return self

    def __exit__(self, *error: object) -> None:
        processes.kill(self._pid)

    def behave(self, mood: Mood) -> None:
        """Change how it behaves."""
        self._ask("/mood", json.dumps(vars(mood)))

    def history(self) -> list[Arrival]:
        """Every post, oldest first."""
        return [Arrival(*each) for each in json.loads(self._ask("/history", ""))]

    def _ask(self, path: str, body: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, body)
            return connection.getresponse().read()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def serve(self, mood: Mood) -> None:
        self.mood = mood
        self.ledger = Ledger()
        self.history: list[Arrival] = []
        self.seen: set[str] = set()
        self._harness = os.getppid()
        self.serve_forever()

    def service_actions(self) -> None:
        if os.getppid() != self._harness:
            os._exit(0)

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        pass  # the client was killed, and its connection with it

    def take(self, message: Message) -> tuple[Decision | None, str]:
        """Judge one post, and give the decision and the fault it meets. No decision
        means that the fault came before anything was done.
        """
        with self.ledger.transaction():
            fields = json.loads(message.body or b"")
            event, key = str(fields["event"]), str(fields["server_event_id"])
            fault = self._fault(event, key)
            decision = None
            if fault in {"", "after", "slow", "late"}:
                self._take_away(str(fields.get("referee_identity", "")))
                servers = {SERVER_ID: Server(SERVER_ID, SECRET, "http://localhost/")}
                decision = decide(message, servers, self.ledger, self.now())
            outcome = decision.outcome if decision else "fault"
            status = (decision and decision.status) or 0
            self.history.append(Arrival(event, key, outcome, status))
        return decision, fault

    def now(self) -> float:
        return time.time() + self.mood.ahead

    def _fault(self, event: str, key: str) -> str:
        if self.mood.first and key not in self.seen:
            self.seen.add(key)
            return self.mood.first.get(event, "")
        if random.random() < self.mood.rate:
            (fault,) = random.choices(list(FAULTS), list(FAULTS.values()))
            return fault
        return ""

    def _take_away(self, identity: str) -> None:
        if identity.startswith(TAKEN) and not self.ledger.anchored(SERVER_ID, identity):
            token = tokens.mint(SERVER_ID, "rival", time.time())
            far = int(time.time()) + TOKEN_LIFETIME
            rival = Referral(token, SERVER_ID, "rival", far, "registered", identity)
            self.ledger.add(rival)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer leaves as one packet

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/history":
            with self.server.ledger.transaction():
                self._answer(200, json.dumps(self.server.history))
        elif self.path == "/mood":
            self.server.mood = Mood(**json.loads(body))
            self._answer(200, "{}")
        else:
            self._take(body)

    def _take(self, body: bytes) -> None:
        kind = self.headers.get_content_type()
        signature = self.headers.get(SIGNATURE_HEADER)
        decision, fault = self.server.take(Message(body, signature, kind))
        if fault == "slow":
            time.sleep(0.03)
        elif fault == "late":
            time.sleep(self.server.mood.late)
        if fault in {"before", "after"}:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif decision is not None:
            self._answer(decision.status or 500, json.dumps(decision.response))
        elif fault == "portal":
            self._answer(200, "<h1>Welcome to our WiFi</h1>", kind="text/html")
        elif fault == "timeout":
            self._answer(429, '{"error":"slow down"}', retry_after="1")
        else:
            self._answer(503, '{"error":"unavailable"}')

    def _answer(
        self,
        status: int,
        text: str,
        kind: str = "application/json",
        retry_after: str = "",
    ) -> None:
        content = text.encode()
        self.send_response_only(status)
        self.send_header("Date", formatdate(self.server.now(), usegmt=True))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(content)
