"""Two web processes and two workers on one PostgreSQL, in a storm of signups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import typing as t
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import func
from sqlalchemy import select

from example_app import servers
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.testing import SiteSandbox
from tests.conftest import find_url
from tests.sites import Base
from tests.sites import Gift
from tests.sites import Player

ROOT = Path(__file__).parents[2]
SITE = "tests.delivery.scalesite"
SIGNUPS = 160
CLIENTS = 8
DELIVER = ("flask", "--app", SITE, "mmolove", "deliver", "--forever")


class Site:
    """Its processes, and where two of them answer."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.urls: list[str] = []

    def serve(self) -> None:
        address = f"127.0.0.1:{servers.free_port()}"
        self.start("waitress", f"--listen={address}", "--threads=8", f"{SITE}:app")
        self.urls.append(f"http://{address}")

    def start(self, *command: str) -> None:
        log = self._folder / f"{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
        self._processes.append(process)

    def wait(self, reached: t.Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.02)  # what is waited for happens in other processes

    def logs(self) -> str:
        return "\n".join(log.read_text() for log in self._folder.glob("*.log"))

    def end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> t.Iterator[Engine]:
    engine = create_engine(find_url("postgresql", request))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def site(
    engine: Engine, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> t.Iterator[Site]:
    config = {
        **mmolove_sandbox.config,
        "SQLALCHEMY_DATABASE_URI": engine.url.render_as_string(False),
        "SECRET_KEY": "not a secret",
        "MMOLOVE_DELIVERY": "manual",
    }
    settings = {f"FLASK_{key}": json.dumps(str(each)) for key, each in config.items()}
    folder = {"SCALESITE_FOLDER": str(tmp_path)}
    site = Site({**os.environ, **settings, **folder}, tmp_path)
    for _ in range(2):
        site.serve()
        site.start(*DELIVER)
    yield site
    site.end()


@pytest.mark.slow
def test_a_storm_is_delivered_once_and_in_order(
    site: Site, engine: Engine, mmolove_sandbox: SiteSandbox
) -> None:
    tokens = [mmolove_sandbox.mint() for _ in range(SIGNUPS)]
    site.wait(lambda: all(map(answers, site.urls)))
    site.wait(lambda: site.logs().count("Delivering until stopped") == 2)

    def come(number: int) -> None:
        here, there = site.urls[number % 2], site.urls[1 - number % 2]
        with requests.Session() as browser:
            browser.get(f"{here}/?mmref={tokens[number]}", timeout=30)
            data = {"name": f"player {number}"}
            answer = browser.post(f"{here}/register", data=data, timeout=30)
            # The signup may be on its way at this moment, by either worker.
            if number % 4 < 2:
                won = f"{there}/won/{answer.json()['id']}"
                assert browser.post(won, timeout=30).text == "won"

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(come, range(SIGNUPS)))
    outbox = SQLAlchemyOutbox(engine)
    done = {"accepted": SIGNUPS, "rewarded": SIGNUPS // 2}
    site.wait(lambda: outbox.inspector.summary().counts == done)
    outbox.close()

    arrivals = mmolove_sandbox.sandbox.arrivals
    assert {each.outcome for each in arrivals} == {"accepted"}
    assert Counter(each.event for each in arrivals) == {
        "registered": SIGNUPS,
        "qualified": SIGNUPS // 2,
    }
    order = {str(each.server_event_id): number for number, each in enumerate(arrivals)}
    assert len(order) == len(arrivals)
    for name, number in order.items():
        if name.startswith("qual-"):
            assert order[name.replace("qual-", "reg-")] < number
    with engine.connect() as connection:
        assert connection.scalar(select(func.count(Player.id))) == SIGNUPS
        gifts = [key.split() for key in connection.scalars(select(Gift.key))]
    assert len(gifts) == len({key for key, _ in gifts}) == SIGNUPS // 2
    assert len({worker for _, worker in gifts}) == 2


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=30).ok
    except requests.ConnectionError:
        return False
