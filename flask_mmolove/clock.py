"""The time as the outbox keeps it."""

from __future__ import annotations

import time
from datetime import datetime
from datetime import timezone


def milliseconds() -> int:
    """Unix time in integer milliseconds."""
    return time.time_ns() // 1_000_000


def as_datetime(milliseconds: int) -> datetime:
    """A time of the outbox, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def midnight(day: datetime) -> int:
    """When a day begins, in UTC."""
    return int(day.replace(tzinfo=timezone.utc).timestamp()) * 1000
