from __future__ import annotations

import typing as t

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

Run = t.Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def run(app: Flask, *args: str) -> Result:
        info = ScriptInfo(create_app=lambda: app)
        # A command that crashes is a test that fails, whatever it printed before.
        return app.test_cli_runner().invoke(
            command, args, obj=info, catch_exceptions=False
        )

    return run


@pytest.fixture
def site(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Flask:
    """A site with three accepted events and a rejected one."""
    app = make_app()
    with app.app_context():
        for player in ("7", "8", "=1+1"):
            registered(player, token=mmolove_sandbox.mint())
        registered("9", token="junk")
    return app
