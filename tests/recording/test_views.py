"""What the signup views answered, counted for all processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.store import Outbox
from flask_mmolove.recording.views import IN_A_ROW
from flask_mmolove.recording.views import Record
from flask_mmolove.recording.views import SignupViews
from tests.conftest import find_url
from tests.conftest import MakeApp
from tests.conftest import SQL

NOW = 1_800_000_000


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return SQLiteOutbox(tmp_path / "mmolove.db")


def test_a_view_that_named_players_is_warned_of_when_it_stops(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    views = SignupViews(outbox, lambda: NOW)
    views.named("join")
    for _ in range(IN_A_ROW - 1):
        views.nobody("join", 200, "it logged nobody in")
    assert caplog.text == ""  # forms that were filled in wrongly
    views.nobody("join", 200, "it logged nobody in")
    assert "it named 1 before" in caplog.text
    views.named("join")
    caplog.clear()
    for _ in range(IN_A_ROW):
        views.nobody("join", 200, "it logged nobody in")
    assert len(caplog.records) == 1
    outbox.close()


def test_each_reason_is_told_once(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    views = SignupViews(outbox)
    for reason in ("no field", "no form", "no field"):
        views.nobody("join", 200, reason)
        views.nobody("other", 200, reason)
    assert len(caplog.records) == 4
    outbox.close()


def test_what_was_counted_is_written_down_without_another_signup(
    make_app: MakeApp,
) -> None:
    app = make_app(DELIVERY="thread", ENDPOINT="http://127.0.0.1:9/")
    state = app.extensions["mmolove"]
    for _ in range(3):
        state.views.named("join")
    state.engine.start()
    state.engine.stop()  # as at the end of a process
    stored = SignupViews(state.outbox).read()
    assert stored["join"].named == 3


@pytest.mark.parametrize("name", ["own", *SQL])
def test_processes_count_together(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    def open_outbox(url: URL | None) -> Outbox:
        if url is None:
            return SQLiteOutbox(tmp_path / "mmolove.db")
        return SQLAlchemyOutbox(url)

    url = None if name == "own" else find_url(name, request)
    first, second = (SignupViews(open_outbox(url), lambda: NOW) for _ in range(2))
    first.named("join")
    second.nobody("join", 200, "no field")
    assert first.read() == {"join": Record(1, NOW * 1000, 1, "no field")}
    second.named("join")  # is written a minute later
    assert first.read()["join"].named == 1
    assert second.read()["join"] == Record(2, NOW * 1000)
    for views in (first, second):
        views._outbox.close()


def test_what_cannot_be_written_is_kept(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = SignupViews(outbox, lambda: NOW)
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "run", lambda *args, **more: 1 / 0)
        views.named("join")
    assert views.read() == {"join": Record(1, NOW * 1000)}
    outbox.close()
