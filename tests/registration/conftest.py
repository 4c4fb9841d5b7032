"""A visitor with a token, and what MMOLove was told."""

from __future__ import annotations

import typing as t

import pytest
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer

from flask_mmolove.capture.token import COOKIE
from flask_mmolove.testing import SiteSandbox


@pytest.fixture
def token(mmolove_sandbox: SiteSandbox) -> str:
    return mmolove_sandbox.mint()


@pytest.fixture
def visitor(client: FlaskClient, token: str) -> FlaskClient:
    """A browser that came by a share link, a while ago."""
    with client.session_transaction() as kept:
        kept["mmref"] = token
    salt = "flask-mmolove.token.demo-server"
    serializer = URLSafeTimedSerializer("not a secret", salt=salt)
    client.set_cookie(COOKIE.name, str(serializer.dumps(token)))
    return client


@pytest.fixture
def reported(mmolove_sandbox: SiteSandbox) -> t.Callable[[], list[tuple[str, str]]]:
    return lambda: t.cast("list[tuple[str, str]]", mmolove_sandbox.reported)
