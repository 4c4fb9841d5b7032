"""Why a request is refused: the status, what it means, and what to fix at the site."""

from __future__ import annotations

import typing as t


class Reason(t.NamedTuple):
    """One reason to refuse a request.

    :param status: The status of the response.
    :param text: What is wrong, for the owner of a game server.
    :param hint: What to fix.
    """

    status: int
    text: str
    hint: str


#: The reasons by the ``error`` of the response.
REASONS = {
    "missing_signature": Reason(
        400,
        "The request carries no X-MMOLove-Signature header.",
        "Sign every request; the referral secret must be set at the site.",
    ),
    "malformed_signature": Reason(
        400,
        "The X-MMOLove-Signature header does not have the form"
        " 't=<seconds>,v1=sha256=<hex>'.",
        "The time is in whole seconds, not milliseconds, and the hex in lower case.",
    ),
    "wrong_content_type": Reason(
        400,
        "The request does not say that it is JSON.",
        "Send 'Content-Type: application/json'.",
    ),
    "body_too_large": Reason(
        400,
        "The body is larger than 64 KiB.",
        "An event has seven short fields; send nothing else with it.",
    ),
    "malformed_json": Reason(
        400,
        "The body is not a JSON object in UTF-8.",
        "Serialise the event once, sign those bytes, and send those bytes.",
    ),
    "invalid_field": Reason(
        400,
        "A field is missing or has the wrong type.",
        "Send the same fields as the example in the documentation.",
    ),
    "unknown_server": Reason(
        404,
        "There is no server with this id.",
        "Compare MMOLOVE_SERVER_ID with the server id at the top of this page.",
    ),
    "referrals_off": Reason(
        404,
        "Referrals are switched off for this server.",
        "Switch them on in the Referrals tab of the server.",
    ),
    "no_secret": Reason(
        404,
        "This server has no referral secret yet.",
        "Create one in the Referrals tab of the server and set it at the site.",
    ),
    "bad_signature": Reason(
        401,
        "The signature does not match the body.",
        "Either MMOLOVE_REFERRAL_SECRET is not this server's secret, or the body was"
        " serialised again after it was signed.",
    ),
    "stale_signature": Reason(
        401,
        "The signature is more than five minutes off.",
        "Set the clock of the site's machine, and sign each attempt when it is made.",
    ),
    "unknown_token": Reason(
        404,
        "This token was not minted here for this server.",
        "Start again from the share link; tokens of the real service are not known"
        " here, nor the other way round.",
    ),
    "referral_closed": Reason(
        422,
        "This referral was reversed or rejected; that is final.",
        "Nothing to fix, and no reward is due.",
    ),
    "referral_expired": Reason(
        422,
        "The token is older than 90 days and was never registered.",
        "Nothing to fix: the player came too late.",
    ),
    "not_registered": Reason(
        422,
        "'qualified' came before 'registered'.",
        "Report 'registered' first, and wait until it is accepted.",
    ),
}


class Refused(Exception):
    """Raised by a rule that refuses a request.

    :param error: A key of :data:`REASONS`.
    :param text: What exactly is wrong, if more than the reason's own text is known.
    """

    def __init__(self, error: str, text: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.reason = REASONS[error]
        if text is not None:
            self.reason = self.reason._replace(text=text)
