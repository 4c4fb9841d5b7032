"""Outboxes of every kind."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from sqlalchemy import URL

from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.store import Outbox
from tests.conftest import find_url
from tests.conftest import SQL

STORES = ("own", *(f"sqlalchemy-{name}" for name in SQL))


@pytest.fixture
def sql(url: URL) -> t.Iterator[SQLAlchemyOutbox]:
    outbox = SQLAlchemyOutbox(url)
    yield outbox
    outbox.close()


@pytest.fixture
def own(tmp_path: Path) -> t.Iterator[SQLiteOutbox]:
    outbox = SQLiteOutbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


@pytest.fixture(params=STORES)
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[Outbox]:
    outbox: Outbox
    if request.param == "own":
        outbox = SQLiteOutbox(tmp_path / "outbox.db")
    else:
        outbox = SQLAlchemyOutbox(find_url(request.param.split("-")[1], request))
    yield outbox
    outbox.close()
