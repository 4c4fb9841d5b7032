"""The rules of the contract, in the contract's order."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field

from ..errors import SignatureError
from ..protocol.signature import Signature
from ..protocol.wire import WINDOW
from . import tokens
from .ledger import Ledger
from .ledger import Referral
from .reasons import Refused
from .received import ReceivedEvent


@dataclass(frozen=True)
class Server:
    """A game server as MMOLove knows it.

    :param id: The server id.
    :param secret: Its referral secret; ``None`` until the owner creates one.
    :param registration_url: Where a share link leads.
    :param referrals: Whether the owner has referrals switched on.
    """

    id: str
    secret: str | None = field(repr=False)
    registration_url: str
    referrals: bool = True


@dataclass(frozen=True)
class Message:
    """A request, before anything in it is checked.

    :param body: The raw bytes; ``None`` if there were too many.
    :param signature: The value of ``X-MMOLove-Signature``, if it was sent.
    :param content_type: The media type, without parameters.
    """

    body: bytes | None = field(repr=False)
    signature: str | None
    content_type: str = "application/json"


@dataclass(frozen=True)
class Decision:
    """The response to a request, and why.

    :param outcome: As in :class:`~flask_mmolove.sandbox.Arrival`.
    """

    status: int | None
    response: dict[str, t.Any]
    outcome: str
    reason: str
    hint: str = ""


_TEST = Decision(
    200,
    {"ok": True, "test": True},
    "test",
    "A dry run: everything was verified, nothing was stored.",
    "No reward is due for a dry run.",
)
_DUPLICATE = Decision(
    200,
    {"ok": True, "duplicate": True},
    "duplicate",
    "Exactly this event was accepted before.",
    "Nothing to fix: sending it again was harmless.",
)
_FIRST_TOUCH = Decision(
    200,
    {"ok": True, "ignored": "first_touch_conflict"},
    "ignored",
    "Another referrer registered this account first.",
    "Nothing to fix; this referral never earns a reward.",
)


def decide(
    message: Message, servers: t.Mapping[str, Server], ledger: Ledger, now: float
) -> Decision:
    """Check a request and store an accepted event, in a transaction of the ledger."""
    try:
        signature = _read_signature(message)
        body = _read_body(message)
        event = ReceivedEvent.parse(body)
        server_id, secret = _find_secret(event, servers)
        _authenticate(signature, body, secret, now)
        if event.test:
            return _TEST
        referral = find_referral(ledger, event.token, server_id)
        if ledger.has_accepted(event.key):
            return _DUPLICATE
        if _lost_first_touch(event, referral, ledger):
            return _FIRST_TOUCH
        return _advance(event, referral, ledger, now)
    except Refused as refused:
        status, text, hint = refused.reason
        return Decision(status, {"error": refused.error}, "refused", text, hint)


def find_referral(ledger: Ledger, token: str, server_id: str) -> Referral:
    """The referral of a token. The ledger of an earlier run may be lost; then its token
    is added again, which holds all that is needed.

    :raises Refused: If it was not minted for this server.
    """
    content = tokens.read(token, server_id)
    if content is None:
        raise Refused("unknown_token")
    referral = ledger.referral(token)
    if referral is None:
        referral = Referral(token, server_id, content.ref, content.expires)
        ledger.add(referral)
    return referral


def _read_signature(message: Message) -> Signature:
    if message.signature is None:
        raise Refused("missing_signature")
    try:
        return Signature.parse(message.signature)
    except SignatureError as e:
        raise Refused("malformed_signature") from e


def _read_body(message: Message) -> bytes:
    # The contract has neither 413 nor 415; a permanent fault of the site's is 400.
    if message.body is None:
        raise Refused("body_too_large")
    if message.content_type != "application/json":
        raise Refused("wrong_content_type")
    return message.body


def _find_secret(
    event: ReceivedEvent, servers: t.Mapping[str, Server]
) -> tuple[str, str]:
    server = servers.get(event.server_id)
    if server is None:
        raise Refused("unknown_server")
    if not server.referrals:
        raise Refused("referrals_off")
    if not server.secret:
        raise Refused("no_secret")
    return server.id, server.secret


def _authenticate(signature: Signature, body: bytes, secret: str, now: float) -> None:
    if not signature.matches(body, secret):
        raise Refused("bad_signature")
    behind = now - signature.timestamp
    if abs(behind) > WINDOW:
        side = "behind" if behind > 0 else "ahead of"
        raise Refused(
            "stale_signature",
            f"The signature's time is {abs(behind):.0f} s {side} the clock here;"
            f" {WINDOW} s are allowed.",
        )


def _lost_first_touch(event: ReceivedEvent, referral: Referral, ledger: Ledger) -> bool:
    # Ignored events never become duplicates: `duplicate` tells a site that the referral
    # was credited, which this one never is.
    if referral.state == "ignored":
        return True
    if event.referee_identity is None:
        return False
    anchored = ledger.anchored(referral.server_id, event.referee_identity)
    if anchored is None or anchored.token == referral.token:
        return False
    # A token that lost never earns a reward, whoever it names next. One that has a
    # referee of its own keeps that.
    if referral.state == "clicked":
        ledger.move(referral.token, "ignored")
    return True


def _advance(
    event: ReceivedEvent, referral: Referral, ledger: Ledger, now: float
) -> Decision:
    state = _next_state(event, referral, now)
    # Another referee does not move the anchor: a referral has one referee.
    referee = event.referee_identity if referral.state == "clicked" else None
    ledger.move(referral.token, state, referee)
    ledger.accept(event.key)
    response = {"ok": True, "referral_id": referral.id, "state": state}
    moved = "is now" if state != referral.state else "was already"
    return Decision(200, response, "accepted", f"The referral {moved} {state}.")


def _next_state(event: ReceivedEvent, referral: Referral, now: float) -> str:
    # The endpoint accepts `reversed`, and acts on the other two only.
    if event.event == "reversed":
        return referral.state
    if referral.state in {"reversed", "rejected"}:
        raise Refused("referral_closed")
    # Only what was never registered expires; a registered referral can still qualify.
    if referral.state == "clicked" and now >= referral.expires:
        raise Refused("referral_expired")
    if referral.state == "clicked" and event.event == "qualified":
        raise Refused("not_registered")
    return "qualified" if referral.state == "qualified" else event.event
