"""A delivery for tests, with everything around it real but its clock."""

from __future__ import annotations

import typing as t
from functools import partial
from pathlib import Path

from flask_mmolove import ReferralClient
from flask_mmolove.delivery.grant import Promise
from flask_mmolove.delivery.lease import LEASE
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.settings import Settings
from flask_mmolove.testing import SiteSandbox
from tests.outbox.recording import add


class Clock:
    """Seconds that pass when the test lets them."""

    def __init__(self) -> None:
        self.time = 1_790_000_000.0

    def __call__(self) -> float:
        return self.time


class Grant:
    """A reward callback that fails as often as it is told."""

    def __init__(self, failures: int = 0, promise: Promise = "at-least-once") -> None:
        self.failures = failures
        self.promise: Promise = promise
        self.given: list[str] = []

    def prepare(self, entry: Entry) -> t.Callable[[], None]:
        return partial(self.give, entry)

    def give(self, entry: Entry) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the game is down")
        self.given.append(entry.identity)


class Bench:
    """A delivery with everything around it real but its clock."""

    def __init__(self, site: SiteSandbox, folder: Path, grant: Grant | None) -> None:
        self.site = site
        self.clock = Clock()
        site.sandbox.service.clock = self.clock
        self.outbox = SQLiteOutbox(folder / "bench.db")
        self.told: list[tuple[str, str]] = []
        self.grant = grant
        self.settings = Settings.from_config(site.config, folder)
        self.delivery = self.new_process()

    def new_process(self, lease: int = LEASE) -> Delivery:
        client = ReferralClient(
            server_id=self.settings.server_id,
            secret=self.settings.secret,
            endpoint=self.settings.endpoint,
            clock=self.clock,
        )
        return Delivery(
            self.outbox,
            client,
            self.settings,
            Spool(self.outbox._db.path, self.settings.secret),
            reward=lambda: self.grant,
            report=lambda entry: self.told.append((entry.event, entry.state)),
            clock=self.clock,
            lease=lease,
        )

    def add(self, identity: str, *names: str, token: str | None = None) -> None:
        token = token or self.site.mint()
        server_id = self.settings.server_id
        now = self.delivery.now()
        add(self.outbox, identity, *names, token=token, now=now, server_id=server_id)

    def state(self, identity: str, name: str) -> str:
        return self.outbox.of(identity, False)[name].state

    def pass_time(self, seconds: float, steps: int = 1) -> None:
        for _ in range(steps):
            self.clock.time += seconds / steps
            self.delivery.drain()
