"""Who invited whom: a player's link on the site's own domain, by way of which MMOLove's
share link is reached.
"""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t
from functools import partial
from urllib.parse import quote
from urllib.parse import urlencode
from urllib.parse import urljoin

from flask import abort
from flask import Blueprint
from flask import Flask
from flask import redirect
from flask import request
from flask import url_for
from itsdangerous import BadData
from itsdangerous import Signer
from werkzeug.routing import BuildError
from werkzeug.wrappers import Response

from .capture import may_keep
from .errors import ConfigError
from .inviter import send_off
from .log import shielded
from .signed import keys
from .signed import salts
from .state import current_state
from .state import State

#: The page behind the links. A site that wants it registers it.
invitations = Blueprint("mmolove_invitations", __name__)

# An identity that a URL takes as it is stands so in the code; another one is encoded.
_PLAIN = re.compile(r"[\w-]+", re.ASCII)
_ENCODED = "~"


def invite(player: t.Any, *, external: bool = True) -> str:
    """The link that a player shares. See :meth:`flask_mmolove.MMOLove.invite`."""
    state = current_state()
    code = make_code(state.app, state.identify(player))
    try:
        return url_for("mmolove_invitations.follow", code=code, _external=external)
    except BuildError as e:
        raise ConfigError(
            "The site has no page for invitations. Before the first request, write: "
            "from flask_mmolove import invitations; "
            "app.register_blueprint(invitations)."
        ) from e


@invitations.get("/invite/<code>")
def follow(code: str) -> Response:
    """Remember who invites, and go on to MMOLove, which leads back with a token."""
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        abort(404)
    state = current_state()
    inviter = read_code(state.app, code)
    if inviter is None or not state.settings.enabled:
        return redirect(f"{request.root_path}/")
    response = redirect(share_link(state, code))
    with shielded("An inviter could not be remembered."):
        if state.settings.cookie_days and may_keep(state):
            send_off(state.app, t.cast(t.Any, response), inviter)
    return response


def share_link(state: State, code: str) -> str:
    """MMOLove's own link for a code."""
    path = f"/r/{quote(state.settings.server_id, safe='')}"
    return urljoin(state.settings.endpoint, f"{path}?{urlencode({'ref': code})}")


def make_code(app: Flask, identity: str) -> str:
    """A player's code: the identity and a signature, so that no table is needed."""
    if not app.secret_key:
        raise ConfigError(
            "Invitations are signed: set app.config['SECRET_KEY'].", "SECRET_KEY"
        )
    if not _PLAIN.fullmatch(identity):
        encoded = base64.urlsafe_b64encode(identity.encode()).decode().rstrip("=")
        identity = _ENCODED + encoded
    return _signers(app)[0].sign(identity).decode()


def read_code(app: Flask, code: str) -> str | None:
    """The identity in a code; None if it is not ours."""
    if not app.secret_key:
        return None
    identity = next(filter(None, (_unsign(each, code) for each in _signers(app))), None)
    if identity is None:
        return None
    if identity.startswith(_ENCODED):
        encoded = identity.removeprefix(_ENCODED)
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    return identity


def _unsign(signer: Signer, code: str) -> str | None:
    try:
        return signer.unsign(code.encode()).decode()
    except (BadData, UnicodeError):
        return None


def _signers(app: Flask) -> list[Signer]:
    """The one that signs, and the one of earlier versions."""
    # 96 bits: a link is written on walls, and typed from there.
    digest = partial(hashlib.blake2b, digest_size=12)
    return [
        Signer(keys(app), salt=salt, digest_method=digest)
        for salt in salts(app, "invite")
    ]
