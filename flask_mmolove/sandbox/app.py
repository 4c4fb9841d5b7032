"""The sandbox's Flask app: share links, the events endpoint, and the page."""

from __future__ import annotations

import json
import os
import time
import typing as t
from dataclasses import asdict
from datetime import datetime
from datetime import timezone
from urllib import parse

from flask import abort
from flask import Flask
from flask import redirect
from flask import render_template
from flask import request
from flask.typing import ResponseReturnValue
from flask.wrappers import Response
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import RequestEntityTooLarge

from ..protocol.checks import is_loopback
from ..protocol.wire import SIGNATURE_HEADER
from ..text import printable
from .faults import Faults
from .faults import hang_up
from .faults import NO_FAULTS
from .ledger import Ledger
from .rules import Message
from .rules import Server
from .service import Service
from .tokens import is_ref

#: The path of the endpoint, as at MMOLove.
EVENTS_PATH = "/api/referral/events"

#: The longest body in bytes; an event has a few hundred.
BODY_LIMIT = 64 * 1024

#: How many arrivals and referrals the page shows; ``history.json`` has them all.
PAGE_LENGTH = 100

_CONTENT_POLICY = "default-src 'none'; style-src 'self'; img-src 'self' data:"


def create_sandbox(
    *,
    server_id: str = "demo-server",
    secret: str | None = "demo-secret",
    registration_url: str = "http://127.0.0.1:5000/register",
    path: str | os.PathLike[str] | None = None,
    faults: Faults = NO_FAULTS,
    now: t.Callable[[], float] = time.time,
    host_names: t.Collection[str] = (),
) -> Flask:
    """Create a local MMOLove with one server. Its :class:`Service` is
    ``app.extensions["mmolove_sandbox"]``.

    :param server_id: The server's id.
    :param secret: Its referral secret; ``None`` for a server without one.
    :param registration_url: Where its share links lead.
    :param path: A file for the ledger, which then outlives a restart.
    :param faults: What goes wrong.
    :param now: Unix seconds.
    :param host_names: The host names it may be called by, besides this machine's own.
        Others are refused: an attacker whose domain resolves to 127.0.0.1 could read
        the tokens with a visitor's browser.
    """
    app = Flask(__name__)
    # Otherwise a URL with "//" is redirected, and the redirect quotes the query.
    app.url_map.merge_slashes = False
    # What arrives is shown, but must not forge other lines of the page.
    app.jinja_options = {"finalize": _show}
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    server = Server(server_id, secret, registration_url)
    service = Service(server, Ledger(path), faults, now)
    app.extensions["mmolove_sandbox"] = service
    _refuse_strange_hosts(app, {name.lower() for name in host_names})
    _add_share_links(app, service)
    _add_endpoint(app, service)
    _add_pages(app, service)
    _add_errors(app)
    _add_headers(app, service)
    app.add_template_filter(_moment, "moment")
    return app


def _refuse_strange_hosts(app: Flask, names: t.Collection[str]) -> None:
    @app.before_request
    def refuse() -> Response | None:
        host = request.environ.get("HTTP_HOST", "localhost")
        name = _name_of(host)
        if name in names or is_loopback(name):
            return None
        text = (
            f"The sandbox is not called {host!r}. Call it 127.0.0.1 or localhost, or "
            "start it with --host-name and that name (host_names=[...] in Python).\n"
        )
        return Response(text, 403, mimetype="text/plain")


def _name_of(host: str) -> str:
    """The name in a ``Host`` header, without the port; empty if there is none."""
    try:
        return (parse.urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _add_share_links(app: Flask, service: Service) -> None:
    @app.get("/r/<server_id>")
    def share(server_id: str) -> ResponseReturnValue:
        server = service.servers.get(server_id)
        if server is None:
            abort(404, f"There is no server {server_id!r} here.")
        try:
            ref = request.args.get("ref", "").strip()
        except UnicodeDecodeError:  # raised by Werkzeug for raw bytes in a query
            ref = ""
        if not is_ref(ref):
            abort(
                400,
                "A share link ends in ?ref= and the code of the player who shares it:"
                " 1 to 256 plain letters, digits or signs.",
            )
        token = service.mint(ref, server.id)
        return redirect(_with_token(server.registration_url, token))


def _with_token(url: str, token: str) -> str:
    """A registration URL with the token added to its query."""
    parts = parse.urlsplit(url)
    query = "&".join(filter(None, [parts.query, parse.urlencode({"mmref": token})]))
    return parse.urlunsplit(parts._replace(query=query))


def _add_endpoint(app: Flask, service: Service) -> None:
    @app.post(EVENTS_PATH)
    def events() -> ResponseReturnValue:
        arrival, faults = service.receive(
            Message(
                body=_raw_body(),
                signature=request.headers.get(SIGNATURE_HEADER),
                content_type=request.mimetype,
            )
        )
        if arrival.lost:
            hang_up(request.environ)
            # Only sent if hanging up failed: what a proxy says that lost its backend.
            return Response(status=502)
        response = Response(arrival.response, arrival.status)
        response.mimetype = "application/json"
        if faults.retry_after is not None and arrival.outcome == "fault":
            response.headers["Retry-After"] = str(faults.retry_after)
        return response


def _raw_body() -> bytes | None:
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        return None


def _add_pages(app: Flask, service: Service) -> None:
    @app.get("/")
    def page() -> ResponseReturnValue:
        arrivals = service.arrivals
        return render_template(
            "page.html",
            servers=service.servers.values(),
            arrivals=arrivals[: -PAGE_LENGTH - 1 : -1],
            total=len(arrivals),
            referrals=service.referrals[: -PAGE_LENGTH - 1 : -1],
            faults=service.faults.summary,
        )

    @app.get("/history.json")
    def history() -> ResponseReturnValue:
        arrivals = [
            {**asdict(row), "body": row.body.decode(errors="backslashreplace")}
            for row in service.arrivals
        ]
        referrals = [{"id": row.id, **asdict(row)} for row in service.referrals]
        return {"arrivals": arrivals, "referrals": referrals}


def _add_errors(app: Flask) -> None:
    @app.errorhandler(HTTPException)
    def problem(error: HTTPException) -> ResponseReturnValue:
        status = error.code or 500
        if request.path.startswith("/api/"):
            body = json.dumps({"error": error.name.lower().replace(" ", "_")})
            response = Response(body, status, mimetype="application/json")
        else:
            response = Response(render_template("problem.html", error=error), status)
        if allowed := getattr(error, "valid_methods", None):
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response


def _add_headers(app: Flask, service: Service) -> None:
    @app.after_request
    def finish(response: Response) -> Response:
        response.date = datetime.fromtimestamp(service.time(), timezone.utc)
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Security-Policy"] = _CONTENT_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _show(value: t.Any) -> t.Any:
    return printable(value) if type(value) is str else value


def _moment(when: float) -> datetime:
    return datetime.fromtimestamp(when, timezone.utc)
