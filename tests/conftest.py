from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_mmolove import MMOLove
from flask_mmolove.testing import SiteSandbox

MakeApp = t.Callable[..., Flask]


@pytest.fixture
def make_app(tmp_path: Path, mmolove_sandbox: SiteSandbox) -> t.Iterator[MakeApp]:
    """Makes sites that report to the sandbox; keyword arguments are ``MMOLOVE_*``."""
    made: list[Flask] = []

    def make(mmolove: MMOLove | None = None, **settings: t.Any) -> Flask:
        app = Flask(__name__, instance_path=str(tmp_path))
        app.config.update(mmolove_sandbox.config, SECRET_KEY="not a secret")
        app.config.update({f"MMOLOVE_{key}": value for key, value in settings.items()})
        (mmolove or MMOLove()).init_app(app)
        made.append(app)
        return app

    yield make
    for app in made:
        state = app.extensions["mmolove"]
        state.engine.stop()
        state.outbox.close()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
