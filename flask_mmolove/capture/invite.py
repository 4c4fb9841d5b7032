"""A player's link on the site's own domain, which leads to MMOLove's share link."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import typing as t
from functools import partial
from urllib import parse

from flask import Blueprint
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
from . import cookies
from .referrer import set_referrer_cookie
from .token import may_store

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

# The code holds an identity as it is if a URL can, else encoded.
_PLAIN = re.compile(r"[\w-]+", re.ASCII)
_ENCODED = "~"


def invite(player: t.Any, *, external: bool = True) -> str:
    """The link that a player shares. See :meth:`flask_mmolove.MMOLove.invite`."""
    code = make_code(current_state().callbacks.identify(player))
    endpoint = find_page()
    if endpoint is None:
        raise ConfigError(
            "The site has no page for invitations. Before the first request, write: "
            "from flask_mmolove import invitations; "
            "app.register_blueprint(invitations)."
        )
    return url_for(endpoint, code=code, _external=external)


def find_page() -> str | None:
    """Find the page's endpoint, in any blueprint; None if it is not registered."""
    views = current_state().app.view_functions
    return next((name for name, view in views.items() if view is follow), None)


@invitations.get("/invite/<code>")
def follow(code: str) -> Response:
    """Remember the referrer, and redirect to MMOLove, which adds a token."""
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        # An image or a frame in a forum's post: nobody followed the link.
        response = Response("Follow this link.", 403, mimetype="text/plain")
    else:
        response = _redirect(code)
    cookies.keep_private(response)
    return response


def _redirect(code: str) -> Response:
    settings = current_state().settings
    if not settings.enabled:
        return redirect(f"{request.root_path}/")
    referrer = read_code(code)
    if referrer is None:
        return _broken_link()
    response = redirect(share_link(code))
    with shielded("A visitor's referrer could not be stored."):
        if settings.cookie_days and may_store():
            set_referrer_cookie(response, referrer)
    return response


def _broken_link() -> Response:
    page = _BROKEN.format(home=escape(f"{request.root_path}/"))
    response = Response(page, 404, mimetype="text/html")
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    return response


def share_link(code: str) -> str:
    """MMOLove's own link for a code."""
    settings = current_state().settings
    path = f"/r/{parse.quote(settings.server_id, safe='')}"
    return parse.urljoin(settings.endpoint, f"{path}?{parse.urlencode({'ref': code})}")


def make_code(identity: str) -> str:
    """A player's code: the identity and a signature, so that no table is needed."""
    if not cookies.keys():
        words = "Invitations are signed: set app.config['SECRET_KEY']."
        raise ConfigError(words, "SECRET_KEY")
    if not _PLAIN.fullmatch(identity):
        encoded = base64.urlsafe_b64encode(identity.encode()).decode().rstrip("=")
        identity = _ENCODED + encoded
    signer, *_ = _signers()
    return signer.sign(identity).decode()


def read_code(code: object) -> str | None:
    """The identity in a code; None if we did not make the code."""
    if not cookies.is_plain(code) or not cookies.keys():
        return None
    for signer in _signers():
        with contextlib.suppress(BadData):
            return _decode(signer.unsign(code).decode())
    return None


def _decode(identity: str) -> str:
    if identity.startswith(_ENCODED):
        encoded = identity.removeprefix(_ENCODED)
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    return identity


def _signers() -> list[Signer]:
    # 96 bits: people also type the link by hand.
    digest = partial(hashlib.blake2b, digest_size=12)
    make = partial(Signer, cookies.keys(), digest_method=digest)
    return [make(salt=salt) for salt in cookies.salts("invite")]
