"""The time as the outbox keeps it."""

from __future__ import annotations

import time


def milliseconds() -> int:
    """Unix time in integer milliseconds."""
    return time.time_ns() // 1_000_000
