"""What a response means: one table for every status, and the fields of a success."""

import enum
import json
import typing as t

from ..text import printable
from .clock import read_date

#: The longest pause in seconds that a ``Retry-After`` can ask for.
RETRY_AFTER_LIMIT = 3600


class Verdict(enum.Enum):
    """What to do with an event after a delivery attempt."""

    #: Nothing: MMOLove has it.
    ACCEPTED = "accepted"
    #: Nothing: another referrer was first, so there is no reward.
    IGNORED = "ignored"
    #: Do not retry it: the event is at fault.
    REJECTED = "rejected"
    #: Fix the settings: every event would be refused.
    REFUSED = "refused"
    #: Retry it later: MMOLove or the network is at fault.
    RETRY = "retry"


_WRONG_ENDPOINT = (
    Verdict.REFUSED,
    "MMOLOVE_ENDPOINT is not where MMOLove accepts events: leave it out.",
)

#: What a status other than 200 means, and a hint for whoever reads it.
MEANINGS: dict[int, tuple[Verdict, str]] = {
    400: (Verdict.REJECTED, "MMOLove could not read the event."),
    401: (
        Verdict.REFUSED,
        "MMOLove refused the signature: compare MMOLOVE_REFERRAL_SECRET with the "
        "Referrals tab, and check this machine's clock.",
    ),
    403: (
        Verdict.REFUSED,
        "MMOLove, or a firewall in front of it, forbids the request: check the "
        "Referrals tab and the firewalls between here and there.",
    ),
    404: (
        Verdict.REFUSED,
        "MMOLove does not know the server or the token: compare MMOLOVE_SERVER_ID and "
        "MMOLOVE_ENDPOINT with the Referrals tab, and check that referrals are "
        "switched on there and that a secret exists.",
    ),
    405: _WRONG_ENDPOINT,
    408: (Verdict.RETRY, "MMOLove waited too long for the request."),
    410: _WRONG_ENDPOINT,
    421: _WRONG_ENDPOINT,
    422: (
        Verdict.REJECTED,
        "MMOLove does not allow this step now: it does not know the player's "
        "'registered', or the referral is closed.",
    ),
    425: (Verdict.RETRY, "MMOLove asks to send it later."),
    429: (Verdict.RETRY, "MMOLove asks to send more slowly."),
}

_REDIRECT = (
    Verdict.REFUSED,
    "MMOLOVE_ENDPOINT responds with a redirect, which is never followed: it could lead "
    "the signed event elsewhere. Set MMOLOVE_ENDPOINT to the final address.",
)
_CLIENT_ERROR = (Verdict.REJECTED, "MMOLove refused the event.")
_SERVER_ERROR = (Verdict.RETRY, "MMOLove has a problem of its own.")
_NOT_MMOLOVE = (
    Verdict.RETRY,
    "The response is not MMOLove's: a proxy or a login page may be in between.",
)


class Outcome(t.NamedTuple):
    """What a delivery attempt has led to.

    :param status: The HTTP status; 0 if no complete response came.
    :param body: The response's body, or what went wrong on the way.
    :param verdict: What to do with the event now.
    :param hint: What the response means, for a person to read.
    :param credited: Whether the referrer was credited, now or in an earlier attempt.
        After a ``qualified`` the reward is due then.
    :param referral_id: MMOLove's id of the referral, if the response contained it.
    :param retry_after: Seconds to wait before the next attempt, if MMOLove asks for it.
    :param clock: Seconds by which MMOLove's clock is ahead of ours, if known.
    :param took: Seconds that the attempt took.
    """

    status: int
    body: str
    verdict: Verdict
    hint: str = ""
    credited: bool = False
    referral_id: str | None = None
    retry_after: int = 0
    clock: float | None = None
    took: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether MMOLove accepted the event, now or in an earlier attempt."""
        return self.verdict in (Verdict.ACCEPTED, Verdict.IGNORED)


def read_response(
    status: int,
    headers: t.Mapping[str, str],
    content: bytes,
    now: float,
    clock: float | None = None,
) -> Outcome:
    """Read what a response means.

    :param now: Our time in Unix seconds, for a ``Retry-After`` that is a date.
    :param clock: As :class:`Outcome` has it.
    """
    body = content.decode("utf-8", "replace")
    if status == 200:
        return _read_success(body, clock)
    verdict, hint = meaning_of(status)
    retry_after = 0
    if verdict is Verdict.RETRY:
        retry_after = _read_retry_after(headers.get("Retry-After", ""), now)
    return Outcome(status, body, verdict, hint, retry_after=retry_after, clock=clock)


def meaning_of(status: int) -> tuple[Verdict, str]:
    """What a status other than 200 means, and a hint."""
    if status in MEANINGS:
        return MEANINGS[status]
    if 300 <= status < 400:
        return _REDIRECT
    if 400 <= status < 500:
        return _CLIENT_ERROR
    return _SERVER_ERROR if status >= 500 else _NOT_MMOLOVE


def response_line(status: int | None, body: str | None) -> str:
    """A response on one line, for logs and pages: of MMOLove's JSON only what it says.

    :param status: As :class:`Outcome` has it.
    :param body: As :class:`Outcome` has it.
    """
    line = printable(" ".join(_said(body or "")[:300].split()))
    if not status:
        return line
    return f"HTTP {status}: {line}" if line else f"HTTP {status}"


def _said(body: str) -> str:
    if body.lstrip().startswith("<"):
        return "a page of HTML"  # a proxy's, and long
    fields = _read_json(body)
    for name in ("error", "ignored", "duplicate", "state"):
        if fields.get(name) is True:
            return name
        if isinstance(fields.get(name), str):
            return str(fields[name])
    return body


def _read_success(body: str, clock: float | None) -> Outcome:
    fields = _read_json(body)
    if fields.get("ok") is not True:
        return Outcome(200, body, *_NOT_MMOLOVE, clock=clock)
    if fields.get("ignored"):
        hint = "Another referrer registered this player first."
        return Outcome(200, body, Verdict.IGNORED, hint, clock=clock)
    credited = fields.get("state") == "qualified" or fields.get("duplicate") is True
    referral_id = fields.get("referral_id")
    return Outcome(
        200,
        body,
        Verdict.ACCEPTED,
        credited=credited and not fields.get("test"),
        referral_id=referral_id if isinstance(referral_id, str) else None,
        clock=clock,
    )


def _read_json(body: str) -> dict[str, t.Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _read_retry_after(value: str, now: float) -> int:
    if value.isascii() and value.strip().isdigit():
        seconds = float(value.strip()[:12])
    else:
        date = read_date(value)
        seconds = 0.0 if date is None else date - now
    return int(min(max(seconds, 0), RETRY_AFTER_LIMIT))
