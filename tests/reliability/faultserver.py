"""A server that misbehaves in every way that was thought of, on raw sockets.

Measured: whether each event that the outbox took ends at the server, accepted once,
whatever the server answers meanwhile; and in the run with each fault once, whether it
ends as the table in :mod:`flask_mmolove.protocol.response` says, after the pause that
was asked for. It can fail because the server alone decides what was accepted: a fault
that is taken for a success leaves an event here that the server never had. The table of
faults is written out below and asks nothing of the client's own.

Time is injected: a pause of an hour takes no time. The machine's zone is not UTC, so
that a date which is read as local time shows.
"""

from __future__ import annotations

import contextlib
import gzip
import http
import json
import os
import random
import socket
import struct
import threading
import time
import typing as t
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import click

from example_app.servers import free_port
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.protocol.client import ReferralClient
from flask_mmolove.protocol.response import Outcome
from flask_mmolove.protocol.signature import Signature
from flask_mmolove.protocol.wire import SIGNATURE_HEADER
from flask_mmolove.protocol.wire import WINDOW
from flask_mmolove.settings import Settings
from tests.outbox.recording import add

from . import processes
from .inprocess import Surprises
from .report import Counters
from .report import Findings
from .report import harness
from .report import progress

SECRET = "a secret"
SERVER_ID = "srv-1"
PATH = "/api/referral/events"

#: Seconds for an attempt, and in the long run: what a server that drips can cost.
TIMEOUT = 1.0
TIMEOUT_LONG = 0.1

#: The share of requests that meet a fault in the long run.
RATE = 0.25

#: Events that wait at once in the long run.
BATCH = 500

_HONEST = b'{"ok":true,"state":"registered","referral_id":"rfl_1"}'
_PADDING = b" " * (10 * 1024 * 1024)


@dataclass(frozen=True)
class Fault:
    """One way to misbehave.

    :param raw: Gives the bytes to send, from the time of the server's clock.
    :param commits: The event is accepted before the wrong answer goes out.
    :param accepts: It is MMOLove's own answer and whole, whatever is wrong around it.
    :param rejects: The event is at fault, or the settings: it is not sent again.
    :param pause: Seconds for which the answer asks to be left alone.
    :param drip: The place in the bytes from which they go out one at a time.
    :param reset: The connection is then cut off; else it is only closed.
    :param refuses: Nobody listens at all.
    :param clock: Seconds by which the server's clock is wrong for this event. It is
        honest otherwise.
    """

    name: str
    raw: t.Callable[[float], bytes] = lambda now: b""
    commits: bool = False
    accepts: bool = False
    rejects: bool = False
    pause: int = 0
    drip: int | None = None
    reset: bool = False
    refuses: bool = False
    clock: float = 0


def _answer(
    status: int, headers: t.Sequence[str] = (), body: bytes = b'{"error":"fault"}'
) -> bytes:
    lines = [f"HTTP/1.1 {status} Fault", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + body


def _always(
    name: str,
    raw: bytes,
    **what: t.Any,
) -> Fault:
    return Fault(name, lambda now: raw, **what)


#: A header's value, as it is at some time.
_Form = t.Callable[[float], str]


def _constant(text: str) -> _Form:
    return lambda now: text


def _with_header(status: int, name: str, form: _Form) -> t.Callable[[float], bytes]:
    # The client may follow up at once, and must not run into the end of the connection.
    return lambda now: _answer(status, [f"{name}: {form(now)}", "Connection: close"])


def _broken_answers() -> t.Iterator[Fault]:
    """What is no answer, or not MMOLove's."""
    honest = _answer(200, body=_HONEST)
    head = len(honest) - len(_HONEST)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield Fault("refused", refuses=True)
    yield Fault("reset before the commit", reset=True)
    yield Fault("reset after the commit", reset=True, commits=True)
    yield _always("closed before the commit", b"")
    yield _always("closed after the commit", b"", commits=True)
    yield _always("dripping headers", honest, drip=0)
    yield _always("dripping body", honest, drip=head, commits=True)
    yield _always("10 MB", _answer(200, body=_PADDING + _HONEST), commits=True)
    bomb = gzip.compress(_HONEST + _PADDING)
    yield _always("gzip bomb", _answer(200, ["Content-Encoding: gzip"], bomb))
    yield _always("HTML", _answer(200, body=b"<html>Please log in</html>"))
    yield _always("half of the JSON", _answer(200, body=_HONEST[:8]), commits=True)
    yield _always("no body", _answer(200, body=b""), commits=True)
    yield _always("ok is false", _answer(200, body=b'{"ok":false}'))
    yield _always("ok is a word", _answer(200, body=b'{"ok":"true"}'))
    yield _always("JSON that is no object", _answer(200, body=b"[true]"))
    yield _always("deep JSON", _answer(200, body=b"[" * 60_000))
    yield _always("no text", _answer(200, body=b"\xff\xfe\x00"))
    yield _always("cut off in the headers", honest[: head // 2])
    yield _always("cut off in the body", honest[:-5], commits=True)
    yield _always("too short a Content-Length", honest.replace(b"54", b"11"))
    yield _always("too long a Content-Length", honest.replace(b"54", b"99"))
    for word in (b"x4", b"-4"):
        # It is read up to where the connection is closed.
        raw = honest.replace(b"54", word)
        name = f"a Content-Length of {word.decode()}"
        yield _always(name, raw, commits=True, accepts=True)
    yield _always("two of Content-Length", honest.replace(b"54", b"54, 9"))
    yield _always("chunks cut off", chunked + b"36\r\n" + _HONEST)
    yield _always("chunks without a size", chunked + b"?\r\n" + _HONEST)
    yield _always("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    yield _always("a status that is no number", b"HTTP/1.1 fine\r\n\r\n")
    yield _always("a header without end", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000)
    yield _always("200 headers", _answer(200, ["A: b"] * 200, _HONEST))


def _statuses() -> t.Iterator[Fault]:
    """Each status there is but 200; and what is none, but has the form of one."""
    known = {status.value for status in http.HTTPStatus} - {100, 200}
    for status in sorted(known | {299, 399, 420, 499, 520, 599, 999}):
        headers = []
        if 300 <= status < 400:
            headers = [f"Location: {PATH}/elsewhere"]
        patient = status in (408, 425, 429) or not 300 <= status < 500
        # These have no body, so none may follow them.
        body = b"" if status < 200 or status in (204, 304) else b'{"error":"fault"}'
        raw = _answer(status, headers, body)
        yield _always(f"status {status}", raw, rejects=not patient)


def _pauses() -> t.Iterator[Fault]:
    """Each form of ``Retry-After``, and the seconds it asks for, an hour at most."""

    def date(ahead: float, change: tuple[str, str] = ("", "")) -> _Form:
        return lambda now: formatdate(now + ahead, usegmt=True).replace(*change)

    def old_date(now: float) -> str:
        return time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(now + 90))

    texts = {
        "0": 0,
        "7": 7,
        "0120": 120,
        "3600": 3600,
        "86400": 3600,
        "9" * 400: 3600,
        "-5": 0,
        "1.5": 0,
        "soon": 0,
        "": 0,
        "\u0665".encode().decode("latin-1"): 0,  # a digit, but not of ASCII
        "Thu, 01 Jan 99999 00:00:00 GMT": 0,
        "Thu, 01 Jan 1970 00:00:00 +9999999999": 0,
    }
    forms: list[tuple[str, _Form, int]] = [
        *((repr(text)[:40], _constant(text), texts[text]) for text in texts),
        ("a date", date(90), 90),
        ("a date that is over", date(-90), 0),
        ("a date of tomorrow", date(86_400), 3600),
        ("a date in another zone", date(3690, ("GMT", "+0100")), 90),
        ("a date without a zone", date(90, ("GMT", "-0000")), 90),
        ("a date of RFC 850", old_date, 90),
        ("a date of asctime", lambda now: time.asctime(time.gmtime(now + 90)), 90),
    ]
    for status in (429, 503):
        for name, form, seconds in forms:
            raw = _with_header(status, "Retry-After", form)
            yield Fault(f"{status}, Retry-After: {name}", raw, pause=seconds)


def _clocks() -> t.Iterator[Fault]:
    """Clocks that differ, and dates that lie."""
    for seconds in (-400 * 86_400, -3600, -200, 200, 3600, 400 * 86_400):
        yield Fault(f"its clock is {seconds:+} s off", clock=seconds)
    lies: dict[str, _Form] = {
        "an hour ahead": lambda now: formatdate(now + 3600, usegmt=True),
        "an hour behind": lambda now: formatdate(now - 3600, usegmt=True),
        "of 1970": lambda now: formatdate(0, usegmt=True),
        "of the year 9999": _constant("Fri, 31 Dec 9999 23:59:59 GMT"),
        "of the year 1": _constant("Mon, 01 Jan 0001 00:00:00 GMT"),
        "that is none": _constant("yesterday"),
        "that is empty": _constant(""),
    }
    for words, date in lies.items():
        raw = _with_header(401, "Date", date)
        yield Fault(f"401 and a date {words}", raw, rejects=True)


FAULTS: t.Sequence[Fault] = [
    *_broken_answers(),
    *_statuses(),
    *_pauses(),
    *_clocks(),
]


class Clock:
    """Unix seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.time = 1_790_000_000.0

    def __call__(self) -> float:
        return self.time


class FaultServer:
    """Serves on loopback, in threads. What it accepted is the truth of a run.

    :param choose: Gives the fault that a request with an event's id meets, if any.
    :param clock: The server's clock.
    """

    def __init__(
        self,
        choose: t.Callable[[str], Fault | None] = lambda event_id: None,
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        self._choose = choose
        self._clock = clock
        #: The moments at which each event arrived, by its id.
        self.arrivals: dict[str, list[float]] = {}
        #: The ids of the events that it has.
        self.accepted: set[str] = set()
        #: Events that were there already when they came.
        self.duplicates = 0
        #: How often each fault was met.
        self.met: dict[str, int] = {}
        #: Requests that no delivery should make.
        self.strays: list[str] = []
        self._ahead: dict[str, float] = {}
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._closing = threading.Event()
        self._port = free_port()
        self._listener: socket.socket | None = None
        self.listen()

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """Where events are sent to."""
        return f"http://127.0.0.1:{self._port}{PATH}"

    def listen(self) -> None:
        """Begin to listen, on the same port as before."""
        self._closing.clear()
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._start(self._accept, self._listener)

    def close(self) -> None:
        """Close the listener and every open connection."""
        self._closing.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()

    def _start(
        self, target: t.Callable[[socket.socket], None], sock: socket.socket
    ) -> None:
        def run() -> None:
            target(sock)
            with self._lock:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream:
            with contextlib.suppress(OSError, ValueError):
                while not self._closing.is_set() and self._exchange(connection, stream):
                    pass
            with self._lock:
                self._open.discard(connection)

    def _exchange(self, connection: socket.socket, stream: t.BinaryIO) -> bool:
        """Take one request and answer it; say whether another may follow."""
        line = stream.readline().decode("latin-1").strip()
        headers: dict[str, str] = {}
        while head := stream.readline().decode("latin-1").strip():
            name, _, value = head.partition(":")
            headers[name.lower()] = value.strip()
        if not line:
            return False
        body = stream.read(int(headers.get("content-length", 0)))
        if line != f"POST {PATH} HTTP/1.1" or {"authorization", "cookie"} & {*headers}:
            self.strays.append(line)
            return False
        signature = headers[SIGNATURE_HEADER.lower()]
        with self._lock:
            event_id = str(json.loads(body)["server_event_id"])
            fault = self._note(event_id)
            if fault is None or fault.commits:
                answer = self._judge(event_id, body, signature)
            if fault is not None and fault.accepts and event_id not in self.accepted:
                fault = None  # it was refused, and nobody may say otherwise
        if fault is None:
            connection.sendall(answer)
            return True
        self._misbehave(connection, fault)
        return False

    def _note(self, event_id: str) -> Fault | None:
        self.arrivals.setdefault(event_id, []).append(self._clock())
        fault = self._choose(event_id)
        if fault is None:
            return None
        self.met[fault.name] = self.met.get(fault.name, 0) + 1
        if fault.clock:
            self._ahead[event_id] = fault.clock
            return None
        return fault

    def _judge(self, event_id: str, body: bytes, signature: str) -> bytes:
        """What MMOLove does, as far as these runs need it."""
        now = self._clock() + self._ahead.get(event_id, 0)
        headers = [f"Date: {formatdate(now, usegmt=True)}"]
        signed = Signature.parse(signature)
        if not signed.matches(body, SECRET) or abs(now - signed.timestamp) > WINDOW:
            return _answer(401, headers)
        if event_id in self.accepted:
            self.duplicates += 1
            return _answer(200, headers, b'{"ok":true,"duplicate":true}')
        self.accepted.add(event_id)
        return _answer(200, headers, _HONEST)

    def _misbehave(self, connection: socket.socket, fault: Fault) -> None:
        raw = fault.raw(self._clock())
        whole = len(raw) if fault.drip is None else fault.drip
        connection.sendall(raw[:whole])
        for place in range(whole, len(raw)):
            if self._closing.wait(0.02):
                return
            connection.sendall(raw[place : place + 1])
        if fault.reset:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class _Client(ReferralClient):
    """The package's own, watched."""

    def __init__(self, server: FaultServer, clock: Clock, timeout: float) -> None:
        super().__init__(
            server_id=SERVER_ID,
            secret=SECRET,
            endpoint=server.endpoint,
            timeout=timeout,
            clock=clock,
        )
        self.timeout = timeout
        self.posts = 0
        self.slowest = 0.0

    def send(self, body: bytes) -> Outcome:
        started = time.monotonic()
        self.posts += 1
        try:
            return super().send(body)
        finally:
            self.slowest = max(self.slowest, time.monotonic() - started)


class _Run:
    """An outbox, the package's own delivery and client, and the server that
    misbehaves.
    """

    def __init__(self, folder: Path, timeout: float, seed: int, rate: float) -> None:
        self.clock = Clock()
        self.random = random.Random(seed)
        self.rate = rate
        #: The fault that the next request for an event meets, by the event's id.
        self.planned: dict[str, Fault] = {}
        self.server = FaultServer(self._choose, self.clock)
        self.client = _Client(self.server, self.clock, timeout)
        path = folder / "outbox.db"
        self.outbox = SQLiteOutbox(path)
        settings = Settings.from_config(
            {
                "MMOLOVE_SERVER_ID": SERVER_ID,
                "MMOLOVE_REFERRAL_SECRET": SECRET,
                "MMOLOVE_ENDPOINT": self.server.endpoint,
                "MMOLOVE_OUTBOX": path,
                "MMOLOVE_TIMEOUT": timeout,
                "MMOLOVE_CONCURRENCY": 64,
            },
            folder,
        )
        self.delivery = Delivery(
            self.outbox,
            self.client,
            settings,
            Spool(path, SECRET),
            reward=lambda: None,
            report=lambda entry: None,
            clock=self.clock,
            uniform=lambda low, high: (
                low if rate == 0 else self.random.uniform(low, high)
            ),
        )
        self.attempted = 0
        self.rejected = 0

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self.outbox.close()

    def _choose(self, event_id: str) -> Fault | None:
        if event_id in self.planned:
            return self.planned.pop(event_id)
        if self.random.random() < self.rate:
            return self.random.choice(_ANSWERS)
        return None

    def add(self) -> str:
        """Record the next player's event, and give its id."""
        player = str(self.attempted)
        self.attempted += 1
        now = self.delivery.now()
        add(self.outbox, player, now=now, server_id=SERVER_ID)
        return f"reg-{player}"

    def turn(self) -> bool:
        """Do what is next due, and say whether there was anything."""
        due = self.delivery.next_due()
        if due is None:
            return False
        self.clock.time = max(self.clock.time, due / 1000)
        self.delivery.step()
        return True

    def refuse(self, fault: Fault) -> None:
        """Do what is next due while nobody listens."""
        before = self.client.posts
        self.server.close()
        self.turn()
        self.server.listen()
        met = self.server.met
        met[fault.name] = met.get(fault.name, 0) + self.client.posts - before

    def finish(self) -> None:
        """Let the server be honest, and send again what was rejected meanwhile."""
        self.rate = 0
        while self.turn():
            pass
        self.rejected = len(self.outbox.retry(self.delivery.now()))
        while self.turn():
            pass

    def report(self, name: str) -> Findings:
        """Compare what was recorded with what the server has."""
        server = self.server
        recorded = {f"reg-{number}" for number in range(self.attempted)}
        counts = self.outbox.inspector.summary().counts
        faults = [f"a request that none should make: {s}" for s in server.strays[:5]]
        faults += [
            f"left over: {count} {state}"
            for state, count in counts.items()
            if state != "accepted"
        ]
        # Two attempts: one more is made when the clock was found wrong.
        if self.client.slowest > 2 * self.client.timeout + 1:
            faults.append(f"an attempt took {self.client.slowest:.1f} s")
        return Findings(
            name,
            Counters(
                attempted=self.attempted,
                acknowledged=self.attempted,
                delivered=len(server.accepted),
                duplicate_posts=server.duplicates,
                lost=len(recorded - server.accepted),
                unexpected=len(server.accepted - recorded),
            ),
            figures={
                "kinds_of_fault": len(FAULTS),
                "kinds_met": len(server.met),
                "faults_met": sum(server.met.values()),
                "attempts": self.client.posts,
                "rejected_and_sent_again": self.rejected,
                "slowest_attempt_ms": round(self.client.slowest * 1000),
            },
            faults=faults,
        )


_ANSWERS = [fault for fault in FAULTS if not fault.refuses]
(_REFUSED,) = [fault for fault in FAULTS if fault.refuses]


def run(events: int | None, seed: int) -> Findings:
    """Meet each fault once, or ``events`` events with random faults."""
    with _elsewhere(), processes.scratch() as folder, Surprises() as surprises:
        timeout = TIMEOUT_LONG if events else TIMEOUT
        bench = _Run(folder, timeout, seed, RATE if events else 0)
        try:
            wrong = _each(bench) if events is None else _many(bench, events)
            bench.finish()
            report = bench.report("faultserver")
        finally:
            bench.close()
    report.faults += wrong + surprises.words[:5]
    missed = {fault.name for fault in FAULTS} - {*bench.server.met}
    if missed and (events is None or events >= 200 * len(FAULTS)):
        report.faults.append(f"faults that were never met: {sorted(missed)}")
    return report


def _each(bench: _Run) -> list[str]:
    """Each fault for one event, and the honest answer for the next of its attempts."""
    wrong = []
    for fault in progress(FAULTS, "Misbehaving"):
        started = bench.clock.time
        event_id = bench.add()
        if fault.refuses:
            bench.refuse(fault)
        else:
            bench.planned[event_id] = fault
        while bench.turn():
            pass
        (entry,) = bench.outbox.of(event_id.removeprefix("reg-"), False).values()
        expected = "rejected" if fault.rejects else "accepted"
        if entry.state != expected:
            wrong.append(f"{fault.name}: {entry.state}, not {expected}")
        waited = bench.clock.time - started
        # Attempts are a second apart at least, and what is final waits for nothing.
        final = fault.accepts or fault.rejects or fault.clock
        pause = 0 if final else max(1, fault.pause)
        if not pause - 1 < waited <= pause + 1:
            wrong.append(f"{fault.name}: sent again after {waited:.1f} s, not {pause}")
        # So that no three refusals come in a row: those blame the settings.
        bench.add()
        while bench.turn():
            pass
    return wrong


def _many(bench: _Run, events: int) -> list[str]:
    """Many events at once, while a request in four meets some fault."""
    for start in progress(range(0, events, BATCH), "Misbehaving"):
        for _ in range(min(BATCH, events - start)):
            bench.add()
        if bench.random.random() < 0.1:
            bench.refuse(_REFUSED)
        while bench.turn():
            pass
    return []


@contextlib.contextmanager
def _elsewhere() -> t.Iterator[None]:
    """In a zone that is not UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "ELSEWHERE+5"
    time.tzset()
    try:
        yield
    finally:
        del os.environ["TZ"]
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


command = harness(
    click.option("--events", type=int, help="Random faults; without, each fault once."),
    click.option("--seed", default=7, show_default=True, help="Of the random faults."),
)(run)
command.name = "faultserver"
