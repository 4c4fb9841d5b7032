from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from celery import _state
from celery import Celery
from flask import Flask
from flask.cli import ScriptInfo
from kombu.entity import Queue

from example_app import servers
from flask_mmolove import ConfigError
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.admin.health import examine
from flask_mmolove.clock import milliseconds
from flask_mmolove.delivery import celery as by_celery
from flask_mmolove.delivery.celery import ASK
from flask_mmolove.delivery.celery import CeleryEngine
from flask_mmolove.delivery.celery import TASK
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.conftest import find_url
from tests.conftest import MakeApp

ROOT = Path(__file__).parents[2]

#: Settings of Celery under which the task has nowhere to go.
NO_QUEUE: dict[str, t.Any] = {
    "task_create_missing_queues": False,
    "task_queues": [Queue("game")],  # type: ignore[no-untyped-call]
    "task_routes": {TASK: "mail"},
}


@pytest.fixture
def broker(valkey: servers.Broker) -> servers.Broker:
    """An empty one."""
    valkey.kill()
    valkey.start()
    return valkey


class Site:
    """A site that delivers by Celery, and its workers in processes of their own."""

    def __init__(
        self, app: Flask, celery: Celery, sandbox: SiteSandbox, folder: Path
    ) -> None:
        self.app = app
        self.celery = celery
        self.sandbox = sandbox
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def engine(self) -> CeleryEngine:
        engine = self.app.extensions["mmolove"].engine
        assert isinstance(engine, CeleryEngine)
        return engine

    def sign_up(self, player: str) -> None:
        with self.app.app_context():
            registered(player, token=self.sandbox.mint())

    def qualify(self, player: str) -> None:
        with self.app.app_context():
            qualify(player)

    def state(self, player: str, name: str = "registered") -> str:
        outbox = self.app.extensions["mmolove"].outbox
        return str(outbox.of(player, False)[name].state)

    def work(
        self, pool: str = "solo", queues: str = "", *, stranger: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a worker.

        :param queues: What it takes from; the default queue, unless given.
        :param stranger: Of another app on the same broker.
        """
        whose = ("-A", "tests.delivery.celerysite:celery_app")
        if stranger:
            whose = ("-b", str(self.celery.conf.broker_url))
        settings = {
            f"FLASK_{key}": json.dumps(str(value))
            for key, value in self.app.config.items()
            if key.startswith("MMOLOVE_")
        }
        log = self.folder / f"worker-{len(self.workers)}.txt"
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", *whose),
                    *("worker", "--pool", pool, "--concurrency", "2", "-l", "info"),
                    *("--without-gossip", "--without-mingle"),
                    *("-n", f"{len(self.workers)}@here"),
                    *(["-Q", queues] if queues else []),
                ],
                cwd=ROOT,
                env={
                    **os.environ,
                    **settings,
                    "CELERYSITE_BROKER": str(self.celery.conf.broker_url),
                    "CELERYSITE_FOLDER": str(self.folder),
                },
                stdout=output,
                stderr=output,
            )
        self.workers.append(worker)
        self.wait(lambda: b" ready." in log.read_bytes())
        return worker

    def logs(self) -> str:
        files = sorted(self.folder.glob("worker-*.txt"))
        return "\n".join(file.read_text() for file in files)

    def wait(self, reached: t.Callable[[], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, self.logs()[-4000:]
            time.sleep(0.01)  # what is waited for happens in another process

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(30)


Fixture = t.Callable[..., Site]


@pytest.fixture
def make_site(
    broker: servers.Broker,
    make_app: MakeApp,
    mmolove_sandbox: SiteSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> t.Iterator[Fixture]:
    made: list[Site] = []
    monkeypatch.setattr(by_celery, "REST", 0.2)

    def make(**settings: t.Any) -> Site:
        app = make_app(DELIVERY="celery", **settings)
        celery = Celery("site", broker=broker.url, set_as_current=False)
        app.extensions["celery"] = celery
        made.append(Site(app, celery, mmolove_sandbox, tmp_path))
        return made[-1]

    yield make
    for site in made:
        site.engine.stop()
        site.end()


@pytest.fixture
def site(make_site: Fixture) -> Site:
    return make_site()


def sent(broker: servers.Broker) -> list[t.Any]:
    """The argument of each message that waits at the broker, oldest first."""
    import base64

    import redis

    with redis.Redis.from_url(broker.url) as client:
        messages = client.lrange("celery", 0, -1)
    assert isinstance(messages, list)
    bodies = [base64.b64decode(json.loads(each)["body"]) for each in messages[::-1]]
    return [json.loads(body)[0][0] for body in bodies]


@pytest.mark.slow
def test_a_signup_its_milestone_and_its_reward_are_a_worker_s(site: Site) -> None:
    worker = site.work()
    site.sign_up("7")
    site.qualify("7")
    site.wait(lambda: site.state("7", "qualified") == "rewarded")
    assert site.sandbox.reported == [("registered", "7"), ("qualified", "7")]
    rewards = (site.folder / "rewards").read_text().split()
    assert rewards == ["mmolove-demo-server-7", str(worker.pid)]


@pytest.mark.slow
def test_what_a_worker_records_is_delivered_too(site: Site) -> None:
    site.work()
    site.celery.send_task("signup", ("7", site.sandbox.mint()), ignore_result=True)
    site.wait(lambda: site.sandbox.reported == [("registered", "7")])


@pytest.mark.slow
def test_a_lost_message_is_made_up_for_by_the_sweep(
    site: Site, broker: servers.Broker
) -> None:
    site.sign_up("7")
    site.wait(lambda: len(sent(broker)) == 1)
    broker.kill()  # and with it all it held
    broker.start()
    site.work()
    (entry,) = by_celery.BEAT_SCHEDULE.values()
    assert site.state("7") == "pending"
    site.celery.send_task(entry["task"], ignore_result=True, **entry["options"])
    site.wait(lambda: site.state("7") == "accepted")


@pytest.mark.slow
def test_a_doubled_message_changes_nothing(site: Site) -> None:
    site.work()
    site.work("threads")
    ids = list(range(1, 11))
    for number in ids:
        site.sign_up(str(number))
        for _ in range(3):
            site.celery.send_task(TASK, (ids,), ignore_result=True)
    site.wait(lambda: all(site.state(str(n)) == "accepted" for n in ids))
    assert sorted(site.sandbox.reported) == sorted(("registered", str(n)) for n in ids)
    assert len(site.sandbox.sandbox.arrivals) == len(ids)


@pytest.mark.slow
def test_two_workers_share_an_outbox_in_a_database(
    make_site: Fixture, request: pytest.FixtureRequest
) -> None:
    url = find_url("postgresql", request)
    site = make_site(OUTBOX=url.render_as_string(hide_password=False))
    site.work()
    site.work("threads")
    players: list[str] = []
    rewards = site.folder / "rewards"
    rewards.touch()

    def both_have_rewarded() -> bool:
        players.append(str(len(players)))
        site.sign_up(players[-1])
        site.qualify(players[-1])
        return len({line.split()[1] for line in rewards.read_text().splitlines()}) == 2

    site.wait(both_have_rewarded)
    site.wait(lambda: all(site.state(p, "qualified") == "rewarded" for p in players))
    # Nothing was sent twice, and nothing given twice.
    assert len(site.sandbox.sandbox.arrivals) == 2 * len(players)
    keys = [line.split()[0] for line in rewards.read_text().splitlines()]
    assert len(set(keys)) == len(keys) == len(players)


class TestBroker:
    def test_who_signs_up_never_speaks_to_it(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: list[str] = []
        called = threading.Event()

        def connect(*args: t.Any, **kwargs: t.Any) -> t.NoReturn:
            threads.append(threading.current_thread().name)
            called.set()
            raise OSError("no broker")

        monkeypatch.setattr(Celery, "connection_for_write", connect)
        monkeypatch.setattr(Celery, "connection", connect)
        site.sign_up("7")
        assert called.wait(20)
        site.sign_up("8")
        assert set(threads) == {"flask-mmolove"}

    @pytest.mark.slow
    def test_a_dead_one_loses_nothing_and_is_said_once(
        self, site: Site, broker: servers.Broker, caplog: pytest.LogCaptureFixture
    ) -> None:
        broker.kill()
        for number in range(3):
            site.sign_up(str(number))
        site.wait(lambda: "No Celery worker can be told" in caplog.text)
        assert [site.state(str(number)) for number in range(3)] == ["pending"] * 3
        broker.start()
        site.work()
        site.wait(lambda: site.state("2") == "accepted")
        assert len(site.sandbox.reported) == 3
        ours = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len([r for r in ours if r.name == "flask_mmolove"]) == 1

    @pytest.mark.slow
    def test_a_worker_goes_on_when_it_is_back(
        self, site: Site, broker: servers.Broker
    ) -> None:
        site.work()
        broker.kill()
        site.sign_up("7")
        broker.start()
        site.wait(lambda: site.state("7") == "accepted")

    def test_what_comes_in_a_row_goes_together(
        self, site: Site, broker: servers.Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(by_celery, "LULL", 1.0)
        for number in range(20):
            site.sign_up(str(number))
        site.wait(lambda: sum(map(len, sent(broker))) == 20)
        assert len(sent(broker)) <= 3

    def test_so_many_that_they_are_not_named_are_still_told_of(
        self, site: Site, broker: servers.Broker
    ) -> None:
        site.engine.wake(range(1000))
        site.wait(lambda: sent(broker) == [None])


class TestSite:
    def test_its_process_sweeps_by_itself_what_is_overdue(
        self, site: Site, broker: servers.Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.sign_up("7")
        site.wait(lambda: len(sent(broker)) == 1)
        monkeypatch.setattr(by_celery, "SWEEP_AFTER", -1)

        def swept() -> bool:
            site.engine.wake()
            return sent(broker)[1:2] == [None]

        site.wait(swept)

    def test_its_process_takes_in_the_emergency_exit(
        self, site: Site, broker: servers.Broker
    ) -> None:
        path = site.app.extensions["mmolove"].settings.outbox
        path.mkdir()
        with site.app.test_request_context():
            site.sign_up("7")
        path.rmdir()
        site.wait(lambda: sent(broker) == [None])
        assert site.state("7") == "pending"

    def test_without_a_celery_app_it_is_told_what_to_do(
        self, make_app: MakeApp, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(DELIVERY="celery")
        engine = app.extensions["mmolove"].engine
        with pytest.raises(ConfigError, match=r"app\.extensions\['celery'\]"):
            engine.celery()

    def test_celery_s_current_app_is_used_where_it_named_none(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_state._tls, "current_app", None)  # and back afterwards
        app = make_app(DELIVERY="celery")
        celery = Celery("mine", broker="memory://")
        assert app.extensions["mmolove"].engine.celery() is celery

    def test_without_celery_it_is_told_what_to_install(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "flask_mmolove.delivery.celery")
        monkeypatch.setitem(sys.modules, "celery", None)
        with pytest.raises(ConfigError, match=r"pip install 'Flask-MMOLove\[celery\]'"):
            make_app(DELIVERY="celery")


@pytest.mark.slow
class TestCheck:
    def check(self, site: Site) -> str:
        info = ScriptInfo(create_app=lambda: site.app)
        result = site.app.test_cli_runner().invoke(command, ["check"], obj=info)
        (line,) = [line for line in result.output.splitlines() if "  celery " in line]
        return str(line)

    def test_it_says_whether_a_worker_answers(self, site: Site) -> None:
        assert self.check(site).startswith("FAIL  celery      no worker answers")
        site.work()
        assert self.check(site) == "ok    celery      answered by 0@here"

    def test_a_worker_that_does_not_know_the_site_is_named(self, site: Site) -> None:
        site.work(stranger=True)
        assert "0@here: does not know the site" in self.check(site)

    def test_workers_of_other_queues_are_named_with_what_to_do(
        self, site: Site
    ) -> None:
        site.work(queues="game,mail")
        line = self.check(site)
        assert line.startswith("FAIL  celery")
        assert "no worker takes from the queue 'celery'" in line
        assert "0@here takes from 'game', 'mail'" in line
        assert "'-Q game,celery'" in line
        assert "task_routes = {'flask_mmolove.*': 'game'}" in line

    def test_one_worker_of_the_task_s_queue_is_enough(self, site: Site) -> None:
        site.work(queues="game")
        site.work(queues="game,celery")
        assert self.check(site) == "ok    celery      answered by 1@here"

    def test_a_stranger_on_another_queue_is_no_matter(self, site: Site) -> None:
        site.work(queues="another", stranger=True)
        site.work()
        assert self.check(site) == "ok    celery      answered by 1@here"

    def test_a_queue_that_celery_may_not_make_is_found(self, site: Site) -> None:
        site.celery.conf.update(NO_QUEUE)
        line = self.check(site)
        assert "Queue 'mail' missing from task_queues" in line
        assert "task_routes" in line

    def test_a_broker_that_cannot_be_reached_is_found(
        self, site: Site, broker: servers.Broker
    ) -> None:
        broker.kill()
        assert "the broker does not answer: OperationalError" in self.check(site)


class TestQueues:
    """A site whose workers take from queues of their own."""

    @pytest.mark.slow
    def test_a_task_that_is_sent_to_their_queue_is_run(self, site: Site) -> None:
        site.celery.conf.task_routes = {"flask_mmolove.*": "game"}
        site.work(queues="game")
        site.sign_up("7")
        site.wait(lambda: site.state("7") == "accepted")
        check = TestCheck().check(site)
        assert check == "ok    celery      answered by 0@here"

    @pytest.mark.slow
    def test_a_task_that_nobody_takes_is_told_of_within_a_minute(
        self, site: Site
    ) -> None:
        site.work(queues="game")
        site.sign_up("7")
        state = site.app.extensions["mmolove"]
        assert examine(state, milliseconds()).level == "ok"
        health = examine(state, milliseconds() + 60_000)
        assert health.level == "critical"
        assert "no worker was ever seen" in health.summary
        assert "takes from the task's queue" in health.action
        assert site.state("7") == "pending"

    @pytest.mark.parametrize(
        ("settings", "queue"),
        [
            ({}, "celery"),
            ({"task_default_queue": "game"}, "game"),
            ({"task_routes": {TASK: {"queue": "game"}}}, "game"),
            ({"task_routes": {"flask_mmolove.*": "game"}}, "game"),
            ({"task_routes": {"other.*": "game"}}, "celery"),
            ({"task_routes": lambda name, *_, **__: {"queue": name}}, TASK),
            ({"task_annotations": {TASK: {"queue": "game"}}}, "game"),
            ({"task_routes": {TASK: {"exchange": "all", "routing_key": "x"}}}, None),
        ],
    )
    def test_the_queue_is_the_one_that_the_site_s_settings_give(
        self, site: Site, settings: dict[str, t.Any], queue: str | None
    ) -> None:
        site.celery.conf.update(settings)
        assert site.engine.queue() == queue

    def test_a_task_that_celery_may_not_put_anywhere_is_logged(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.celery.conf.update(NO_QUEUE)
        site.sign_up("7")
        site.wait(lambda: "Nothing is delivered" in caplog.text)
        assert "Queue 'mail' missing from task_queues" in caplog.text


class TestTask:
    def test_it_says_what_is_missing_where_no_site_is(self) -> None:
        celery = Celery("stranger", set_as_current=False)
        with pytest.raises(ConfigError, match="celery -A"):
            celery.tasks[TASK].apply(throw=True)

    def test_it_turns_the_delivery_of_its_own_site_only(
        self, make_app: MakeApp, mmolove_sandbox: SiteSandbox, tmp_path: Path
    ) -> None:
        names = ("a", "b", "without Celery")
        apps = {
            name: make_app(DELIVERY="celery", OUTBOX=tmp_path / name) for name in names
        }
        for name in "ab":
            app = apps[name]
            app.extensions["celery"] = Celery(
                name, broker="memory://", set_as_current=False
            )
            with app.app_context():
                registered(name, token=mmolove_sandbox.mint())
        apps["a"].extensions["celery"].tasks[TASK].apply(throw=True)
        assert mmolove_sandbox.reported == [("registered", "a")]

    def test_it_asks_for_milestones(
        self, make_app: MakeApp, mmolove_sandbox: SiteSandbox
    ) -> None:
        mmolove = MMOLove()
        mmolove.milestone(list)  # all have reached it
        app = make_app(mmolove, DELIVERY="celery")
        celery = Celery("site", broker="memory://", set_as_current=False)
        app.extensions["celery"] = celery
        with app.app_context():
            registered("7", token=mmolove_sandbox.mint())
        celery.tasks[ASK].apply(throw=True)
        celery.tasks[TASK].apply(throw=True)
        assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]

    def test_a_round_that_is_due_is_sent_to_a_worker(self, make_app: MakeApp) -> None:
        mmolove = MMOLove()
        mmolove.milestone(list)
        app = make_app(mmolove, DELIVERY="celery")
        celery = Celery("site", broker="memory://", set_as_current=False)
        celery.conf.task_default_queue = "rounds"
        app.extensions["celery"] = celery
        app.test_client().get("/")
        with celery.connection_for_read() as connection:
            message = connection.SimpleQueue("rounds").get(timeout=20)
        assert message.headers["task"] == ASK

    def test_ids_of_a_second_task_are_the_first_one_s_to_do(
        self, site: Site, broker: servers.Broker
    ) -> None:
        site.sandbox.sandbox.faults = Faults(latency=0.3)
        site.sign_up("1")
        first = threading.Thread(target=site.engine.deliver, args=([1],))
        first.start()
        outbox = site.app.extensions["mmolove"].outbox
        site.wait(lambda: outbox.of("1", False)["registered"].claim is not None)
        site.sign_up("2")
        started = time.monotonic()
        site.engine.deliver([2])
        assert first.is_alive() and time.monotonic() - started < 0.3
        first.join()
        assert site.state("2") == "accepted"


def test_the_lines_of_the_docs_work(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_state._tls, "current_app", None)
    text = (ROOT / "docs" / "howto" / "celery.md").read_text()
    lines = text.partition("```python\n")[2]
    app = Flask(__name__)
    app.config.update(make_app().config)
    names: dict[str, t.Any] = {"app": app, "MMOLove": MMOLove}
    exec(lines.partition("```")[0], names)
    celery = names["celery_app"]
    assert app.extensions["mmolove"].engine.celery() is celery
    (entry,) = celery.conf.beat_schedule.values()
    assert entry["task"] in celery.tasks
    assert not app.extensions["mmolove"].outbox.inspector.summary().counts


def test_importing_the_package_does_not_import_celery() -> None:
    code = "import flask_mmolove, sys; assert 'celery' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert importlib.util.find_spec("celery")
