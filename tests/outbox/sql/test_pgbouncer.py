"""Behind a PgBouncer with transaction pooling: each transaction has another connection
to the server, and what was set or prepared in an earlier one may be there or not.
"""

from __future__ import annotations

import io
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import URL

from example_app import servers
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.testing import SiteSandbox
from tests.conftest import find_url
from tests.conftest import serve
from tests.outbox.recording import add
from tests.sites import Gift
from tests.sites import Site

#: psycopg prepares a statement when a connection runs it for the sixth time.
TIMES = 12
THREADS = 4


@pytest.fixture(scope="module")
def bouncer(postgresql: URL) -> t.Iterator[URL]:
    yield from serve(lambda: servers.pgbouncer(postgresql))


@pytest.fixture
def engine(
    bouncer: URL, postgresql: URL, request: pytest.FixtureRequest
) -> t.Iterator[Engine]:
    """A site's own, to an empty database."""
    find_url("postgresql", request)
    engine = create_engine(bouncer)
    yield engine
    engine.dispose()


def work(outbox: SQLAlchemyOutbox, player: str) -> None:
    """Everything that recurs."""
    (entry,) = add(outbox, player, referrer="9")
    (claimed,) = outbox.claim("pending", 2000, 60_000, 1, ids=[entry.id])
    outbox.settle([Settlement(claimed, "accepted", status=200)], 3000)
    assert outbox.of(player, False)["registered"].state == "accepted"
    assert outbox.inspector.page(player=player)
    outbox.next_due(4000)


@pytest.mark.parametrize("given", ["URL", "engine"])
def test_threads_find_no_statement_of_each_other_s(engine: Engine, given: str) -> None:
    outbox = SQLAlchemyOutbox(engine if given == "engine" else engine.url)
    outbox.create()

    def run(thread: int) -> None:
        for time in range(TIMES):
            work(outbox, f"{thread}-{time}")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
    assert outbox.inspector.summary().counts == {"accepted": THREADS * TIMES}
    outbox.close()


@pytest.mark.parametrize("given", ["URL", "engine"])
def test_no_connection_of_ours_prepares_a_statement(
    postgresql: URL, request: pytest.FixtureRequest, given: str
) -> None:
    """Newer PgBouncers would hide it."""
    find_url("postgresql", request)
    engine = create_engine(postgresql)
    outbox = SQLAlchemyOutbox(engine if given == "engine" else postgresql)
    for time in range(TIMES):
        work(outbox, str(time))
    count = "SELECT count(*) FROM pg_prepared_statements"
    assert outbox.run(lambda db: db.execute(count, {})) == [(0,)]
    outbox.close()
    engine.dispose()


def test_a_site_signs_up_and_rewards(
    engine: Engine, mmolove_sandbox: SiteSandbox, tmp_path: Path, log: io.StringIO
) -> None:
    config = {
        **mmolove_sandbox.config,
        "MMOLOVE_DELIVERY": "manual",
        # As any site behind a PgBouncer has it.
        "SQLALCHEMY_ENGINE_OPTIONS": {"connect_args": {"prepare_threshold": None}},
    }
    site = Site(engine.url.render_as_string(False), config, str(tmp_path))

    @site.mmolove.reward
    def grant(referral: Referral) -> None:
        site.db.session.add(Gift(key=referral.reward_key))

    def sign_up(number: int) -> None:
        with site.app.app_context():
            player = site.add(f"player {number}")
            registered(player, token=mmolove_sandbox.mint())
            qualify(player)
            site.db.session.commit()

    for number in range(TIMES):
        sign_up(number)
    site.state.make_delivery().drain()
    assert site.count(Gift) == TIMES
    assert site.state.spool.read() == []
    assert "Traceback" not in log.getvalue()
    # Nor did we leave a limit for locks to whoever has a connection next.
    with engine.connect() as one, engine.connect() as other:
        limits = {
            each.exec_driver_sql("SHOW lock_timeout").scalar() for each in (one, other)
        }
    assert limits == {"0"}
    site.close()
