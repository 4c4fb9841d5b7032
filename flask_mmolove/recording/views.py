"""How often each signup view named a player, so that a wrong ``player=`` is noticed.

A view that names nobody looks like a site where nobody signs up. So the answers that it
gave to visitors with a token are counted, in the outbox, for all processes.
"""

from __future__ import annotations

import json
import threading
import time
import typing as t

from ..delivery.engine import PerProcess
from ..log import logger
from ..log import Throttle
from ..outbox.store import Outbox

#: Answers in a row that name nobody, of a view that named players before, after which
#: that is worth a warning. A form that is filled in wrongly is answered like that too.
IN_A_ROW = 10

# The name of the fact that holds the counts, and seconds between two writes of it by
# requests. The delivery's thread writes the rest.
_FACT = "views"
_PAUSE = 10

# Seconds that a request may wait to write them. What is not written is kept.
_TIMEOUT = 0.2


class Record(t.NamedTuple):
    """What is known of a view.

    :param named: How many players it named.
    :param last: When it last did, in integer milliseconds.
    :param in_a_row: The answers since then to visitors with a token that named nobody.
    :param reason: Why the last of them did not, in words.
    """

    named: int = 0
    last: int | None = None
    in_a_row: int = 0
    reason: str = ""

    def plus(self, news: Record) -> Record:
        """This and what came after it."""
        since = news.in_a_row if news.named else self.in_a_row + news.in_a_row
        return Record(
            self.named + news.named,
            news.last or self.last,
            since,
            news.reason if news.in_a_row else self.reason if since else "",
        )


class SignupViews:
    """The signup views of an app.

    :param clock: Unix seconds; for tests.
    """

    def __init__(
        self, outbox: Outbox, clock: t.Callable[[], float] = time.time
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._counted = PerProcess(_Counted)
        self._warned = Throttle(float("inf"))

    def named(self, endpoint: str) -> None:
        """A view named a player."""
        self._count(endpoint, Record(1, int(self._clock() * 1000)))

    def failed(self, endpoint: str, reason: str) -> Record:
        """A view named nobody who could be reported. Gives what is known of it now.

        :param reason: Why, in words.
        """
        return self._count(endpoint, Record(in_a_row=1, reason=reason))

    def nobody(self, endpoint: str, status: int, reason: str) -> None:
        """A view answered a visitor with a token as if they had signed up, and nobody
        was named: warn once for each reason.

        :param reason: Why, in words.
        """
        record = self.failed(endpoint, reason)
        if record.named and record.in_a_row != IN_A_ROW:
            return
        if record.named or self._warned.passes(f"{endpoint} {reason}"):
            logger.warning(
                "The view %r answered %s to a visitor with a token and named no new "
                "player, so nothing was reported: %s. If a player signed up, name it: "
                "call registered(player) in the view, or write "
                "@referral_register(player=...). This is said once per reason%s.",
                endpoint,
                status,
                reason,
                f"; it named {record.named} before" if record.named else "",
            )

    def read(self) -> dict[str, Record]:
        """What is known of each view, of all processes.

        :raises OutboxError: If it cannot be read.
        """
        stored = self._outbox.run(lambda db: db.fact(_FACT), writes=False)
        return _merge(_parse(stored), self._counted.get().news)

    def _count(self, endpoint: str, news: Record) -> Record:
        counted = self._counted.get()
        with counted.lock:
            for records in (counted.news, counted.known):
                records[endpoint] = records.get(endpoint, Record()).plus(news)
            record = counted.known[endpoint]
        if counted.write_again.passes():
            self.flush()
        return record

    def flush(self) -> None:
        """Write down what was counted. What cannot be written is kept."""
        counted = self._counted.get()
        with counted.lock:
            news, counted.news = counted.news, {}
        if not news:
            return
        try:
            self._outbox.run(
                lambda db: db.update_fact(
                    _FACT, lambda text: json.dumps(_merge(_parse(text), news))
                ),
                _TIMEOUT,
            )
        except Exception:  # it is not worth an error of its own
            with counted.lock:
                counted.news = _merge(news, counted.news)


class _Counted:
    """What one process has counted.

    :ivar news: What is not written down yet.
    :ivar known: All that it counted itself.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.news: dict[str, Record] = {}
        self.known: dict[str, Record] = {}
        self.write_again = Throttle(_PAUSE)


def _parse(text: str | None) -> dict[str, Record]:
    if text is None:
        return {}
    return {name: Record(*each) for name, each in json.loads(text).items()}


def _merge(records: dict[str, Record], news: dict[str, Record]) -> dict[str, Record]:
    merged = dict(records)
    for name, each in news.items():
        merged[name] = merged.get(name, Record()).plus(each)
    return merged
