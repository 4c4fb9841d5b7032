"""A site under real servers, whose workers come and go under load.

**What runs.** A site under gunicorn, uWSGI or waitress, see :data:`SERVERS`, takes
signups over HTTP, several at once, while its workers are recycled: by the server's own
``--max-requests``, by ``SIGHUP``, and by ``SIGKILL``; waitress, which has one process,
is stopped and started again. In the end there are no more signups, but visitors still
come, for a new worker delivers from its first request on.

**What is measured, and why it can fail.** Each signup that was answered with 200 has to
be accepted by the server once, and it is the package's own thread alone that delivers:
one that is started at import, or is lost in a fork, delivers nothing, and the events
stay. How many different processes answered is counted; the run goes on until enough
have.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

import click
from flask import Flask
from flask import request

from example_app.servers import free_port
from flask_mmolove import MMOLove
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.delivery import watchdog as alarm
from flask_mmolove.delivery.daemon import _Daemon
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox

from . import processes
from .faultserver import FaultServer
from .faultserver import SECRET
from .faultserver import SERVER_ID
from .report import Counters
from .report import Findings
from .report import harness
from .report import progress
from .site import hasten_leases

#: Signups at once, seconds between them, and requests of a worker before the server
#: recycles it.
CLIENTS = 4
PACE = 0.02
MAX_REQUESTS = 10

#: Seconds until a server is up, and until the last event has to be delivered: by then
#: the leases of a process that was killed are long over.
START = 20.0
TIMEOUT = 0.25
FINISH = 30.0

# What Python says when it ends where gevent took threads apart before it came to the
# log handlers of another library: the site was loaded before gevent was.
_FAREWELL = re.compile(
    r"Exception ignored in: <function _removeHandlerRef .*\n"
    r"Traceback .*\n(?:  .*\n)+TypeError: 'NoneType' object is not callable\n"
)

_SITE = "tests.reliability.recycling:create_site()"


def create_site() -> Flask:
    """The site that the servers serve; the environment says the rest."""
    hasten_leases()
    if "RELIABILITY_NO_THREADS" in os.environ:
        # As under uWSGI while threads were not its default: they can be started and
        # never run. The alarm looks at once rather than after a quarter of an hour.
        _Daemon.run = _do_nothing  # type: ignore[assignment, method-assign]
        alarm.FIRST = alarm.BETWEEN = alarm.WARN_AFTER = 0
    app = Flask(__name__, instance_path=os.environ["RELIABILITY_FOLDER"])
    app.config.update(
        SECRET_KEY="for sessions",
        MMOLOVE_SERVER_ID=os.environ.get("RELIABILITY_SERVER_ID", SERVER_ID),
        MMOLOVE_REFERRAL_SECRET=os.environ.get("RELIABILITY_SECRET", SECRET),
        MMOLOVE_ENDPOINT=os.environ["RELIABILITY_ENDPOINT"],
        MMOLOVE_OUTBOX="outbox.db",
        MMOLOVE_TIMEOUT=os.environ["RELIABILITY_TIMEOUT"],
    )
    MMOLove(app)

    @app.get("/")
    def home() -> str:
        return str(os.getpid())

    @app.post("/signup")
    @referral_register
    def signup() -> str:
        registered(request.args["player"])
        return str(os.getpid())

    @app.get("/delivers")
    def delivers() -> tuple[str, int]:
        # A thread of before the fork may still be in Python's list of them.
        is_started = os.getpid() in app.extensions["mmolove"].engine._daemons
        return str(os.getpid()), 200 if is_started else 503

    if "RELIABILITY_WARM" in os.environ:
        # As sites do that load everything before the server forks.
        app.test_client().get("/")
    return app


def _do_nothing(daemon: _Daemon[t.Any]) -> None:
    """What a thread does that never runs."""


def _gunicorn(worker: str, *options: str) -> t.Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        threads = ["--threads", "4"] if worker == "gthread" else []
        return [
            *(sys.executable, "-m", "gunicorn", _SITE, "--log-level", "warning"),
            *("--bind", f"127.0.0.1:{port}", "--worker-class", worker),
            *("--graceful-timeout", "5", "--worker-tmp-dir", "/dev/shm"),
            *(*threads, *options),
        ]

    return command


def _uwsgi(*options: str) -> t.Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        program = shutil.which("uwsgi", path=str(Path(sys.executable).parent))
        return [
            *(program or "uwsgi", "--master", "--need-app", "--die-on-term"),
            *("--disable-logging", "--module", _SITE, "--home", sys.prefix),
            *("--http-socket", f"127.0.0.1:{port}", *options),
        ]

    return command


def _waitress(port: int) -> list[str]:
    call = _SITE.removesuffix("()")
    options = ["--host", "127.0.0.1", "--port", str(port), "--call", call]
    return [sys.executable, "-m", "waitress", *options]


@dataclass(frozen=True)
class Server:
    """A way to serve the site.

    :param needs: The modules or programs without which it cannot run.
    :param command: Gives its command line for a port.
    :param workers: The options for two workers that are recycled.
    :param stop: The signal of an orderly stop.
    :param goodbye: Seconds after which a stop has given the claims back, if ever.
    """

    needs: t.Sequence[str]
    command: t.Callable[[int], list[str]]
    workers: t.Sequence[str] = ()
    stop: signal.Signals = signal.SIGTERM
    goodbye: float | None = 1.0

    def missing(self) -> list[str]:
        """What of it is not installed."""
        folder = str(Path(sys.executable).parent)
        return [
            name
            for name in self.needs
            if importlib.util.find_spec(name) is None
            and shutil.which(name, path=folder) is None
        ]


_TWO_OF_GUNICORN = ("--workers", "2", "--max-requests", str(MAX_REQUESTS))
_TWO_OF_UWSGI = (
    *("--processes", "2", "--max-requests", str(MAX_REQUESTS)),
    *("--min-worker-lifetime", "0"),
)

SERVERS: dict[str, Server] = {
    **{
        f"gunicorn {worker}{preload}": Server(
            ("gunicorn", *(["gevent"] if worker == "gevent" else [])),
            _gunicorn(worker, *preload.split()),
            _TWO_OF_GUNICORN,
            # This worker looks once a second whether it is to stop.
            goodbye=2.0 if worker == "gevent" else 1.0,
        )
        for worker in ("sync", "gthread", "gevent")
        for preload in ("", " --preload")
    },
    "uwsgi": Server(("uwsgi",), _uwsgi("--enable-threads"), _TWO_OF_UWSGI),
    "uwsgi --lazy-apps": Server(
        ("uwsgi",), _uwsgi("--enable-threads", "--lazy-apps"), _TWO_OF_UWSGI
    ),
    "uwsgi --gevent": Server(
        ("uwsgi", "gevent"),
        _uwsgi("--gevent", "20", "--gevent-monkey-patch"),
        _TWO_OF_UWSGI,
        # Its workers end without what is set up to run at exit: the lease runs out.
        goodbye=None,
    ),
    # It knows no signal but that of the keyboard.
    "waitress": Server(("waitress",), _waitress, stop=signal.SIGINT),
}


class Running:
    """A server that runs, with its site.

    :param server: Which.
    :param folder: For the site's files; the server's output goes there too.
    :param settings: What the site reads from the environment, by the end of its name.
    :param options: More of the server's.
    """

    def __init__(
        self,
        server: Server,
        folder: Path,
        settings: t.Mapping[str, str],
        options: t.Sequence[str] = (),
    ) -> None:
        self._server = server
        self._port = free_port()
        self._command = [*server.command(self._port), *options]
        self._log = folder / "log"
        root = Path(__file__).resolve().parents[2]
        names = {f"RELIABILITY_{name}": value for name, value in settings.items()}
        self._environment = {
            **os.environ,
            "RELIABILITY_FOLDER": str(folder),
            "RELIABILITY_TIMEOUT": str(TIMEOUT),
            "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)]),
            "TMPDIR": str(folder),
            **names,
        }
        #: The processes that answered.
        self.pids: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What the server and its site said."""
        return _FAREWELL.sub("", self._log.read_text(errors="replace"))

    @property
    def is_complete(self) -> bool:
        """Whether each worker answered. uWSGI forgets to stop one that is loading."""
        assert self._process is not None
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return True  # a system that does not tell
        return {*map(int, children.split())} <= self.pids

    def start(self) -> None:
        """Start, and wait until it listens; no request is made."""
        self._asked = False
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"The server does not start:\n{self.log}")

    def signal(self, number: int) -> None:
        """Send the server a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def ask_to_stop(self) -> None:
        """Ask for an orderly stop, and do not wait for it."""
        self._asked = True
        self.signal(self._server.stop)

    def stop(self) -> int:
        """Stop by a signal, and give the exit code."""
        process = self._process
        assert process is not None
        if process.poll() is None and not self._asked:
            self.ask_to_stop()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        # Whatever is left of it: it began a session of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def ask(self, method: str, path: str) -> bool:
        """Make a request, and say whether it was answered with 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if response.status == 200:
            self.pids.add(int(content))
        return response.status == 200

    def kill_worker(self) -> bool:
        """Kill one of the server's own children that has answered, if one is left."""
        assert self._process is not None
        for pid in self.pids:
            if _parent(pid) == self._process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    def sign_up(self, player: str, token: str | None = None) -> bool:
        """A visitor with a token makes an account."""
        mmref = token or f"token-{player}"
        return self.ask("POST", f"/signup?mmref={mmref}&player={player}")


def _parent(pid: int) -> int | None:
    """A process's parent, where the system tells it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[1])


class Load:
    """Signups from several clients at once, until it is stopped."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._sign_up, args=(number,))
            for number in range(CLIENTS)
        ]
        #: The ids of the events.
        self.attempted: set[str] = set()
        self.acknowledged: set[str] = set()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _sign_up(self, client: int) -> None:
        number = 0
        while not self._stopping.wait(PACE):
            player = f"{client}-{number}"
            number += 1
            self.attempted.add(f"reg-{player}")
            if self._running.sign_up(player):
                self.acknowledged.add(f"reg-{player}")


def run(server: str | None, recycles: int) -> Findings:
    """Recycle the workers of one server, or of one after the other."""
    report = Findings("recycling", counters := Counters())
    for name, each in SERVERS.items():
        if server in (None, name):
            if missing := each.missing():
                report.rows.append(_row(name, "", f"not run: no {missing[0]}"))
            else:
                found = _recycle(name, each, recycles, report)
                counters += found
    report.counters = counters
    return report


def _row(name: str, *cells: t.Any) -> dict[str, t.Any]:
    heads = ("workers", "kills", "signups", "delivered", "posted again", "seconds")
    filled = [*cells, *[""] * (len(heads) - len(cells))]
    return {"server": name, **dict(zip(heads, filled, strict=True))}


def _recycle(name: str, server: Server, recycles: int, report: Findings) -> Counters:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(processes.scratch())
        truth = stack.enter_context(FaultServer())
        running = Running(
            server, folder, {"ENDPOINT": truth.endpoint}, [*server.workers]
        )
        stack.enter_context(running)
        with Load(running) as load:
            kills = _trouble(name, server, running, recycles)
        _visit(running, lambda: load.acknowledged <= truth.accepted)
        _visit(running, lambda: running.is_complete)
        code = running.stop()
        outbox = SQLiteOutbox(folder / "outbox.db")
        counts = outbox.inspector.summary().counts
        outbox.close()
        log = running.log
    lost = load.acknowledged - truth.accepted
    workers = len(running.pids)
    seconds = round(time.monotonic() - started, 1)
    report.rows.append(
        _row(
            name,
            workers,
            kills,
            len(load.acknowledged),
            len(truth.accepted),
            truth.duplicates,
            seconds,
        )
    )
    if workers < recycles:
        report.faults.append(f"{name}: only {workers} workers answered")
    if code:
        report.faults.append(f"{name}: ended with {code}")
    if "Traceback" in log:
        report.faults.append(f"{name}: {log[log.index('Traceback') :][:2000]}")
    if lost:
        report.faults.append(f"{name}: {len(lost)} not delivered, {counts}")
    return Counters(
        attempted=len(load.attempted),
        acknowledged=len(load.acknowledged),
        delivered=len(truth.accepted),
        duplicate_posts=truth.duplicates,
        recovered=len(truth.accepted - load.acknowledged),
        lost=len(lost),
        unexpected=len(truth.accepted - load.attempted),
    )


def _trouble(name: str, server: Server, running: Running, recycles: int) -> int:
    """Recycle workers until enough have answered; gives how many were killed."""
    kills = 0
    deadline = time.monotonic() + START + 3 * recycles
    bar = progress(range(recycles), name)
    for number in bar:
        while len(running.pids) <= number and time.monotonic() < deadline:
            time.sleep(0.02)
        if not server.workers:
            time.sleep(0.1)
            running.stop()
            running.start()
        elif number % 5 == 4:
            kills += running.kill_worker()
        elif number % 20 == 10:
            running.signal(signal.SIGHUP)
    return kills


def _visit(running: Running, done: t.Callable[[], bool]) -> None:
    """Let visitors come until something is done, but not for ever."""
    deadline = time.monotonic() + FINISH
    while not done() and time.monotonic() < deadline:
        running.ask("GET", "/")
        time.sleep(0.05)


command = harness(
    click.option("--server", type=click.Choice([*SERVERS]), help="Only this one."),
    click.option("--recycles", default=20, show_default=True, help="Of each server."),
)(run)
command.name = "recycling"
