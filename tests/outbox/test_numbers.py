"""Which credited friend of its referrer each one is."""

from __future__ import annotations

import threading

from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add
from tests.outbox.recording import LEASE

NOW = 1000


def bring(
    outbox: Outbox, friend: str, by: str | None = "anna", test: bool = False
) -> None:
    """A friend signs up and reaches the milestone."""
    new = add(outbox, friend, "registered", "qualified", referrer=by, test=test)
    (registered,) = outbox.claim("pending", NOW, LEASE, 1, [new[0].id])
    outbox.settle([Settlement(registered, "accepted", is_fact=True)], NOW)


def credit(outbox: Outbox, limit: int = 99) -> list[Entry]:
    """MMOLove credits the milestones that are due."""
    claimed = outbox.claim("pending", NOW, LEASE, limit)
    credited = [
        Settlement(entry, "accepted", due=NOW, is_fact=True, resets_attempts=True)
        for entry in claimed
    ]
    return outbox.settle(credited, NOW)


def numbers(outbox: Outbox) -> dict[str, int | None]:
    entries = outbox.inspector.page(limit=999)
    return {e.identity: e.number for e in entries if e.event == "qualified"}


def test_each_referrer_counts_from_one(outbox: Outbox) -> None:
    for friend, by in (("1", "anna"), ("2", "anna"), ("3", "ben"), ("4", None)):
        bring(outbox, friend, by)
    told = credit(outbox)
    assert {entry.identity: entry.number for entry in told} == numbers(outbox)
    assert numbers(outbox) == {"1": 1, "2": 2, "3": 1, "4": None}
    bring(outbox, "5")
    assert numbers(outbox)["5"] is None  # not credited yet
    credit(outbox)
    assert numbers(outbox) == {"1": 1, "2": 2, "3": 1, "4": None, "5": 3}


def test_a_number_stays_whatever_becomes_of_the_reward(outbox: Outbox) -> None:
    bring(outbox, "1")
    credit(outbox)
    for settled in (
        Settlement(outbox.of("1", False)["qualified"], "accepted", due=NOW),
        Settlement(outbox.of("1", False)["qualified"], "reward_failed"),
    ):
        (entry,) = outbox.claim("accepted", NOW + 2 * LEASE, LEASE, 1)
        assert entry.number == 1
        outbox.settle([settled._replace(entry=entry)], NOW)
    (entry,) = outbox.inspector.page(state="reward_failed")
    outbox.decide(entry.id, "accepted", NOW)
    outbox.decide(entry.id, "rewarded", NOW)
    assert numbers(outbox) == {"1": 1}


def test_what_is_not_credited_has_none(outbox: Outbox) -> None:
    bring(outbox, "1")
    (entry,) = outbox.claim("pending", NOW, LEASE, 1)
    outbox.settle([Settlement(entry, "accepted", is_fact=True)], NOW)
    bring(outbox, "2", test=True)
    credit(outbox)
    assert numbers(outbox) == {"1": None, "2": None}
    bring(outbox, "3")
    (entry,) = outbox.claim("pending", NOW, LEASE, 1)
    outbox.settle([Settlement(entry, "reward_failed", is_fact=True)], NOW)
    assert numbers(outbox)["3"] == 1  # there was no callback


def test_nothing_that_is_removed_frees_a_number(outbox: Outbox) -> None:
    for friend in "123":
        bring(outbox, friend)
    credit(outbox)
    outbox.erase("2")
    for _ in "13":
        (entry,) = outbox.claim("accepted", NOW, LEASE, 1)
        outbox.settle([Settlement(entry, "rewarded", is_fact=True)], NOW)
    assert outbox.purge(NOW + 1) == 4
    bring(outbox, "4")
    credit(outbox)
    assert numbers(outbox) == {"4": 4}


def test_it_goes_on_after_the_friends_of_an_earlier_version(outbox: Outbox) -> None:
    for friend in "12":
        bring(outbox, friend)
    credit(outbox)
    table = outbox.dialect.referrer
    outbox.run(
        lambda db: db.execute(f"DELETE FROM {table} WHERE step = 'numbered'", {})
    )
    for _ in range(2):
        outbox.run(lambda db: db.continue_numbers())
    bring(outbox, "3")
    credit(outbox)
    assert numbers(outbox)["3"] == 3


def test_workers_that_settle_at_once_leave_no_gap_and_no_repeat(
    outbox: Outbox,
) -> None:
    for number in range(24):
        bring(outbox, str(number), "anna" if number % 2 else "ben")
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        barrier.wait()
        try:
            while credit(outbox, 2):
                pass
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = numbers(outbox)
    for parity in (0, 1):
        mine = [found[str(number)] for number in range(24) if number % 2 == parity]
        assert sorted(filter(None, mine)) == list(range(1, 13))
