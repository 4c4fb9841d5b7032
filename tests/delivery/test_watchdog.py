from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.delivery import watchdog
from flask_mmolove.delivery.watchdog import Watchdog
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from tests.conftest import MakeApp
from tests.outbox.recording import add

START = 1_790_000_000.0


class Site:
    def __init__(self, folder: Path, delivery: str = "thread") -> None:
        self.outbox = SQLiteOutbox(folder / "outbox.db")
        self.passed = 0.0
        self.spool = Spool(folder / "outbox.db", "secret")
        self.alarm = Watchdog(
            self.outbox,
            self.spool,
            delivery,
            lambda: self.passed,
            lambda: START + self.passed,
        )

    def add(self) -> None:
        add(self.outbox, now=int(START * 1000))

    def happens(self, seconds: float, every: float = 1.0) -> None:
        end = self.passed + seconds
        while self.passed < end:
            self.passed += every
            self.alarm.look_out()


@pytest.fixture
def site(tmp_path: Path) -> t.Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.outbox.close()


def test_it_speaks_when_nothing_delivers_and_not_each_time(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.add()
    site.happens(15 * 60)
    assert caplog.records == []
    site.happens(60 * 60)
    assert "overdue" in caplog.text
    assert "enable-threads" in caplog.text
    assert len(caplog.records) == 6


def test_it_speaks_of_what_only_this_machine_could_take_in(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: int(START * 1e9))
    file = site.spool.write(
        Report("7", "tok", ["registered"], False, int(START * 1000))
    )
    site.happens(15 * 60)
    assert caplog.records == []
    site.happens(10 * 60)
    assert "overdue" in caplog.text
    site.spool.remove(file)
    caplog.clear()
    site.happens(30 * 60)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("delivery", "word"),
    [("celery", "worker"), ("inline", "cron"), ("manual", "--forever")],
)
def test_it_says_what_to_do_for_the_delivery_that_was_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, delivery: str, word: str
) -> None:
    site = Site(tmp_path, delivery)
    site.add()
    site.happens(30 * 60, every=10)
    site.outbox.close()
    assert word in caplog.text


def test_it_is_silent_where_nothing_waits(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.happens(3 * 3600)
    assert caplog.records == []


def test_it_is_silent_while_an_event_waits_for_its_next_attempt(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.add()
    now = int(START * 1000)
    site.outbox.claim("pending", now, 4 * 3_600_000, 1)
    site.happens(3 * 3600, every=10)
    assert caplog.records == []


def test_it_never_raises(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.outbox.next_due = None  # type: ignore[assignment, method-assign]
    site.happens(120)
    assert "has stalled is not known" in caplog.text


@pytest.fixture
def stalled(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """A site that is never silent when it looks."""
    monkeypatch.setattr(watchdog, "FIRST", 0)
    monkeypatch.setattr(watchdog, "BETWEEN", 0)
    monkeypatch.setattr(watchdog, "WARN_AFTER", -1)
    app = make_app(MMOLove(), DELIVERY="manual")

    @app.get("/join")
    @referral_register
    def join() -> str:
        return "a form"

    with app.app_context():
        registered("1", token="token-1")
    app.test_client().get("/")
    return app


def _visit(path: str, cookie: str = "") -> t.Callable[[Flask], object]:
    headers = {"Cookie": cookie} if cookie else {}
    return lambda app: app.test_client(use_cookies=False).get(path, headers=headers)


def _within(call: t.Callable[[], object]) -> t.Callable[[Flask], object]:
    def happen(app: Flask) -> None:
        with app.app_context():
            call()

    return happen


@pytest.mark.parametrize(
    "happen",
    [
        _visit("/?mmref=token-2"),
        _visit("/", cookie="mmref=token-2"),
        _visit("/", cookie="mmolove_ref=junk"),
        _visit("/join"),
        _within(lambda: registered("2", token="token-2")),
        _within(lambda: qualify("1")),
    ],
    ids=["link", "cookie", "kept token", "signup view", "registered", "qualified"],
)
def test_it_looks_when_something_happens(
    stalled: Flask,
    caplog: pytest.LogCaptureFixture,
    happen: t.Callable[[Flask], object],
) -> None:
    caplog.clear()
    stalled.test_client().get("/")
    assert caplog.records == []
    happen(stalled)
    assert "nothing delivers them" in caplog.text
