from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from flask_mmolove.delivery.watchdog import Watchdog
from flask_mmolove.outbox import Report
from flask_mmolove.outbox import Spool
from flask_mmolove.outbox.entry import make_event
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox

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
        event = make_event("registered", "7", "tok", "srv", int(START * 1000), False)
        self.outbox.add("7", [event], int(START * 1000))

    def requests(self, seconds: float, every: float = 1.0) -> None:
        end = self.passed + seconds
        while self.passed < end:
            self.passed += every
            if self.alarm.next < self.passed:
                self.alarm.look_out()


@pytest.fixture
def site(tmp_path: Path) -> t.Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.outbox.close()


def test_it_speaks_when_nothing_delivers_and_not_at_every_request(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.add()
    site.requests(15 * 60)
    assert caplog.records == []
    site.requests(60 * 60)
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
    site.requests(15 * 60)
    assert caplog.records == []
    site.requests(10 * 60)
    assert "overdue" in caplog.text
    site.spool.remove(file)
    caplog.clear()
    site.requests(30 * 60)
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
    site.requests(30 * 60, every=10)
    site.outbox.close()
    assert word in caplog.text


def test_it_is_silent_where_nothing_waits(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.requests(3 * 3600)
    assert caplog.records == []


def test_it_is_silent_while_an_event_waits_for_its_next_attempt(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.add()
    now = int(START * 1000)
    site.outbox.claim("pending", now, 4 * 3_600_000, 1)
    site.requests(3 * 3600, every=10)
    assert caplog.records == []
