"""Who invited whom: a player's link on the site's own domain, by way of which MMOLove's
share link is reached.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import typing as t
from functools import partial
from urllib.parse import quote
from urllib.parse import urlencode
from urllib.parse import urljoin

from flask import Blueprint
from flask import Flask
from flask import redirect
from flask import request
from flask import url_for
from itsdangerous import BadData
from itsdangerous import Signer
from markupsafe import escape
from werkzeug.wrappers import Response

from ..errors import ConfigError
from ..log import shielded
from ..state import current_state
from ..state import State
from .cookies import is_plain
from .cookies import keep_private
from .cookies import keys
from .cookies import salts
from .hook import may_keep
from .referrer import set_referrer_cookie

#: The page behind the links. A site that wants it registers it.
invitations = Blueprint("mmolove_invitations", __name__)

_BROKEN = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>This invite link is not complete</title>
<h1>This invite link is not complete</h1>
<p>It may have been cut off, or typed with other capital and small letters. Please open
it again as your friend sent it: your friend gets nothing for you without it.</p>
<p><a href="{home}">Go on without an invitation</a></p>
"""

# An identity that a URL takes as it is stands so in the code; another one is encoded.
_PLAIN = re.compile(r"[\w-]+", re.ASCII)
_ENCODED = "~"


def invite(player: t.Any, *, external: bool = True) -> str:
    """The link that a player shares. See :meth:`flask_mmolove.MMOLove.invite`."""
    state = current_state()
    code = make_code(state, state.callbacks.identify(player))
    endpoint = find_page(state.app)
    if endpoint is None:
        raise ConfigError(
            "The site has no page for invitations. Before the first request, write: "
            "from flask_mmolove import invitations; "
            "app.register_blueprint(invitations)."
        )
    return url_for(endpoint, code=code, _external=external)


def find_page(app: Flask) -> str | None:
    """The endpoint of the page, whatever blueprint it is nested in and whatever that is
    called; None if the site has not registered it.
    """
    found = (name for name, view in app.view_functions.items() if view is follow)
    return next(found, None)


@invitations.get("/invite/<code>")
def follow(code: str) -> Response:
    """Remember who invites, and go on to MMOLove, which leads back with a token."""
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        # An image or a frame in a forum's post: nobody followed the link.
        response = Response("Follow this link.", 403, mimetype="text/plain")
    else:
        response = _lead_on(current_state(), code)
    keep_private(response)
    return response


def _lead_on(state: State, code: str) -> Response:
    if not state.settings.enabled:
        return redirect(f"{request.root_path}/")
    inviter = read_code(state, code)
    if inviter is None:
        return _broken_link()
    response = redirect(share_link(state, code))
    with shielded("An inviter could not be remembered."):
        if state.settings.cookie_days and may_keep(state):
            set_referrer_cookie(state, response, inviter)
    return response


def _broken_link() -> Response:
    page = _BROKEN.format(home=escape(f"{request.root_path}/"))
    response = Response(page, 404, mimetype="text/html")
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    return response


def share_link(state: State, code: str) -> str:
    """MMOLove's own link for a code."""
    path = f"/r/{quote(state.settings.server_id, safe='')}"
    return urljoin(state.settings.endpoint, f"{path}?{urlencode({'ref': code})}")


def make_code(state: State, identity: str) -> str:
    """A player's code: the identity and a signature, so that no table is needed."""
    if not state.app.secret_key:
        raise ConfigError(
            "Invitations are signed: set app.config['SECRET_KEY'].", "SECRET_KEY"
        )
    if not _PLAIN.fullmatch(identity):
        encoded = base64.urlsafe_b64encode(identity.encode()).decode().rstrip("=")
        identity = _ENCODED + encoded
    signer, *_ = _signers(state)
    return signer.sign(identity).decode()


def read_code(state: State, code: object) -> str | None:
    """The identity in a code; None if it is not ours, or no text at all."""
    if not is_plain(code) or not state.app.secret_key:
        return None
    for signer in _signers(state):
        with contextlib.suppress(BadData):
            return _decode(signer.unsign(code).decode())
    return None


def _decode(identity: str) -> str:
    if identity.startswith(_ENCODED):
        encoded = identity.removeprefix(_ENCODED)
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    return identity


def _signers(state: State) -> list[Signer]:
    # 96 bits: a link is written on walls, and typed from there.
    digest = partial(hashlib.blake2b, digest_size=12)
    make = partial(Signer, keys(state.app), digest_method=digest)
    return [make(salt=salt) for salt in salts(state, "invite")]
