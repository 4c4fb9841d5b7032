"""Friends whose milestone is still to come, in every store."""

from __future__ import annotations

import threading

from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add
from tests.outbox.recording import LEASE

NOW = 1_000_000
MINUTE = 60_000


def asked(outbox: Outbox, after: int = 0, test: bool = False, since: int = 0) -> str:
    """The friends after a row."""
    last, found = outbox.last_row(), ""
    while after < last:
        friends, after = outbox.friends(after, last, test, since)
        found += "".join(friend.identity for friend in friends)
    return found


def test_those_whose_milestone_is_not_recorded(outbox: Outbox) -> None:
    add(outbox, "1", now=NOW)
    add(outbox, "2", "registered", "qualified", now=NOW)
    add(outbox, "3", now=NOW, test=True)
    add(outbox, "4", "qualified", now=NOW, test=True)
    add(outbox, "4", now=NOW)
    for friend, state in (("5", "accepted"), ("6", "rejected"), ("7", "ignored")):
        (new,) = add(outbox, friend, now=NOW)
        (entry,) = outbox.claim("pending", NOW, LEASE, 1, [new.id])
        outbox.settle([Settlement(entry, state)], NOW)  # type: ignore[arg-type]
    assert asked(outbox) == "145"
    assert asked(outbox, test=True) == "3"
    assert asked(outbox, since=NOW) == ""
    assert asked(outbox, after=outbox.of("1", False)["registered"].id) == "45"


def test_one_of_several_processes_begins_a_round(outbox: Outbox) -> None:
    barrier, begun = threading.Barrier(6), []

    def begin(name: str) -> None:
        barrier.wait()
        if outbox.claim_round(NOW, MINUTE, name) is not None:
            begun.append(name)

    threads = [threading.Thread(target=begin, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = begun
    known = outbox.round()
    assert (known.claim, known.due) == (winner, NOW + MINUTE)
    assert not outbox.save_round(known._replace(asked=5), "another")
    assert outbox.save_round(known._replace(asked=5), winner)
    assert outbox.round().asked == 5


def test_a_round_is_renewed_by_the_process_that_is_at_work(outbox: Outbox) -> None:
    begun = outbox.claim_round(NOW, MINUTE, "a")
    assert begun is not None
    assert outbox.save_round(begun._replace(asked=5), "a")
    assert outbox.renew_round(NOW + 2 * MINUTE, "a")
    assert not outbox.renew_round(NOW + 3 * MINUTE, "b")
    assert outbox.round() == begun._replace(asked=5, due=NOW + 2 * MINUTE)
    assert outbox.claim_round(NOW + MINUTE, MINUTE, "b") is None


def test_a_round_that_never_ended_is_begun_again(outbox: Outbox) -> None:
    assert outbox.claim_round(NOW, MINUTE, "a")
    assert outbox.claim_round(NOW + MINUTE - 1, MINUTE, "b") is None
    begun = outbox.claim_round(NOW + MINUTE, MINUTE, "b")
    assert begun is not None
    assert not outbox.save_round(begun, "a")  # which comes too late


def test_a_clock_that_was_put_back_stops_it_for_no_longer_than_a_day(
    outbox: Outbox,
) -> None:
    day = 24 * 60 * MINUTE
    assert outbox.claim_round(NOW + 9 * day, MINUTE, "a")
    assert outbox.claim_round(NOW, MINUTE, "b")
