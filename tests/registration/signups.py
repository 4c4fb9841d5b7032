"""What the tests of signups share."""

from __future__ import annotations

import typing as t

from flask import Flask
from flask import redirect
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask_login import login_user
from flask_login import LoginManager
from flask_login import UserMixin

from flask_mmolove import current_mmref
from flask_mmolove import referral_register
from flask_mmolove import registered

#: The events that MMOLove has when the player 7 was reported and nobody else.
SEVEN = [("registered", "7")]

Reported = t.Callable[[], list[tuple[str, str]]]


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


class Account:
    """A player whose identity only the site's rule knows."""

    id = 1
    account = "7"

    def __str__(self) -> str:
        return "anna"


def add_login(app: Flask) -> None:
    manager = LoginManager(app)
    manager.user_loader(User)

    @app.post("/login/<id>")
    @referral_register
    def log_in(id: str) -> ResponseReturnValue:
        login_user(User(id))
        return redirect("/")


def token_of(app: Flask, client: FlaskClient) -> str | None:
    with client:
        client.get("/any")
        return current_mmref()


class Trouble(Exception):
    pass


def sync_view() -> ResponseReturnValue:
    registered(7)
    return "welcome"


async def async_view() -> ResponseReturnValue:
    registered(7)
    return "welcome"
