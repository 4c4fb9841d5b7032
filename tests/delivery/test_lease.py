"""A reward whose callback takes longer than its lease, in several processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from flask_mmolove.outbox import Entry
from flask_mmolove.outbox import Outbox
from flask_mmolove.outbox import Settlement
from flask_mmolove.outbox.entry import make_event
from tests.conftest import find_url
from tests.conftest import SQL
from tests.delivery.longcall import open_outbox

LEASE = 900

PROMISES = ("at-least-once", "at-most-once")


class Due:
    """An outbox in which one reward is due."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.outbox: Outbox = open_outbox(where)
        now = int(time.time() * 1000)
        events = [
            make_event(name, "7", "tok", "srv", now, False)
            for name in ("registered", "qualified")
        ]
        self.outbox.add("7", events, now)
        for due in (None, now):
            (entry,) = self.outbox.claim("pending", now, 60_000, 1)
            settled = Settlement(
                entry, "accepted", due, is_fact=True, resets_attempts=True
            )
            self.outbox.settle([settled], now)

    @property
    def entry(self) -> Entry:
        return self.outbox.of("7", False)["qualified"]

    @contextlib.contextmanager
    def granter(self, promise: str, lease: int, now: int = 0) -> t.Iterator[Process]:
        command = [sys.executable, str(Path(__file__).with_name("longcall.py"))]
        with subprocess.Popen(
            [*command, self.where, promise, str(lease), str(now)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as popen:
            process = Process(popen)
            try:
                yield process
            finally:
                popen.kill()


class Process:
    """One that pays; see :mod:`longcall`."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.pid = popen.pid
        assert popen.stdin and popen.stdout
        self._input = popen.stdin
        self._output = popen.stdout

    def go_on(self) -> None:
        self._input.write("\n")
        self._input.flush()

    def await_word(self, word: str) -> list[str]:
        """What it says until it says this."""
        said: list[str] = []
        while not said or said[-1] != word:
            line = self._output.readline()
            assert line, f"It ended after {said}."
            said.append(line.strip())
        return said

    def finish(self) -> list[str]:
        """What it says until its end, where it need not be waited for."""
        self._input.close()
        said = self.await_word("done")
        return [word for word in said if word not in ("renewed", "failed")]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SQL]


@pytest.fixture(params=("own", *SLOW))
def due(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[Due]:
    if request.param == "own":
        where = str(tmp_path / "outbox.db")
    else:
        url = find_url(request.param, request)
        where = url.render_as_string(hide_password=False)
    due = Due(where)
    yield due
    due.outbox.close()


def test_a_callback_that_outlasts_its_lease_is_called_once(due: Due) -> None:
    with due.granter("at-least-once", LEASE) as first:
        first.await_word("claimed")
        ends = due.entry.due
        assert ends is not None
        first.go_on()
        first.await_word("called")
        first.await_word("renewed")
        # To the second one the first lease is over.
        with due.granter("at-least-once", LEASE, ends + 1) as second:
            assert second.finish() == ["done"]
        assert first.finish() == ["rewarded", "done"]
    assert due.entry.state == "rewarded"


def test_nobody_takes_one_in_doubt_whose_callback_runs(due: Due) -> None:
    with due.granter("at-most-once", LEASE) as first:
        first.await_word("claimed")
        first.go_on()
        first.await_word("called")
        begun = due.entry
        assert begun.state == "unknown" and begun.due is not None
        first.await_word("renewed")
        renewed = due.entry.due
        assert renewed is not None and renewed > begun.due
        assert first.finish() == ["rewarded", "done"]


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
def test_a_process_that_was_paused_calls_nothing_that_another_has_claimed(
    due: Due, promise: str
) -> None:
    with due.granter(promise, 1) as first:
        first.await_word("claimed")
        os.kill(first.pid, signal.SIGSTOP)
        with due.granter(promise, 1) as second:
            said = second.finish()
            assert "called" in said and said[-2:] == ["rewarded", "done"]
        os.kill(first.pid, signal.SIGCONT)
        assert first.finish() == ["done"]
    assert due.entry.state == "rewarded"


@pytest.mark.slow
@pytest.mark.parametrize("due", ["own"], indirect=True)
def test_a_process_that_was_paused_goes_on_with_what_is_still_its_own(
    due: Due,
) -> None:
    with due.granter("at-least-once", 1) as first:
        first.await_word("claimed")
        os.kill(first.pid, signal.SIGSTOP)
        os.kill(first.pid, signal.SIGCONT)
        assert "called" in first.finish()
    assert due.entry.state == "rewarded"


@pytest.mark.slow
@pytest.mark.parametrize("due", ["own"], indirect=True)
def test_what_a_paused_process_has_given_is_settled_by_whoever_is_first(
    due: Due,
) -> None:
    with due.granter("at-least-once", LEASE) as first:
        first.await_word("claimed")
        first.go_on()
        first.await_word("called")
        os.kill(first.pid, signal.SIGSTOP)
        ends = due.entry.due
        assert ends is not None
        # Nobody can tell a paused process from a dead one, so it is called again.
        with due.granter("at-least-once", LEASE, ends + LEASE) as second:
            second.await_word("claimed")
            second.go_on()
            second.await_word("called")
            os.kill(first.pid, signal.SIGCONT)
            assert first.finish() == ["rewarded", "done"]
            assert second.finish() == ["done"]
    assert due.entry.state == "rewarded"
