"""The site as a larger one runs it: PostgreSQL, two web processes, Celery."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import requests

from flask_mmolove.sandbox import Sandbox

from . import create_app
from .game import playing
from .models import db
from .ports import listen

ROOT = Path(__file__).parent.parent
INSTALL = "In the project's folder: pip install -e '.[test]'"
CELERY = ("celery", "-A", "example_app.wsgi:celery_app", "worker", "--beat")
GUNICORN = ("gunicorn", "example_app.wsgi:app", "--workers", "2", "--threads", "8")

# Seconds for a part to be ready, and to end.
READY = 30.0
END = 10.0


class Running(t.NamedTuple):
    """What runs where.

    :param watch: Waits until a part ends unexpectedly.
    """

    parts: dict[str, str]
    watch: t.Callable[[], t.NoReturn]


@contextlib.contextmanager
def start(host: str, port: int, sandbox_port: int, level: float) -> t.Iterator[Running]:
    """Run all parts; the end of the block ends each of them.

    :param level: Seconds that a level takes in the game.
    :raises SystemExit: If a part is missing, or does not start.
    """
    servers = find_servers()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit())
    url = f"http://{host}:{port}"
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        listener = enter(listen(host, port, "--port"))
        listen(host, sandbox_port, "--sandbox-port").close()
        folder = Path(enter(tempfile.TemporaryDirectory(prefix="lanternmoor-")))
        sandbox = enter(
            Sandbox(
                server_id="lanternmoor",
                secret=secrets.token_hex(32),
                registration_url=f"{url}/join",
                port=sandbox_port,
            )
        )
        try:
            database = enter(servers.postgresql())
            broker = enter(servers.valkey())
        except servers.Missing as e:
            raise SystemExit(f"Not installed: {e}. {INSTALL}") from None
        settings = {
            **sandbox.settings,
            "SECRET_KEY": secrets.token_hex(32),
            "PUBLIC_URL": url,
            "SANDBOX_URL": sandbox.url,
            "SQLALCHEMY_DATABASE_URI": database.render_as_string(hide_password=False),
            "MMOLOVE_DELIVERY": "celery",
            "CELERY": {"broker_url": broker.url},
        }
        make_tables(settings, folder)
        enter(playing(folder, level))
        run = Processes(settings, folder)
        stack.callback(run.end)
        run.start(*CELERY, "--schedule", folder / "beat", "-l", "info", "-c", "2")
        run.start(*GUNICORN, "--bind", f"fd://{listener.fileno()}", listener=listener)
        listener.close()
        run.wait(url)
        parts = {
            "Lanternmoor": f"{url}/  (Gunicorn, two processes)",
            "MMOLove": f"{sandbox.url}/  (the sandbox; nothing leaves this machine)",
            "The game": f"{folder / 'game.db'}  (a program of its own)",
            "PostgreSQL": f"{host}:{database.port}  (the players and the outbox)",
            "Celery": f"a worker with beat; its broker is {broker.url} (Valkey)",
            "Logs": f"{folder}/",
        }
        yield Running(parts, run.watch)


def find_servers() -> t.Any:
    """The module that starts servers, where all that is needed is installed."""
    missing = [
        name for name in ("celery", "gunicorn") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise SystemExit(f"Not installed: {', '.join(missing)}. {INSTALL}")
    try:
        from example_app import servers
    except ImportError as e:
        raise SystemExit(f"Not found: {e.name}. {INSTALL}") from None
    return servers


def make_tables(settings: t.Mapping[str, t.Any], folder: Path) -> None:
    """Once, before several processes want to."""
    app = create_app(settings, instance_path=str(folder))
    with app.app_context():
        db.engine.dispose()


class Processes:
    """The site's own processes, each with a log.

    :param settings: The site's, which they get in their environment.
    :param folder: For the logs, and what else they write.
    """

    def __init__(self, settings: t.Mapping[str, t.Any], folder: Path) -> None:
        values = {f"FLASK_{key}": json.dumps(each) for key, each in settings.items()}
        self._environment = {**os.environ, **values, "LANTERNMOOR_DATA": str(folder)}
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, *args: str | Path, listener: socket.socket | None = None
    ) -> None:
        with self._log(name).open("wb") as output:
            self._running[name] = subprocess.Popen(
                (sys.executable, "-m", name, *args),
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
                # Ctrl+C is for the one who started them, and who ends them.
                start_new_session=True,
                pass_fds=() if listener is None else (listener.fileno(),),
            )

    def wait(self, url: str) -> None:
        """Until the site and the worker are ready."""
        try:
            requests.get(url, timeout=READY)
        except requests.RequestException:
            raise self._failed("gunicorn") from None
        end = time.monotonic() + READY
        while b" ready." not in self._log("celery").read_bytes():
            if self._running["celery"].poll() is not None or time.monotonic() > end:
                raise self._failed("celery")
            time.sleep(0.05)

    def watch(self) -> t.NoReturn:
        """Wait as long as all of them run."""
        while True:
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise self._failed(name)
            time.sleep(0.5)

    def end(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left behind
            process.wait()

    def _failed(self, name: str) -> SystemExit:
        said = self._log(name).read_text(errors="replace")[-2000:]
        return SystemExit(f"{said}\n{name} does not run. What it said is above.")

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
