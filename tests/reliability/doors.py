"""Strangers at every door: a great many requests, made by lot.

**What runs.** A site with the extension, its invite page and its dashboard, and views
that pass foreign text to ``hold()``, ``unseal()``, ``registered()`` and ``qualify()``;
beside it the sandbox. Both are called as WSGI applications, without a network, with
requests that no client library would send: see ``visitor.py``. They are made from a
seed, in batches with a new site each, on all processors.

**What is measured.** For each request: that it is answered, and not with a 5xx; that
nothing is logged as an error, nor one warning again and again, and no log line holds a
control character; that the store is as before, unless the request had a right to
change it; that a redirect stays on the site or leads to MMOLove; that no foreign
markup comes back as it is; that whoever the dashboard refuses gets what an unknown URL
gets; that nothing embedded captures a token; and that what sets a cookie of ours is
kept out of shared caches.

**Why it can fail.** Whether a request had a right is judged by its raw bytes, not by
what the package made of it. A door that refuses everybody would pass all of that; so it
is counted how many came in, and a run in which one of those counts is nought fails.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import logging
import multiprocessing
import os
import re
import traceback
import typing as t
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from urllib.parse import unquote_to_bytes
from urllib.parse import urlsplit

import click

from flask_mmolove import signals

from . import processes
from .doorsite import DoorSite
from .doorsite import GAME_KEY
from .doorsite import HOST
from .report import Findings
from .report import harness
from .report import progress
from .server import SECRET
from .visitor import DOORS
from .visitor import EMBEDDED
from .visitor import Environ
from .visitor import FOREIGN
from .visitor import MARKUP
from .visitor import Visitor

#: Requests to one site, until there is a new one.
BATCH = 4_000

#: How often one warning may come in a batch.
WARNINGS = 20

#: What has to happen at least once in a run.
DEPTHS = (
    "captured",
    "invited",
    "recorded",
    "unsealed",
    "held",
    "qualified",
    "forms_accepted",
    "events_retried",
    "refused",
    "links_followed",
    "events_accepted",
)

#: What is wrong, and with what.
Flaw = tuple[str, object]

_CLASSES = ("2xx", "3xx", "4xx", "5xx")
_OURS = ("mmolove_ref=", "mmolove_inviter=", "mmolove_referrer=")
_SIGNATURE = re.compile(r"\s*t=(\d+),v1=sha256=([0-9a-f]{64})(?:,.*)?")
_NOT_SIGNED = re.compile(rb"[^\w.-]", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass
class Answer:
    """What came back.

    :param changed: Whether something was written to the site's outbox meanwhile.
    :param captured: Whether a token was.
    """

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    changed: bool = False
    captured: bool = False

    def header(self, name: str) -> str:
        """A header's values."""
        return ", ".join(v for key, v in self.headers if key.lower() == name)


@dataclass
class Result:
    """What a batch counted.

    :param statuses: Requests by door and class of status.
    :param reached: How many came how far; see :data:`DEPTHS`.
    :param failures: How many of each kind.
    :param examples: The first of each, with what is needed to see it again.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, other: Result) -> None:
        """Count another batch's too."""
        self.statuses += other.statuses
        self.reached += other.reached
        self.failures += other.failures
        self.examples = other.examples | self.examples


def run(requests: int, seed: int, only: int | None) -> Findings:
    """Send requests of every shape to every route, on all processors."""
    numbers = range(requests) if only is None else range(only, only + 1)
    batches = [numbers[i : i + BATCH] for i in range(0, len(numbers), BATCH)]
    result = Result()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn) as pool:
        futures = [pool.submit(knock, seed, batch) for batch in batches]
        for future in progress(futures, "Knocking"):
            result.add(future.result())
    faults = [
        f"{kind}: {count}\n{result.examples[kind]}"
        for kind, count in result.failures.most_common()
    ]
    if only is None:
        faults += [f"never: {name}" for name in DEPTHS if not result.reached[name]]
    return Findings(
        "doors",
        figures={
            "requests": sum(result.statuses.values()),
            "failures": result.failures.total(),
            **{name: result.reached[name] for name in DEPTHS},
        },
        rows=[_row(door, result.statuses) for door in DOORS],
        faults=faults,
    )


def _row(door: str, statuses: Counter[tuple[str, str]]) -> dict[str, t.Any]:
    classes = {name: statuses[door, name] for name in _CLASSES}
    return {"door": door, "requests": sum(classes.values()), **classes}


def knock(seed: int, numbers: t.Iterable[int]) -> Result:
    """Make the requests with some numbers to a new site.

    :param seed: Of the whole run.
    """
    # Werkzeug leaves the files of a form open that breaks off.
    warnings.simplefilter("ignore", ResourceWarning)
    with processes.scratch() as folder, ExitStack() as stack:
        with _quiet():
            site = DoorSite(folder)
        stack.callback(site.close)
        listener = stack.enter_context(_listen())
        guard = Guard(site, listener)
        visitor = Visitor(site)
        for number in numbers:
            name = f"request {number} of seed {seed}"
            guard.try_door(name, *visitor.make(seed, number))
    return guard.result


class Guard:
    """Makes requests, and says what is wrong with the answers."""

    def __init__(self, site: DoorSite, listener: Listener) -> None:
        self.result = Result()
        self._site = site
        self._listener = listener
        self._forms = [
            (_core(owner.cookie), _core(owner.token)) for owner in site.owners
        ]
        self._mmolove = urlsplit(site.sandbox.endpoint).netloc

    def try_door(self, name: str, door: str, environ: Environ) -> None:
        """Make one request.

        :param name: How it is found again.
        """
        body = environ["wsgi.input"].getvalue()
        app = self._site.sandbox.app if door == "sandbox" else self._site.app
        try:
            answer = self._call(app, environ)
        except Exception:
            answer = Answer(599)
            self._listener.errors.append(("escaped", traceback.format_exc()))
        self._count(door, environ, answer)
        wrong = [*self._listener.take(), *self._judge(door, environ, body, answer)]
        for what, detail in wrong:
            kind = f"{door}: {what}"
            self.result.failures[kind] += 1
            example = f"  {name}: {_show(environ)}\n  {detail}"
            self.result.examples.setdefault(kind, example)

    def _call(self, app: t.Any, environ: Environ) -> Answer:
        answer = Answer()

        def start(status: str, headers: list[tuple[str, str]], *error: t.Any) -> t.Any:
            answer.status = int(status[:3])
            answer.headers = headers

        chunks = app(environ, start)
        try:
            answer.body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        answer.changed = self._site.has_changed()
        answer.captured = self._listener.captured
        return answer

    def _count(self, door: str, environ: Environ, answer: Answer) -> None:
        reached = self.result.reached
        self.result.statuses[door, f"{answer.status // 100}xx"] += 1
        reached.update(self._listener.happened)
        if door == "invite" and self._leads_to_mmolove(answer):
            reached["invited"] += 1
        elif door == "unseal" and answer.body == b"unsealed":
            reached["unsealed"] += 1
        elif door == "hold" and answer.changed:
            reached["held"] += 1
        elif door == "game" and answer.changed:
            reached["qualified"] += 1
        elif door == "dashboard" and answer.status == 303:
            reached["forms_accepted"] += 1
        elif door == "dashboard" and not self._is_owner(environ):
            reached["refused"] += 1
        elif door == "sandbox" and answer.status == 302:
            reached["links_followed"] += 1
        elif door == "sandbox" and b'"ok":true' in answer.body:
            reached["events_accepted"] += 1

    def _leads_to_mmolove(self, answer: Answer) -> bool:
        return urlsplit(answer.header("location")).netloc == self._mmolove

    # -- what must not be --------------------------------------------------------------

    def _judge(
        self, door: str, environ: Environ, body: bytes, answer: Answer
    ) -> t.Iterator[Flaw]:
        if answer.status >= 500:
            yield "a status of a failure", answer.status
        if answer.changed and not self._may_change(door, environ, body):
            yield "the store was changed", answer.status
        if location := answer.header("location"):
            if door != "sandbox" and not self._may_lead(environ, location):
                yield "a redirect led elsewhere", location
        if any(map(answer.body.__contains__, _MARKUP)):
            if "json" not in answer.header("content-type"):
                yield "foreign markup came back as it was", answer.body
        yield from _judge_headers(answer)
        if door == "sandbox":
            yield from _judge_sandbox(environ, body, answer)
        else:
            yield from self._judge_visit(door, environ, answer)

    def _judge_visit(
        self, door: str, environ: Environ, answer: Answer
    ) -> t.Iterator[Flaw]:
        if _is_embedded(environ):
            if answer.captured:
                yield "what was embedded captured a token", answer.headers
            if door == "invite" and self._leads_to_mmolove(answer):
                yield "what was embedded was invited", answer.headers
        sets_ours = any(name in answer.header("set-cookie") for name in _OURS)
        if sets_ours or answer.captured:
            kept = answer.header("cache-control")
            if not re.search("private|no-store", kept):
                yield "shared caches keep a visitor's token", answer.headers
        path = environ["PATH_INFO"]
        # Double slashes Werkzeug takes out itself, wherever there is a page then.
        if path.startswith("/mmolove") and "//" not in path:
            if not self._is_owner(environ):
                yield from self._judge_refusal(environ, answer)

    def _judge_refusal(self, environ: Environ, answer: Answer) -> t.Iterator[Flaw]:
        """Ask for what is not there in the same way, and compare."""
        unknown = self._call(self._site.app, _ask_again(environ, "/nowhere"))
        self._listener.take()
        if (answer.status, answer.body) != (unknown.status, unknown.body):
            yield "refused otherwise than an unknown URL", answer
        elif environ["PATH_INFO"].startswith("/mmolove/static/"):
            return  # a static file captures nothing, and sets no cookie
        elif _names(answer) != _names(unknown):
            yield "refused with headers of its own", answer.headers

    def _may_change(self, door: str, environ: Environ, body: bytes) -> bool:
        if environ["REQUEST_METHOD"].upper() != "POST":  # as Werkzeug reads it
            return False
        if door == "dashboard":
            cookies, text = _clean(_raw(environ, "HTTP_COOKIE")), _clean(body)
            return any(c in cookies and form in text for c, form in self._forms)
        if door == "game":
            return environ.get("HTTP_X_GAME_KEY") == GAME_KEY
        if door == "hold" and environ["PATH_INFO"] == "/hold":
            return "mmref=" in environ["QUERY_STRING"] or "HTTP_COOKIE" in environ
        return door in {"capture", "signup", "hold", "unseal"}

    def _is_owner(self, environ: Environ) -> bool:
        cookies = _clean(_raw(environ, "HTTP_COOKIE"))
        return any(cookie in cookies for cookie, _ in self._forms)

    def _may_lead(self, environ: Environ, location: str) -> bool:
        if environ.get("HTTP_HOST") not in {HOST, FOREIGN}:
            return (
                True  # no browser asks for it: Werkzeug leads back where it came from
            )
        # As a browser reads it.
        parts = urlsplit(re.sub(r"[\t\r\n]", "", location).strip().replace("\\", "/"))
        if not parts.netloc:
            return not parts.scheme and not parts.path.startswith("//")
        hosts = {self._mmolove, environ["HTTP_HOST"]}
        return parts.scheme == "http" and parts.netloc in hosts


_MARKUP = [text.encode() for text in MARKUP]


def _judge_headers(answer: Answer) -> t.Iterator[Flaw]:
    for name, value in answer.headers:
        try:
            (name + value).encode("latin-1")
        except UnicodeEncodeError:
            yield "a header that no server can send", (name, value)
        if "\n" in value or "\r" in value:
            yield "a header with a line end", (name, value)


def _judge_sandbox(environ: Environ, body: bytes, answer: Answer) -> t.Iterator[Flaw]:
    if answer.status < 400 and FOREIGN in environ.get("HTTP_HOST", ""):
        yield "a foreign host was answered", answer.status
    if b'"ok":true' in answer.body and not _is_signed(environ, body):
        yield "an event that was not signed was taken", answer.body


def _is_signed(environ: Environ, body: bytes) -> bool:
    header = _SIGNATURE.match(environ.get("HTTP_X_MMOLOVE_SIGNATURE", ""))
    if header is None or environ["REQUEST_METHOD"].upper() != "POST":
        return False
    length = environ.get("CONTENT_LENGTH")
    # Whoever cannot read the length reads what there is.
    sent = body[: int(length)] if length and length.isdecimal() else body
    message = header[1].encode() + b"." + sent
    return hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest() == header[2]


def _is_embedded(environ: Environ) -> bool:
    target, origin = (
        environ.get(f"HTTP_SEC_FETCH_{name}") for name in ("DEST", "SITE")
    )
    return target in EMBEDDED or (target == "empty" and origin == "cross-site")


def _core(signed: str) -> bytes:
    # The last letter of a signature has spare bits.
    return signed[:-1].encode()


def _clean(data: bytes) -> bytes:
    """What a decoder makes of a signed text somewhere: it skips foreign letters, and
    takes those of the other base64 for the same.
    """
    letters = unquote_to_bytes(data).replace(b"+", b"-").replace(b"/", b"_")
    return _NOT_SIGNED.sub(b"", letters)


def _ask_again(environ: Environ, path: str) -> Environ:
    """The same request for another path."""
    fresh = {k: v for k, v in environ.items() if k.isupper() or k.startswith("wsgi.")}
    body = io.BytesIO(environ["wsgi.input"].getvalue())
    return {**fresh, "PATH_INFO": path, "wsgi.input": body}


def _names(answer: Answer) -> list[tuple[str, str]]:
    """The headers; of cookies, which are dated, only the names."""
    return [
        (name, value.partition("=")[0] if name == "Set-Cookie" else value)
        for name, value in answer.headers
    ]


def _raw(environ: Environ, name: str) -> bytes:
    return t.cast(str, environ.get(name, "")).encode("latin-1")


def _show(environ: Environ) -> str:
    body = environ["wsgi.input"].getvalue()
    shown = {name: value for name, value in environ.items() if name.isupper()}
    text = f"{shown!r} body {body!r}"
    return text if len(text) < 4_000 else f"{text[:4_000]}…"


# -- what is heard besides -------------------------------------------------------------


class Listener(logging.Handler):
    """Hears the log and the signals."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[Flaw] = []
        self.happened: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()

    @property
    def captured(self) -> bool:
        return bool(self.happened["captured"])

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.ERROR or record.exc_info:
            error = record.exc_info and record.exc_info[0]
            what = error.__name__ if error else record.msg
            self.errors.append((f"logged {what}", self.format(record)))
        elif record.funcName.startswith("warn_of_"):
            pass  # once for each account, which is what its owner wants to know
        elif self._warnings[record.msg] == WARNINGS:
            self.errors.append((f"warned too often: {record.msg}", message))
        if _CONTROL.search(message):
            self.errors.append(("logged a control character", repr(message)))
        self._warnings[record.msg] += 1

    def count(self, name: str, sender: t.Any, **arguments: t.Any) -> None:
        self.happened[name] += 1

    def take(self) -> list[Flaw]:
        """The errors of a request; the next one begins afresh."""
        errors, self.errors = self.errors, []
        self.happened.clear()
        return errors


@contextmanager
def _listen() -> t.Iterator[Listener]:
    listener = Listener()
    root = logging.getLogger()
    root.addHandler(listener)
    try:
        with ExitStack() as stack:
            for name, signal in _SIGNALS.items():
                count = partial(listener.count, name)
                stack.enter_context(signal.connected_to(count))
            yield listener
    finally:
        root.removeHandler(listener)


_SIGNALS = {
    "captured": signals.referral_captured,
    "recorded": signals.event_recorded,
    "events_retried": signals.event_retried,
}


@contextmanager
def _quiet() -> t.Iterator[None]:
    """Log nothing: a new site has events that were refused, and a game that is down."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


command = harness(
    click.option("--requests", default=100_000, show_default=True, help="How many."),
    click.option("--seed", default=1, show_default=True, help="What makes them."),
    click.option("--only", type=int, help="Only the request with this number."),
)(run)
