"""Visitors who arrive with a token are counted, without a write for each."""

from __future__ import annotations

import os
import threading
import typing as t

import pytest
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import OutboxBusy
from flask_mmolove.capture.arrivals import Arrivals
from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.outbox.store import Outbox
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def outbox(tmp_path: t.Any) -> t.Iterator[Outbox]:
    outbox = SQLiteOutbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


def arrived(outbox: Outbox) -> int:
    now = milliseconds()
    return sum(day.arrived for day in outbox.inspector.days(now - 86_400_000, now))


def test_without_a_thread_they_are_written_once_a_minute(outbox: Outbox) -> None:
    arrivals = Arrivals(outbox, clock := Clock())
    arrivals.note("anna")
    assert arrived(outbox) == 1
    for _ in range(5):
        arrivals.note("anna")
    assert arrived(outbox) == 1
    clock.time += 60
    arrivals.note(None)
    assert arrived(outbox) == 7


def test_with_a_thread_no_request_writes(outbox: Outbox) -> None:
    arrivals = Arrivals(outbox)
    arrivals.has_thread = True
    arrivals.note("anna")
    assert arrived(outbox) == 0
    arrivals.flush()
    arrivals.flush()
    assert arrived(outbox) == 1


def test_what_cannot_be_written_is_kept(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> t.NoReturn:
        raise OutboxBusy("The outbox was kept busy.")

    arrivals = Arrivals(outbox, clock := Clock())
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "count", fail)
        arrivals.note("anna")
    clock.time += 60
    arrivals.note(None)
    assert arrived(outbox) == 2


def test_a_flood_of_links_takes_no_memory(outbox: Outbox) -> None:
    arrivals = Arrivals(outbox)
    arrivals.has_thread = True
    for number in range(2000):
        arrivals.note(str(number))
    arrivals.flush()
    assert arrived(outbox) == 1000


def test_a_child_counts_for_itself(outbox: Outbox) -> None:
    arrivals = Arrivals(outbox)
    arrivals.has_thread = True
    arrivals.note("anna")
    pid = os.fork()
    if not pid:
        arrivals.note("anna")
        arrivals.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    arrivals.flush()
    assert arrived(outbox) == 2


def visit(app: Flask, sandbox: SiteSandbox, times: int = 1) -> None:
    """One visitor, who looks at several pages by the same link."""
    client, token = app.test_client(), sandbox.mint()
    for _ in range(times):
        client.get(f"/?mmref={token}")


@pytest.mark.parametrize("delivery", ["manual", "inline"])
def test_a_visitor_counts_once(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, delivery: str
) -> None:
    app = make_app(MMOLove(), DELIVERY=delivery)
    visit(app, mmolove_sandbox, times=3)
    app.test_client().get("/")
    assert arrived(app.extensions["mmolove"].outbox) == 1


def test_the_delivery_s_thread_writes_them(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(MMOLove(), DELIVERY="thread")
    state, written = app.extensions["mmolove"], threading.Event()
    count = state.outbox.count

    def note(*args: t.Any) -> None:
        count(*args)
        written.set()

    monkeypatch.setattr(state.outbox, "count", note)
    visit(app, mmolove_sandbox)
    state.engine.stop()  # an orderly end writes what is there
    assert written.wait(20)
    assert arrived(state.outbox) == 1
