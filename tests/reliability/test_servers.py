"""The harnesses that need servers, each run briefly."""

from __future__ import annotations

import pytest

from tests.reliability.test_engines import run

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("postgresql")
class TestDatabase:
    """With the outbox in the site's own PostgreSQL."""

    def test_300_kills_part_no_account_from_its_event_and_no_gift_from_its_row(
        self,
    ) -> None:
        report = run("database", "--kills", "300")
        assert report["figures"]["kills"] == 300
        counters = report["counters"]
        assert counters["acknowledged"] > 30
        assert report["figures"]["rewards"] > 10
        # That the kills hit each moment that matters is shown below, one by one.
        assert counters["duplicate_posts"] > 0

    def test_the_site_goes_on_when_the_database_was_killed(self) -> None:
        report = run("database", "--kills", "10", "--server-kills", "2")
        assert report["figures"]["server_kills"] == 2
        assert report["counters"]["acknowledged"] > 0

    def test_a_kill_at_each_commit_leaves_no_referral_paid_twice_or_not_at_all(
        self,
    ) -> None:
        report = run("commits")
        assert report["figures"]["fired"] == report["figures"]["moments"] > 20
        assert report["counters"]["recovered"] > 0
        assert report["counters"]["repeated_calls"] > 0


@pytest.mark.usefixtures("postgresql", "valkey")
def test_a_celery_worker_and_its_broker_are_killed_and_nothing_is_lost() -> None:
    report = run("celery", "--kills", "4", "--each-broker", "2")
    figures = report["figures"]
    assert figures["children_killed"] + figures["workers_killed"] == 4
    assert figures["brokers_killed"] == 2
    assert report["counters"]["acknowledged"] > 20
    assert figures["rewards"] > 0
