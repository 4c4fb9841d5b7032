"""One signed POST to MMOLove, and what its answer means. Usable without Flask."""

from __future__ import annotations

import enum
import json
import os
import threading
import time
import typing as t
from datetime import timezone
from email.utils import parsedate_to_datetime
from functools import cached_property

from ..errors import ConfigError
from ..log import logger
from ..text import mask
from ..text import printable
from .checks import check_ca_bundle
from .checks import check_endpoint
from .checks import check_key_id
from .checks import check_text
from .checks import is_local
from .proxy import innermost
from .proxy import read_proxy
from .proxy import why
from .wire import ENDPOINT
from .wire import Event
from .wire import sign_referral_body

if t.TYPE_CHECKING:
    from .transport import Transport

C = t.TypeVar("C")

#: Seconds for which an answer may ask us to stay away.
RETRY_AFTER_LIMIT = 3600

#: Seconds by which our clock must differ from MMOLove's to be corrected.
CLOCK_TOLERANCE = 60

#: What MMOLove's clock may show, in Unix seconds: the years 2020 to 2099. A ``Date``
#: outside them is a mistake. Our own clock may be as wrong as that: some machines start
#: in 1970.
PLAUSIBLE = (1_577_836_800, 4_102_444_800)


class Verdict(enum.Enum):
    """What is to be done about an event after an attempt."""

    ACCEPTED = "accepted"  # done
    IGNORED = "ignored"  # done: another referrer was first, never a reward
    REJECTED = "rejected"  # this event is at fault: not sent again by itself
    REFUSED = "refused"  # the settings are at fault: every event would meet it
    RETRY = "retry"  # the host or the way to it is at fault


_WRONG_ADDRESS = "MMOLOVE_ENDPOINT is not where MMOLove takes events: leave it out."

#: What a status other than 200 means, and a hint for the person who reads it.
ANSWERS: dict[int, tuple[Verdict, str]] = {
    400: (Verdict.REJECTED, "MMOLove could not read the event."),
    401: (
        Verdict.REFUSED,
        "MMOLove refused the signature: compare MMOLOVE_REFERRAL_SECRET with the "
        "Referrals tab, and this machine's clock with the time.",
    ),
    403: (
        Verdict.REFUSED,
        "MMOLove, or something in front of it, forbids the request: look at the "
        "Referrals tab, and at firewalls on the way.",
    ),
    404: (
        Verdict.REFUSED,
        "MMOLove does not know the server or the token: compare MMOLOVE_SERVER_ID and "
        "MMOLOVE_ENDPOINT with the Referrals tab, and see that referrals are switched "
        "on there and a secret was made.",
    ),
    405: (Verdict.REFUSED, _WRONG_ADDRESS),
    408: (Verdict.RETRY, "MMOLove waited too long for the request."),
    410: (Verdict.REFUSED, _WRONG_ADDRESS),
    421: (Verdict.REFUSED, _WRONG_ADDRESS),
    422: (
        Verdict.REJECTED,
        "MMOLove does not allow this step now: its 'registered' is not known there.",
    ),
    425: (Verdict.RETRY, "MMOLove asks to send it later."),
    429: (Verdict.RETRY, "MMOLove asks to send more slowly."),
}

_REDIRECT = (
    Verdict.REFUSED,
    "MMOLOVE_ENDPOINT answers with a redirect, which is never followed: a signature "
    "would travel with it. Set MMOLOVE_ENDPOINT to the final address.",
)
_CLIENT_ERROR = (Verdict.REJECTED, "MMOLove refused the event.")
_SERVER_ERROR = (Verdict.RETRY, "MMOLove has trouble of its own.")
_NO_MMOLOVE = (
    Verdict.RETRY,
    "The answer was not MMOLove's: a proxy or a login page may stand in between.",
)


class Outcome(t.NamedTuple):
    """What came of an attempt.

    :param status: The HTTP status; 0 where no whole answer came.
    :param ok: Whether MMOLove took the event, or had it already.
    :param body: The answer's text, or what went wrong on the way.
    :param verdict: What is to be done now.
    :param hint: What it means, for the person who reads it.
    :param credited: Whether the referrer was credited, now or in an earlier attempt:
        on ``qualified`` the reward is due.
    :param referral_id: MMOLove's name for the referral, where the answer carried it.
    :param retry_after: Seconds for which the host asks to be left alone.
    :param clock: Seconds by which MMOLove's clock is ahead of ours, where it is known.
    """

    status: int
    ok: bool
    body: str
    verdict: Verdict
    hint: str = ""
    credited: bool = False
    referral_id: str | None = None
    retry_after: int = 0
    clock: float | None = None


class SignedBody(t.NamedTuple):
    """The exact bytes to send, and the value of ``X-MMOLove-Signature`` for them."""

    body: bytes
    signature: str

    def __repr__(self) -> str:
        return f"<SignedBody of {len(self.body)} bytes>"


class ReferralClient:
    """Reports events to MMOLove, under the names of MMOLove's own SDK.

    .. code-block:: python

        client = ReferralClient(server_id="srv-1", secret="...")
        result = client.registered(
            token, referee_identity="7842", server_event_id="reg-7842"
        )
        if not result.ok:
            print(result.status, result.body)

    It is what the delivery sends with. Nothing is stored and nothing repeated here:
    that is the outbox's part. A client may be shared by threads, not by processes.

    :param server_id: The server's id at MMOLove.
    :param secret: The signing secret of the Referrals tab.
    :param endpoint: Where events go.
    :param key_id: Sent as ``kid`` with each signature.
    :param timeout: Seconds for one whole attempt.
    :param connections: How many connections are kept open.
    :param proxy: The URL of a proxy; it is not used for an endpoint on this machine.
    :param ca_bundle: The file of the certificates that are trusted, in place of those
        that requests brings.
    :param clock: Unix seconds; for tests.
    :raises ConfigError: If one of them can only fail.
    """

    def __init__(
        self,
        *,
        server_id: str,
        secret: str,
        endpoint: str = ENDPOINT,
        key_id: str | None = None,
        timeout: float = 10,
        connections: int = 4,
        proxy: str | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        self.server_id = _checked("server_id", server_id, check_text)
        self.endpoint = _checked("endpoint", endpoint, check_endpoint)
        self._secret = _checked("secret", secret, check_text)
        self._key_id = _checked("key_id", key_id or "", check_key_id)
        self._timeout = timeout
        self._connections = connections
        self._proxy = _checked("proxy", proxy or "", read_proxy)
        self._ca_bundle: str | None = None
        if ca_bundle is not None:
            file = os.fspath(ca_bundle)
            self._ca_bundle = _checked("ca_bundle", file, check_ca_bundle)
        self._clock = clock
        self._ahead = 0.0  # seconds by which MMOLove's clock was found ahead of ours
        self._lock = threading.Lock()

    @property
    def ahead(self) -> float:
        """Seconds by which MMOLove's clock was found ahead of ours, where that was too
        much to sign by ours; else 0.
        """
        return self._ahead

    def __repr__(self) -> str:
        return f"<ReferralClient {self.server_id!r} {mask(self.endpoint)!r}>"

    @cached_property
    def _transport(self) -> Transport:
        # requests costs more to import than Flask: a process that only records events,
        # or a request that waits for nothing, does without it.
        from .transport import Transport

        return Transport(
            self.endpoint,
            self._timeout,
            self._connections,
            proxy=self._proxy,
            ca_bundle=self._ca_bundle,
        )

    def registered(
        self,
        token: str,
        *,
        referee_identity: str,
        server_event_id: str,
        ts: int | None = None,
        test: bool = False,
    ) -> Outcome:
        """Report that a referred account exists.

        :param token: The captured ``mmref``.
        :param referee_identity: The account's stable id.
        :param server_event_id: The idempotency key, such as ``reg-7842``.
        :param ts: When it happened, in Unix seconds; now, unless given.
        :param test: A dry run: verified, written nowhere.
        :raises EventError: If MMOLove could only refuse it. Trouble on the way raises
            nothing: the outcome has status 0.
        """
        return self.send(
            self._event(
                "registered", token, server_event_id, ts, test, referee_identity
            ).encode()
        )

    def qualified(
        self,
        token: str,
        *,
        server_event_id: str,
        ts: int | None = None,
        test: bool = False,
    ) -> Outcome:
        """Report that a referred player reached the milestone.

        Takes, gives and raises what :meth:`registered` does; the token is the same, the
        ``server_event_id`` another, such as ``qual-7842``.
        """
        return self.send(
            self._event("qualified", token, server_event_id, ts, test).encode()
        )

    def sign(
        self,
        event: str,
        token: str,
        *,
        server_event_id: str,
        referee_identity: str | None = None,
        ts: int | None = None,
        test: bool = False,
    ) -> SignedBody:
        """Give the exact bytes and their signature, and send nothing.

        :raises EventError: If MMOLove could only refuse it.
        """
        body = self._event(
            event, token, server_event_id, ts, test, referee_identity
        ).encode()
        return SignedBody(body, self._sign(body))

    def send(self, body: bytes) -> Outcome:
        """Sign a body at this moment, POST it, and read the answer.

        If MMOLove refuses the signature and its ``Date`` shows that our clock is wrong,
        the body is signed once more by its clock, and so are all that follow.
        """
        outcome = self._attempt(body)
        if outcome.status == 401 and self._correct_clock(outcome.clock):
            outcome = self._attempt(body)
        return outcome

    def close(self) -> None:
        """Close the connections that are kept open."""
        if "_transport" in self.__dict__:
            self._transport.close()

    def _event(
        self,
        event: str,
        token: str,
        server_event_id: str,
        ts: int | None,
        test: bool,
        referee_identity: str | None = None,
    ) -> Event:
        return Event(
            event=event,
            token=token,
            server_id=self.server_id,
            server_event_id=server_event_id,
            ts=int(self._clock()) if ts is None else ts,
            referee_identity=referee_identity,
            test=test,
        )

    def _sign(self, body: bytes) -> str:
        moment = int(self._clock() + self._ahead)
        return sign_referral_body(
            body, self._secret, timestamp=moment, key_id=self._key_id or None
        )

    def _attempt(self, body: bytes) -> Outcome:
        from .transport import FAILURES

        started = self._clock()
        try:
            status, headers, content = self._transport.post(body, self._sign(body))
        except FAILURES as e:
            error = innermost(e)
            words = f"{type(error).__name__}: {error}"[:300]
            hint = why(
                error,
                self._transport.proxy,
                self._ca_bundle,
                is_local=is_local(self.endpoint),
            )
            return Outcome(0, False, words, Verdict.RETRY, hint)
        now = self._clock()
        clock = _read_clock(headers, (started + now) / 2)
        return read_answer(status, headers, content, now, clock)

    def _correct_clock(self, ahead: float | None) -> bool:
        if ahead is None or abs(ahead - self._ahead) <= CLOCK_TOLERANCE:
            return False
        with self._lock:
            self._ahead = ahead
        logger.warning(
            "This machine's clock is %.0f s %s MMOLove's; events are signed with the "
            "corrected time. Set the clock (NTP).",
            abs(ahead),
            "behind" if ahead > 0 else "ahead of",
        )
        return True


def _checked(name: str, value: str, check: t.Callable[[str], C]) -> C:
    if not isinstance(value, str):
        raise ConfigError(f"{name!r} must be a string, not {type(value).__name__}.")
    try:
        return check(value)
    except ValueError as e:
        raise ConfigError(f"{name!r} {e}.") from None


def read_answer(
    status: int,
    headers: t.Mapping[str, str],
    content: bytes,
    now: float,
    clock: float | None = None,
) -> Outcome:
    """Say what an answer means.

    :param now: Our clock in Unix seconds, for a ``Retry-After`` that is a date.
    """
    body = content.decode("utf-8", "replace")
    if status == 200:
        return _read_success(body, clock)
    verdict, hint = meaning_of(status)
    retry_after = 0
    if verdict is Verdict.RETRY:
        retry_after = _read_retry_after(headers.get("Retry-After", ""), now)
    return Outcome(
        status, False, body, verdict, hint, retry_after=retry_after, clock=clock
    )


def meaning_of(status: int) -> tuple[Verdict, str]:
    """What a status other than 200 means, and a hint."""
    if status in ANSWERS:
        return ANSWERS[status]
    if 300 <= status < 400:
        return _REDIRECT
    if 400 <= status < 500:
        return _CLIENT_ERROR
    return _SERVER_ERROR if status >= 500 else _NO_MMOLOVE


def said(status: int | None, words: str | None) -> str:
    """An answer in a line.

    :param status: As :class:`Outcome` has it.
    :param words: Its text, or what went wrong on the way.
    """
    line = printable(" ".join((words or "")[:300].split()))
    if not status:
        return line
    return f"HTTP {status}: {line}" if line else f"HTTP {status}"


def _read_success(body: str, clock: float | None) -> Outcome:
    answer = _read_json(body)
    if answer.get("ok") is not True:
        verdict, hint = _NO_MMOLOVE
        return Outcome(200, False, body, verdict, hint, clock=clock)
    if answer.get("ignored"):
        hint = "Another referrer registered this player first."
        return Outcome(200, True, body, Verdict.IGNORED, hint, clock=clock)
    credited = answer.get("state") == "qualified" or answer.get("duplicate") is True
    referral_id = answer.get("referral_id")
    return Outcome(
        200,
        True,
        body,
        Verdict.ACCEPTED,
        credited=credited and not answer.get("test"),
        referral_id=referral_id if isinstance(referral_id, str) else None,
        clock=clock,
    )


def _read_clock(headers: t.Mapping[str, str], middle: float) -> float | None:
    # It came over TLS or from this machine, so nobody on the way can have forged it;
    # but one with an age is of an answer that was kept.
    date = None if "Age" in headers else _read_date(headers.get("Date", ""))
    if date is None or not PLAUSIBLE[0] <= date < PLAUSIBLE[1]:
        return None
    # A ``Date`` has whole seconds: it names the middle of one at best.
    return date + 0.5 - middle


def _read_json(body: str) -> dict[str, t.Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _read_retry_after(value: str, now: float) -> int:
    if value.isascii() and value.strip().isdigit():
        seconds = float(value.strip()[:12])
    else:
        date = _read_date(value)
        seconds = 0.0 if date is None else date - now
    return int(min(max(seconds, 0), RETRY_AFTER_LIMIT))


def _read_date(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # "-0000" and the older forms mean UTC
            date = date.replace(tzinfo=timezone.utc)
        return date.timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
