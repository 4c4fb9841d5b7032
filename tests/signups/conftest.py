"""Applications that nobody here wrote, plugged in by the lines of the docs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import sqlite3
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_mmolove.testing import SiteSandbox

DOCS = Path(__file__).parents[2] / "docs" / "howto" / "signups"

#: Set in the environment that is meant to have them all: there nothing is skipped.
COMPLETE = "MMOLOVE_SIGNUPS"


def need(module: str, source: str = "pip install -e '.[signups]'") -> t.Any:
    """A module of the extra ``signups``; where that is not there, a test is skipped."""
    if os.environ.get(COMPLETE):
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"{module} comes with: {source}")


def snippets(page: str) -> list[str]:
    """The Python of a page of the docs."""
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


class Plug:
    """Puts this extension into an application, and goes to MMOLove and back."""

    def __init__(self, sandbox: SiteSandbox) -> None:
        self.sandbox = sandbox
        self._apps: list[Flask] = []

    def run(self, app: Flask, code: str, **names: t.Any) -> dict[str, t.Any]:
        """Run a snippet of the docs, with what a site has at hand. Gives its names."""
        app.config.update(self.sandbox.config)
        names["app"] = app
        exec(code, names)
        self._apps.append(app)
        return names

    def visit(self, app: Flask) -> FlaskClient:
        """A browser that came by a share link."""
        client = app.test_client()
        client.get(f"/?mmref={self.sandbox.mint()}")
        return client

    @property
    def reported(self) -> list[tuple[str, str | None]]:
        return self.sandbox.reported

    @property
    def accepted(self) -> list[str]:
        """The players whose signup the outboxes know as accepted."""
        return [
            entry.identity
            for app in self._apps
            for entry in app.extensions["mmolove"].outbox.inspector.page(
                state="accepted", limit=9
            )
        ]

    def close(self) -> None:
        for app in self._apps:
            state = app.extensions["mmolove"]
            state.engine.stop()
            state.outbox.close()


@pytest.fixture(autouse=True)
def enabled_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """The migrations of ihatemoney configure logging with ``fileConfig``, which
    disables the loggers that exist, for the tests that follow too.
    """
    monkeypatch.setattr(logging.getLogger("flask_mmolove"), "disabled", False)


@pytest.fixture
def plug(mmolove_sandbox: SiteSandbox) -> t.Iterator[Plug]:
    plug = Plug(mmolove_sandbox)
    yield plug
    plug.close()


@contextlib.contextmanager
def reader(path: Path) -> t.Iterator[None]:
    """Somebody who reads a SQLite file and does not come to an end: a site's commit
    waits for that, and fails.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM sqlite_master").fetchone()
        yield
