"""How many visitors arrived with a token: counted in memory, written down now and then.

A visit is not worth a write. What a process that crashes has counted and not written is
lost, so the counts are approximate.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import Counter

from ..clock import milliseconds
from ..delivery.engine import PerProcess
from ..errors import OutboxError
from ..outbox.counters import arrived
from ..outbox.counters import Mark
from ..outbox.store import Outbox

#: Seconds between two writes in a process that has no thread of its own for them.
PAUSE = 60.0

# Seconds that a write may wait for the outbox. Who comes next tries again.
_TIMEOUT = 0.2

# Counts that are kept while the outbox cannot be written.
_MOST = 1000


class Arrivals:
    """Counts the arrivals of each process.

    :param monotonic: Seconds that never go back; for tests.
    """

    def __init__(
        self, outbox: Outbox, monotonic: t.Callable[[], float] = time.monotonic
    ) -> None:
        self._outbox = outbox
        self._monotonic = monotonic
        self._counted = PerProcess(_Counted)
        #: Whether a thread writes them down.
        self.has_thread = False

    def note(self, referrer: str | None) -> None:
        """Count a visitor.

        :param referrer: The identity of who shared the link, where it is known.
        """
        counted = self._counted.get()
        with counted.lock:
            if len(counted.marks) < _MOST:
                counted.marks[arrived(milliseconds(), referrer)] += 1
        if not self.has_thread and self._monotonic() >= counted.not_before:
            self.flush()

    def flush(self) -> None:
        """Write down what was counted. What cannot be written is kept."""
        counted = self._counted.get()
        counted.not_before = self._monotonic() + PAUSE
        with counted.lock:
            marks, counted.marks = counted.marks, Counter()
        if not marks:
            return
        try:
            self._outbox.count(list(marks.elements()), _TIMEOUT)
        except OutboxError:  # logged by whoever needs the outbox
            with counted.lock:
                counted.marks.update(marks)


class _Counted:
    """What one process has counted and not written down."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.marks: Counter[Mark] = Counter()
        self.not_before = 0.0
