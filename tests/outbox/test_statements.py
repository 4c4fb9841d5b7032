"""What is recorded of a player."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.report import make_event
from flask_mmolove.outbox.store import Outbox
from tests.outbox.recording import add
from tests.outbox.recording import claim_one


def test_an_event_is_kept_with_its_exact_bytes(outbox: Outbox) -> None:
    (entry,) = add(outbox)
    event = make_event("registered", "7", "tok-7", "srv", 1000, False)
    assert outbox.of("7", False) == {"registered": entry}
    assert entry.body == event.encode()
    assert (entry.state, entry.due, entry.attempts) == ("pending", 1000, 0)


def test_adding_again_changes_nothing(outbox: Outbox) -> None:
    (first,) = add(outbox)
    assert add(outbox, now=5000) == []
    assert outbox.of("7", False) == {"registered": first}


def test_a_dry_run_stands_beside_the_real_event(outbox: Outbox) -> None:
    add(outbox)
    assert len(add(outbox, test=True)) == 1
    assert outbox.of("7", True)["registered"].test


def test_who_invited_stands_with_the_event_through_its_life(outbox: Outbox) -> None:
    (new,) = add(outbox, referrer="3")
    (entry,) = outbox.settle([Settlement(claim_one(outbox), "accepted")], 1000)
    assert (new.referrer, entry.referrer) == ("3", "3")


def test_nobody_invites_themselves(outbox: Outbox) -> None:
    (entry,) = add(outbox, referrer="7")
    assert entry.referrer is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann", "ann"), ("\xe9", "e\u0301"), ("ss", "\xdf"), ("e", "\xe9")],
)
def test_identities_are_told_apart_byte_for_byte(
    outbox: Outbox, one: str, other: str
) -> None:
    add(outbox, one)
    assert len(add(outbox, other)) == 1
    assert outbox.of(one, False)["registered"].identity == one


def test_threads_that_report_the_same_record_it_once(outbox: Outbox) -> None:
    def report(number: int) -> int:
        return len(add(outbox, str(number // 8), "registered", "qualified"))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(report, range(40))) == 10
    assert outbox.inspector.summary().counts == {"pending": 10}


def test_an_entry_shows_neither_its_token_nor_its_body(outbox: Outbox) -> None:
    (entry,) = add(outbox, token="a-long-token")
    assert "a-long-token" not in repr(entry)
    assert "a-long-token" not in f"{entry}"
