"""The site under the servers that people use: threads, forks and orderly stops."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask import request

from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.sandbox import Faults
from flask_mmolove.sandbox import Sandbox
from flask_mmolove.state import State
from flask_mmolove.testing import SiteSandbox
from tests.reliability.recycling import Running
from tests.reliability.recycling import Server
from tests.reliability.recycling import SERVERS

Serve = t.Callable[..., t.ContextManager[Running]]


def eventually(condition: t.Callable[[], object], seconds: float = 10) -> bool:
    """Whether something comes true within some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def forks(test: t.Callable[..., None]) -> t.Callable[..., None]:
    """A test that forks this process, which may have threads."""
    quiet = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    able = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
    return t.cast("t.Callable[..., None]", able(quiet(test)))


@pytest.fixture
def sandbox(mmolove_sandbox: SiteSandbox) -> Sandbox:
    return mmolove_sandbox.sandbox


@pytest.fixture
def outbox(tmp_path: Path) -> t.Iterator[SQLiteOutbox]:
    outbox = SQLiteOutbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


@pytest.fixture
def serve(sandbox: Sandbox, tmp_path: Path) -> Serve:
    """Serves a site that reports to the sandbox."""

    def make(name: str, **settings: str) -> Running:
        server: Server = SERVERS[name]
        if missing := server.missing():
            words = f"not installed: {', '.join(missing)}"
            (pytest.fail if "CI" in os.environ else pytest.skip)(words)
        needed = {
            "ENDPOINT": sandbox.endpoint,
            "SERVER_ID": sandbox.settings["MMOLOVE_SERVER_ID"],
            "SECRET": sandbox.settings["MMOLOVE_REFERRAL_SECRET"],
            "TIMEOUT": "10",
        }
        return Running(server, tmp_path, {**needed, **settings})

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_a_signup_arrives_by_itself_and_a_stop_leaves_no_claim(
    name: str, serve: Serve, sandbox: Sandbox, outbox: SQLiteOutbox
) -> None:
    with serve(name) as running:
        assert running.sign_up("1", sandbox.mint())
        # No further request is made.
        assert eventually(lambda: sandbox.events)
        assert eventually(lambda: _entry(outbox, "1").state == "accepted")

        sandbox.faults = Faults(latency=30)
        assert running.sign_up("2", sandbox.mint())
        assert eventually(lambda: _entry(outbox, "2").claim)
        running.ask_to_stop()
        if (seconds := SERVERS[name].goodbye) is not None:
            assert eventually(lambda: _entry(outbox, "2").claim is None, seconds)
        assert running.stop() == 0
    assert _entry(outbox, "2").state == "pending"
    assert "Traceback" not in running.log


@pytest.mark.slow
def test_without_threads_events_wait_and_the_site_says_so(
    serve: Serve, sandbox: Sandbox, outbox: SQLiteOutbox
) -> None:
    with serve("gunicorn sync", NO_THREADS="1") as running:
        assert running.sign_up("1", sandbox.mint())
        time.sleep(0.1)
        assert running.ask("GET", "/?mmref=token")
        assert eventually(lambda: "nothing delivers them" in running.log)
    assert _entry(outbox, "1").state == "pending"
    assert not sandbox.arrivals


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gunicorn sync --preload", "uwsgi"])
def test_a_site_that_calls_itself_at_import_delivers_after_the_fork(
    serve: Serve, name: str
) -> None:
    with serve(name, WARM="1") as running:
        assert running.ask("GET", "/")
        assert running.ask("GET", "/delivers")


@forks
def test_a_fork_while_every_lock_is_held(
    mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    app = make_site(mmolove_sandbox.config, tmp_path, "thread")
    token = mmolove_sandbox.mint()
    state = t.cast(State, app.extensions["mmolove"])
    delivery = state.make_delivery()
    state.outbox.inspector.summary()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in _locks(state, delivery):
                stack.enter_context(lock)
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    pid = os.fork()
    if not pid:
        status = 1
        with contextlib.suppress(BaseException):
            app.test_client().post(f"/signup?mmref={token}&player=7")
            if eventually(
                lambda: state.outbox.inspector.summary().counts == {"accepted": 1}
            ):
                status = 0
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    done.set()
    thread.join()
    state.outbox.close()
    assert status == 0
    assert mmolove_sandbox.reported == [("registered", "7")]


@forks
def test_a_fork_of_a_process_that_has_served_delivers_from_its_first_request_on(
    mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    app = make_site(mmolove_sandbox.config, tmp_path, "thread")
    state = t.cast(State, app.extensions["mmolove"])
    app.test_client().get("/")
    pid = os.fork()
    if not pid:
        status = 1
        with contextlib.suppress(BaseException):
            before, _ = _delivers(), app.test_client().get("/")
            status = 0 if (before, _delivers()) == (False, True) else 2
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert _delivers()
    state.engine.stop()
    state.outbox.close()
    assert status == 0


def _delivers() -> bool:
    """Whether this process has a thread that delivers."""
    return "flask-mmolove" in {thread.name for thread in threading.enumerate()}


def _locks(*roots: object) -> list[t.Any]:
    """Every lock that can be reached from some objects of the package."""
    lock_type = type(threading.Lock())
    seen: set[int] = set()
    found = []
    queue = list(roots)
    while queue:
        each = queue.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, lock_type):
            found.append(each)
        elif isinstance(each, dict):
            queue += each.values()
        elif type(each).__module__.startswith("flask_mmolove"):
            queue += vars(each).values() if hasattr(each, "__dict__") else []
    assert len(found) >= 2, "the database's and the client's"
    return found


def make_site(
    config: t.Mapping[str, t.Any], folder: Path, delivery: str = "thread"
) -> Flask:
    app = Flask(__name__, instance_path=str(folder))
    app.config.update(config, SECRET_KEY="not a secret", MMOLOVE_DELIVERY=delivery)
    MMOLove(app)

    @app.post("/signup")
    def signup() -> str:
        registered(request.args["player"])
        return "Welcome."

    return app


SITE = """
import atexit, os, sys, threading
from flask import Flask
from flask import request
from flask_mmolove import MMOLove, registered

app = Flask(__name__, instance_path=sys.argv[1])
app.config.update(
    SECRET_KEY="not a secret",
    MMOLOVE_SERVER_ID="srv",
    MMOLOVE_REFERRAL_SECRET="a secret",
    MMOLOVE_ENDPOINT=sys.argv[2],
    MMOLOVE_OUTBOX="outbox.db",
)
MMOLove(app)

@app.post("/signup/<player>")
def signup(player):
    registered(player)
    return "Welcome."

def sign_up(count):
    for number in range(count):
        url = f"/signup/{number}?mmref=token-{number}"
        assert app.test_client().post(url).status_code == 200
"""

AT_IMPORT = """
assert threading.active_count() == 1, threading.enumerate()
assert not os.listdir(sys.argv[1]), os.listdir(sys.argv[1])
assert "requests" not in sys.modules
"""


@pytest.fixture
def script(sandbox: Sandbox, tmp_path: Path) -> t.Callable[[str], str]:
    """Runs a site as a script to its end, and gives what it said."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SITE + code, str(tmp_path), sandbox.endpoint],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def test_nothing_is_started_or_made_at_import(script: t.Callable[[str], str]) -> None:
    assert script(AT_IMPORT) == ""


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("latency", [0, 30])
def test_the_end_of_a_process_with_events_pending_is_quiet(
    count: int,
    latency: int,
    script: t.Callable[[str], str],
    sandbox: Sandbox,
    outbox: SQLiteOutbox,
) -> None:
    sandbox.faults = Faults(latency=latency, fail=503)
    # The breaker may say that it opened; nothing else is worth a word.
    said = [line for line in script(f"sign_up({count})").splitlines() if line]
    assert not [line for line in said if "MMOLove fails" not in line]
    counts = outbox.inspector.summary().counts
    assert counts == {"pending": count}
    entries = [_entry(outbox, str(number)) for number in range(count)]
    assert [entry.claim for entry in entries] == [None] * count


FORK = """
from flask_mmolove.protocol.client import ReferralClient

sending = threading.Event()

def send(client, body):
    sending.set()
    threading.Event().wait(20)

ReferralClient.send = send
sign_up(1)
assert sending.wait(20)
if not os.fork():
    sys.exit()
os.wait()
assert app.extensions["mmolove"].outbox.of("0", False)["registered"].claim
"""


@forks
def test_the_end_of_a_fork_gives_back_nothing_of_its_parent(
    script: t.Callable[[str], str],
) -> None:
    script(FORK)


@pytest.mark.slow
@pytest.mark.parametrize("before", [0, 1])
def test_no_thread_is_started_at_exit(
    before: int, script: t.Callable[[str], str], outbox: SQLiteOutbox
) -> None:
    said = script(f"sign_up({before}); atexit.register(sign_up, 30)")
    assert "Traceback" not in said
    assert sum(outbox.inspector.summary().counts.values()) == 30


def _entry(outbox: SQLiteOutbox, player: str) -> t.Any:
    return outbox.of(player, False)["registered"]
