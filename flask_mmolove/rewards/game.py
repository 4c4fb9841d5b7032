"""The endpoint for the game server, which knows who has reached the milestone."""

from __future__ import annotations

import json
import secrets
import typing as t

from flask import Blueprint
from flask import current_app
from flask import jsonify
from flask import request
from flask import Response

from ..errors import ConfigError
from ..errors import IdentityError
from ..errors import OutboxError
from ..identity import identify
from ..log import logger
from ..log import Throttle
from ..state import current_state
from .many import BATCH
from .many import qualify_all

#: Characters that the shared secret has at least.
SECRET_LENGTH = 32

#: Bytes that a request's body has at most.
BODY_LIMIT = 64 * 1024

#: Seconds after which the game may send again what could not be stored.
RETRY_AFTER = 5

_NEW_SECRET = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"


class _Refused(Exception):
    """A request that stores nothing, with its status and what to change."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def make_game(secret: str) -> Blueprint:
    """See :meth:`MMOLove.game`."""
    # A header can carry no other characters in a way that all clients agree on.
    is_text = isinstance(secret, str) and secret.isascii()
    if not is_text or len(secret.strip()) < SECRET_LENGTH:
        raise ConfigError(
            f"mmolove.game(secret=...) needs a secret of at least {SECRET_LENGTH} "
            f"ASCII characters, which only the game server knows besides. Make one "
            f"with {_NEW_SECRET}, and give it to both by an environment variable."
        )
    game = Blueprint("mmolove_game", __name__)
    key = secret.strip().encode()
    complaint = Throttle(60)
    game.record(lambda setup: _check_secret(setup.app.extensions, key))

    @game.url_value_preprocessor
    def skip_csrf(endpoint: str | None, values: dict[str, t.Any] | None) -> None:
        # It runs before any before_request function, Flask-WTF's among them. There is
        # no form here, and no other site can make a browser send the secret.
        if csrf := current_app.extensions.get("csrf"):
            csrf.exempt(game)

    @game.post("/qualified")
    def qualified() -> Response:
        try:
            _authorize(key, complaint)
            players = _read_players()
        except _Refused as e:
            return _error(e.status, str(e))
        # Once more, for MMOLove may have met the app after this blueprint.
        _check_secret(current_app.extensions, key)
        state = current_state()
        if not state.settings.enabled:
            return _error(503, "MMOLOVE_ENABLED is false at the site.")
        try:
            return jsonify(players=qualify_all(state, players))
        except OutboxError as e:
            logger.error("The game reported milestones that could not be stored: %s", e)
            return _error(503, "The site cannot store this now: send it again.")

    return game


def _authorize(key: bytes, complaint: Throttle) -> None:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), key):
        return
    if complaint.passes():
        logger.warning(
            "A request to %s from %s had no valid secret, so it was refused with 401. "
            "If it was the game server, give it the secret of mmolove.game(secret=...) "
            "as 'Authorization: Bearer ...'.",
            request.path,
            request.remote_addr,
        )
    raise _Refused(401, "The Authorization header must be 'Bearer' and the secret.")


def _read_players() -> list[str]:
    body = request.stream.read(BODY_LIMIT + 1)
    if len(body) > BODY_LIMIT:
        raise _Refused(413, f"A body may have {BODY_LIMIT} bytes: send fewer at once.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused(400, "The body must be JSON.") from None
    players = content.get("players") if isinstance(content, dict) else None
    if not isinstance(players, list):
        raise _Refused(400, 'The body must have the form {"players": ["7842"]}.')
    if len(players) > BATCH:
        raise _Refused(400, f"The list may have {BATCH} players: send fewer at once.")
    return [_identify(player) for player in players]


def _identify(player: t.Any) -> str:
    if isinstance(player, bool) or not isinstance(player, (str, int)):
        raise _Refused(400, "Each player must be an account's id, a text or number.")
    try:
        return identify(player)
    except IdentityError as e:
        raise _Refused(400, str(e)) from None


def _error(status: int, reason: str) -> Response:
    response = jsonify(error=reason)
    response.status_code = status
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def _check_secret(extensions: dict[str, t.Any], key: bytes) -> None:
    state = extensions.get("mmolove")
    if state is not None and state.settings.secret.encode() == key:
        raise ConfigError(
            "mmolove.game(secret=...) must not be MMOLOVE_REFERRAL_SECRET: with that, "
            f"the game server could sign events. Make another one with {_NEW_SECRET}."
        )
