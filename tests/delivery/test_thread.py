"""A thread that delivers."""

from __future__ import annotations

import threading
import typing as t

import pytest

from flask_mmolove.delivery.daemon import DaemonEngine
from flask_mmolove.delivery.thread import ThreadEngine
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.sandbox import Faults
from tests.delivery.bench import Bench


class TestThread:
    @pytest.fixture
    def engine(self, bench: Bench) -> t.Iterator[ThreadEngine]:
        engine = ThreadEngine(bench.new_process, 4)
        yield engine
        engine.stop()

    def test_it_delivers_what_it_is_woken_for(
        self, bench: Bench, engine: ThreadEngine
    ) -> None:
        told = _event_on(bench, 40)
        engine.start()
        for number in range(20):
            bench.add(str(number), "registered", "qualified")
        engine.wake()
        assert told.wait(20)
        assert bench.grant is not None
        assert len(bench.grant.given) == 20

    def test_nothing_runs_before_the_first_request(self, bench: Bench) -> None:
        before = set(threading.enumerate())
        ThreadEngine(bench.new_process, 4)
        assert set(threading.enumerate()) <= before

    def test_a_stop_does_not_wait_for_a_slow_game(
        self, engine: ThreadEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(DaemonEngine.__init__, "__defaults__", (60,))
        asking, go_on, stopped = (threading.Event() for _ in range(3))

        class Slow:
            has_callback = True

            def is_due(self) -> bool:
                return True

            def ask(self) -> int:
                asking.set()
                go_on.wait(60)
                return 0

            def turn(self) -> float:
                return float(self.ask())

            def stop(self) -> None:
                pass

        engine.ask_by(Slow())
        engine.start()
        assert asking.wait(20)

        def stop() -> None:
            engine.stop()
            stopped.set()

        threading.Thread(target=stop).start()
        try:
            assert stopped.wait(20)
        finally:
            go_on.set()
        for thread in threading.enumerate():
            if thread.name == "flask-mmolove":
                thread.join(20)

    def test_an_orderly_stop_gives_claims_back(
        self,
        bench: Bench,
        engine: ThreadEngine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        bench.site.sandbox.faults = Faults(latency=30)
        for number in range(8):
            bench.add(str(number), "registered")
        claimed = threading.Event()
        claim = bench.outbox.claim

        def note(*args: t.Any) -> list[Entry]:
            entries = claim(*args)
            if entries:
                claimed.set()
            return entries

        monkeypatch.setattr(bench.outbox, "claim", note)
        engine.wake()
        assert claimed.wait(20)
        engine.stop()
        bench.site.sandbox.stop()
        entries = [bench.outbox.of(str(n), False)["registered"] for n in range(8)]
        assert [entry.claim for entry in entries] == [None] * 8


def _event_on(bench: Bench, count: int) -> threading.Event:
    """Set when so many entries are accepted or rewarded."""
    reached = threading.Event()
    told = bench.told

    class Counting(list[tuple[str, str]]):
        def append(self, item: tuple[str, str]) -> None:
            super().append(item)
            done = [s for _, s in self if s in ("accepted", "rewarded")]
            if len(done) >= count + count // 2:
                reached.set()

    bench.told = Counting(told)
    return reached
