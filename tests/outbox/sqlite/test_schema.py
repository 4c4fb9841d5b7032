"""Files of earlier versions are opened, and what is in them is delivered."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import OutboxError
from flask_mmolove import ReferralClient
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.outbox.breaker import Breaker
from flask_mmolove.outbox.inspector import Day
from flask_mmolove.outbox.inspector import Referrer
from flask_mmolove.outbox.inspector import Worker
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.sandbox import Sandbox
from flask_mmolove.settings import Settings
from tests import data
from tests.delivery.bench import Grant
from tests.outbox.recording import states


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "outbox.db"
    data.restore_file("outbox.sql", path)
    data.restore_spool(path)
    return path


@pytest.fixture
def outbox(path: Path) -> t.Iterator[SQLiteOutbox]:
    with contextlib.closing(SQLiteOutbox(path)) as outbox:
        yield outbox


class TestSecondSchema:
    def test_the_states_have_their_new_names(self, outbox: SQLiteOutbox) -> None:
        assert states(outbox) == data.STATES
        second = outbox.of("second", False)["registered"]
        rewarded = outbox.of("rewarded", False)["qualified"]
        assert second.is_second
        assert [answer.status for answer in rewarded.answers] == [200]

    def test_what_is_beside_the_events_is_read(self, outbox: SQLiteOutbox) -> None:
        assert outbox.breaker() == Breaker(
            failures=1,
            max_in_flight=8,
            last_accepted=data.NOW,
            downtime=7000,
            status=503,
        )
        assert outbox.reward_breaker().reason == "RuntimeError: the game is down"
        assert outbox.inspector.worker() == Worker(data.NOW)
        assert outbox.inspector.best_referrers() == [Referrer("anna", 4, 2, 1)]
        (day,) = outbox.inspector.days(data.NOW, data.NOW)
        assert day == Day(day.start, 13, 8, 6, 1, 0)
        held = outbox.held("a held key", data.NOW)
        assert held is not None and held.referrer == "anna"
        assert len(outbox.run(lambda db: db.execute("SELECT * FROM used", {}))) == 1

    def test_a_damaged_file_is_recovered(self, path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(b"\xff" * 16 + content[16:])
        outbox = SQLiteOutbox(path)
        with pytest.raises(OutboxError):
            outbox.create()
        assert outbox.recover() == len(data.STATES)
        assert states(outbox) == data.STATES
        outbox.close()

    def test_everything_is_delivered(self, outbox: SQLiteOutbox, path: Path) -> None:
        file = path.with_name("sandbox.db")
        data.restore_file("sandbox.sql", file)

        def clock() -> float:
            return data.NOW / 1000 + 3600  # all leases have ended

        grant = Grant()
        with Sandbox(
            server_id=data.SERVER_ID, secret=data.SECRET, path=file, now=clock
        ) as sandbox:
            client = ReferralClient(
                server_id=data.SERVER_ID,
                secret=data.SECRET,
                endpoint=sandbox.endpoint,
                clock=clock,
            )
            delivery = Delivery(
                outbox,
                client,
                Settings.from_config(sandbox.settings, path.parent),
                Spool(path, data.SECRET),
                reward=lambda: grant,
                report=lambda entry: None,
                clock=clock,
            )
            assert len(sandbox.arrivals) == 14
            delivery.drain()
            assert {row.outcome for row in sandbox.arrivals[14:]} == {
                "accepted",
                "test",
                "refused",
            }
        granted = ["accepted", "credited", "new", "spooled", "unsigned"]
        assert sorted(grant.given) == granted
        assert states(outbox) == {
            **data.STATES,
            **{(each, "registered"): "accepted" for each in granted},
            **{(each, "qualified"): "rewarded" for each in granted},
            ("tester", "registered"): "accepted",
            ("retried", "registered"): "accepted",
            ("claimed", "registered"): "accepted",
            ("confirmed", "registered"): "accepted",
        }
        assert outbox.of("confirmed", False)["registered"].referrer == "anna"
        assert outbox.held("a later key", data.NOW) is not None

        crashed = outbox.of("crashed", False)["qualified"]
        assert outbox.decide(crashed.id, "rewarded", delivery.now()) is not None
        assert outbox.retry_rewards(delivery.now()) == 2
        delivery.drain()
        left = {key for key, state in states(outbox).items() if "reward_" in state}
        assert left == {("raised", "qualified")}
