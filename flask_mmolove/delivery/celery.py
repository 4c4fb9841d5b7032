"""Celery runs the delivery: a task of the site's own workers, and what calls it.

A message only says that something is due, and the rows alone say what it is. A message
that is lost is made up for by the sweep, and one that comes twice finds nothing left.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
import weakref
from collections import deque

from celery import Celery
from celery import current_app
from celery import shared_task
from celery.exceptions import QueueNotFound

from ..errors import ConfigError
from ..errors import OutboxError
from ..log import logger
from ..log import Throttle
from .daemon import DaemonEngine
from .daemon import IDLE
from .engine import Asker
from .engine import PerProcess
from .senders import Senders
from .step import Delivery

#: The name of the task.
TASK = "flask_mmolove.deliver"

#: The name of the task that asks for milestones.
ASK = "flask_mmolove.ask"

#: Seconds after which a message expires. Not fewer, for the
#: clocks of two machines are compared, and one may be wrong.
EXPIRES = 3600

#: The sweep, to be put into the ``beat_schedule`` of the site's Celery app.
BEAT_SCHEDULE: dict[str, dict[str, t.Any]] = {
    "flask-mmolove": {
        "task": TASK,
        "schedule": 10.0,
        "options": {"expires": EXPIRES},
    }
}

#: Milliseconds for which something may be overdue before a site's process calls a
#: worker, in case the site has no beat.
SWEEP_AFTER = 60_000

#: Seconds before a broker is tried again that could not be reached.
REST = 5.0

#: Seconds between two messages of a process: what comes meanwhile goes into one.
LULL = 0.1

#: Seconds after which a task leaves what is left to the next one.
LONGEST = 25.0

#: Entries that one message names. Where there are more it names none.
_MOST = 100

# Seconds that a broker may be silent. Without these, some are waited for forever.
_TIMEOUTS = {
    "redis": {"socket_connect_timeout": 3, "socket_timeout": 5},
    "amqp": {"read_timeout": 5, "write_timeout": 5},
}

_MISSING = (
    "The site has no Celery app. Make one, and set app.extensions['celery'] to it: the "
    "docs of Flask show how, under 'Background Tasks with Celery'."
)

_NO_QUEUE = (
    "Celery has no place for the task '" + TASK + "': {}. Add the queue to "
    "'task_queues', or send the task to one that is there with 'task_routes'."
)


class CeleryEngine(DaemonEngine["_Messenger"]):
    """Has the delivery run by the workers of the site's Celery app.

    Nobody who calls it speaks with the broker: a daemon thread of the process does, so
    that one which is slow, silent or gone holds up no signup.

    :param delivery: Makes the delivery of a process.
    :param concurrency: Attempts in flight at once, in each process of a worker.
    :param own: Gives the site's Celery app; if it is none, Celery's current app is.
    """

    def __init__(
        self,
        delivery: t.Callable[[], Delivery],
        concurrency: int,
        own: t.Callable[[], object],
    ) -> None:
        super().__init__(lambda: _Messenger(delivery(), self.celery, self.is_due))
        self._own = own
        self._asker: Asker | None = None
        self._workers = PerProcess(lambda: _Worker(delivery(), concurrency))
        _engines.add(self)

    def wake(self, ids: t.Collection[int] = ()) -> None:
        daemon = self._daemon()
        daemon.job.ids.extend(ids)
        daemon.wake.set()

    def deliver(self, ids: t.Collection[int] | None) -> None:
        """Run the delivery in this process. What the task does."""
        self._workers.get().call(ids)

    def ask_by(self, asker: Asker) -> None:
        self._asker = asker

    def is_due(self) -> bool:
        """Whether it is time to ask for milestones."""
        return self._asker is not None and self._asker.is_due()

    def ask(self) -> None:
        """Ask for milestones in this process. What the task does."""
        if self._asker is not None:
            self._asker.ask()

    def celery(self) -> Celery:
        """The site's Celery app.

        :raises ConfigError: If there is none.
        """
        own = self._own()
        if isinstance(own, Celery):
            return own
        current: Celery = current_app._get_current_object()
        # Celery makes one up where there is none.
        if current.main == "default" and not current.conf.broker_url:
            raise ConfigError(_MISSING, "MMOLOVE_DELIVERY")
        return current

    def works_for(self, celery: Celery) -> bool:
        """Whether this is the site's Celery app."""
        with contextlib.suppress(ConfigError):
            return self.celery() is celery
        return False

    def queue(self) -> str | None:
        """The queue into which the site's Celery app puts the task; None if it goes to
        an exchange, and the broker alone knows its queues.

        :raises ConfigError: If there is no such queue, or no Celery app.
        """
        celery = self.celery()
        task = celery.tasks[TASK]
        own = getattr(task, "queue", None)
        options = {"queue": own} if own else {}
        try:
            route = celery.amqp.router.route(options, TASK, (None,), {}, task)
        except QueueNotFound as e:
            raise ConfigError(_NO_QUEUE.format(e)) from e
        queue = route.get("queue")
        return None if queue is None else str(queue.name)

    def ask_workers(self) -> dict[str, Answer]:
        """Which workers answer within a second or two, and what they say.

        :raises Exception: Whatever says that the broker cannot be reached.
        """
        celery = self.celery()
        with _connect(celery) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            inspect = celery.control.inspect(timeout=1, connection=connection)
            registered: dict[str, list[str]] = inspect.registered() or {}
            queues: dict[str, list[dict[str, t.Any]]] = {}
            if registered:
                queues = inspect.active_queues() or {}
        return {
            name: Answer(
                knows=any(task.split(" ")[0] == TASK for task in tasks),
                queues=None
                if name not in queues
                else [str(queue["name"]) for queue in queues[name]],
            )
            for name, tasks in registered.items()
        }


class Answer(t.NamedTuple):
    """What a worker says of itself.

    :param knows: Whether it knows the task.
    :param queues: From which queues it takes; None if it did not say.
    """

    knows: bool
    queues: list[str] | None

    def takes_from(self, queue: str | None) -> bool:
        """Whether it takes from this queue, as far as is known."""
        return queue is None or self.queues is None or queue in self.queues


#: The engines of this process, among which the task finds its own.
_engines: weakref.WeakSet[CeleryEngine] = weakref.WeakSet()


class _Messenger:
    """Sends one process's messages.

    :param ids: The entries to be told of. Of too many the first are forgotten, for
        then none is named.
    """

    def __init__(
        self,
        delivery: Delivery,
        celery: t.Callable[[], Celery],
        asks: t.Callable[[], bool],
    ) -> None:
        self.ids: deque[int] = deque(maxlen=_MOST)
        self._delivery = delivery
        self._celery = celery
        self._asks = asks
        self._not_before = 0.0
        self._failed = False
        self._complaint = Throttle(600)

    def turn(self) -> float:
        wait = self._not_before - time.monotonic()
        if wait > 0:
            return wait
        # No worker of another machine can see what lies here.
        imported = self._delivery.import_spool()
        ids = [self.ids.popleft() for _ in range(len(self.ids))]
        if imported or self._failed or len(ids) == _MOST or self._is_overdue():
            return self._send(TASK, None)
        if ids:
            return self._send(TASK, ids)
        return self._send(ASK) if self._asks() else IDLE

    def stop(self) -> None:
        pass

    def _is_overdue(self) -> bool:
        now = self._delivery.now()
        due = self._delivery.outbox.next_due(now)
        return due is not None and now - due > SWEEP_AFTER

    def _send(self, task: str, *arguments: t.Any) -> float:
        try:
            celery = self._celery()
            # A new connection: an old one may have died unnoticed.
            with _connect(celery) as connection:
                celery.tasks[task].apply_async(
                    arguments, connection=connection, retry=False, expires=EXPIRES
                )
        except Exception as e:  # there are many brokers, and each has its own errors
            self._failed = True
            self._not_before = time.monotonic() + REST
            self._complain(e)
            return REST
        self._failed = False
        self._not_before = time.monotonic() + LULL
        return IDLE

    def _complain(self, error: Exception) -> None:
        if not self._complaint.passes():
            return
        if isinstance(error, QueueNotFound):
            error = ConfigError(_NO_QUEUE.format(error))
        if isinstance(error, ConfigError):
            logger.error("Nothing is delivered: %s", error)
            return
        logger.error(
            "No Celery worker can be told of new events: %s: %s. The events are safe, "
            "and delivered once Celery's broker is back.",
            type(error).__name__,
            error,
        )


class _Worker:
    """Delivers in one process of a worker. That may run several tasks at once: one of
    them runs the delivery, and the others leave their ids to it.
    """

    def __init__(self, delivery: Delivery, concurrency: int) -> None:
        self._delivery = delivery
        self._senders = Senders(concurrency)
        self._calls: deque[t.Collection[int] | None] = deque(maxlen=1000)
        self._lock = threading.Lock()
        self._complaint = Throttle(600)

    def call(self, ids: t.Collection[int] | None) -> None:
        """Do what is due, these entries first."""
        self._calls.append(ids)
        end = time.monotonic() + LONGEST
        # Who finds the lock taken was heard: its holder looks again when it lets go.
        while self._calls and time.monotonic() < end:
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._turn(end)
            except OutboxError as e:
                if self._complaint.passes():
                    logger.error("Nothing can be delivered for now: %s", e)
            finally:
                self._lock.release()

    def _turn(self, end: float) -> None:
        while self._calls:
            ids = self._calls.popleft()
            if ids:
                self._delivery.step(self._senders.run, ids, end)
        # Then all else: what was taken makes more due, a milestone and its reward.
        while self._delivery.step(self._senders.run, until=end):
            pass


@shared_task(name=TASK, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def deliver(task: t.Any, ids: list[int] | None = None) -> None:
    """Deliver what is due, these entries first.

    :raises ConfigError: If no Flask app of the worker has a delivery by Celery.
    """
    for engine in _engines_of(task.app):
        engine.deliver(ids)


@shared_task(name=ASK, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
def ask(task: t.Any) -> None:
    """Ask the site which friends have reached the milestone, if a round is due.

    :raises ConfigError: If no Flask app of the worker has a delivery by Celery.
    """
    for engine in _engines_of(task.app):
        engine.ask()


def _engines_of(celery: Celery) -> list[CeleryEngine]:
    engines = [engine for engine in _engines if engine.works_for(celery)]
    if not engines:
        raise ConfigError(
            "This Celery worker knows no Flask app to deliver for. In the module that "
            "'celery -A' names, make the Flask app too, with MMOLOVE_DELIVERY='celery',"
            " and let app.extensions['celery'] be the Celery app of the worker.",
            "MMOLOVE_DELIVERY",
        )
    return engines


def _connect(celery: Celery) -> t.Any:
    """A connection, not yet made, to a broker that may not be silent for long."""
    connection = celery.connection_for_write()
    for name, value in _TIMEOUTS.get(connection.transport.driver_type, {}).items():
        connection.transport_options.setdefault(name, value)
    return connection
