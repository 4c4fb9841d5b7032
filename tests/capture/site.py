"""A small site, and what its visitors see of it."""

from __future__ import annotations

import typing as t

from flask import after_this_request
from flask import Flask
from flask import redirect
from flask import session
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from itsdangerous import URLSafeTimedSerializer
from werkzeug.test import Client
from werkzeug.test import TestResponse

from flask_mmolove import current_mmref
from flask_mmolove.capture.token import forget

COOKIE = "mmolove_ref"
TOKEN = "tok.first-1"
OTHER = "tok.other-2"
SALT = "flask-mmolove.token.demo-server"
EVERYWHERE = {"SameSite=None", "Secure", "HttpOnly", "Path=/"}
NINETY_DAYS = 90 * 24 * 60 * 60


def add_pages(app: Flask) -> None:
    """The pages of a small site; ``/who`` tells the visitor's token."""

    @app.get("/")
    def index() -> ResponseReturnValue:
        return "a page"

    @app.get("/who")
    def who() -> ResponseReturnValue:
        return current_mmref() or "nobody"

    @app.get("/visits")
    def visits() -> ResponseReturnValue:
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    @app.get("/session")
    def show() -> ResponseReturnValue:
        return str(session.get("mmref"))

    @app.get("/login")
    def login() -> ResponseReturnValue:
        session.clear()
        session["user"] = "anna"
        return redirect("/")

    @app.post("/leave")
    def leave() -> ResponseReturnValue:
        after_this_request(forget)
        return "gone"


def token_of(client: FlaskClient) -> str:
    return client.get("/who").text


def send(app: Flask, cookies: str) -> TestResponse:
    """Ask for the token with a ``Cookie`` header, byte for byte."""
    # A client that keeps cookies of its own would replace the header.
    client = Client(app, use_cookies=False)
    return client.get("/who", headers={"Cookie": cookies})


def cookies_of(response: TestResponse) -> dict[str, str]:
    """The ``Set-Cookie`` headers by name."""
    headers = response.headers.getlist("Set-Cookie")
    return {header.partition("=")[0]: header for header in headers}


def is_untouched(response: TestResponse) -> bool:
    caching = response.headers.get("Cache-Control", "")
    return not (
        cookies_of(response) or "Vary" in response.headers or "private" in caching
    )


def sign(token: t.Any, secret: str = "not a secret", salt: str = SALT) -> str:
    return str(URLSafeTimedSerializer(secret, salt=salt).dumps(token))
