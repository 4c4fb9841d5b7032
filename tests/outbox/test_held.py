"""Tokens that are held for an account that is made later."""

from __future__ import annotations

import threading

from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.outbox.store import Outbox
from flask_mmolove.protocol.wire import TOKEN_LIFETIME
from tests.outbox.recording import LEASE

INVITATION = Invitation("tok", "3")


class TestHeld:
    def test_what_is_held_is_there_until_it_is_let_go(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        outbox.hold("two", Invitation("other"), 1000)
        assert outbox.held("one", 2000) == INVITATION
        assert outbox.held("two", 2000) == Invitation("other", None)
        outbox.let_go("one")
        outbox.let_go("one")
        assert outbox.held("one", 2000) is None
        assert outbox.held("two", 2000) is not None

    def test_the_first_one_under_a_key_stays(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        outbox.hold("one", Invitation("later"), 1000)
        outbox.hold("one", Invitation("later"), 2000)
        assert outbox.held("one", 3000) == INVITATION
        outbox.let_go("one")
        outbox.hold("one", Invitation("next"), 3000)
        assert outbox.held("one", 3000) == Invitation("next")

    def test_one_that_came_first_but_is_recorded_later_stays(
        self, outbox: Outbox
    ) -> None:
        outbox.hold("one", Invitation("later"), 2000)
        outbox.hold("one", INVITATION, 1000)
        assert outbox.held("one", 3000) == INVITATION

    def test_one_that_has_expired_makes_room(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        later = 1000 + TOKEN_LIFETIME * 1000
        outbox.hold("one", Invitation("next"), later)
        assert outbox.held("one", later) == Invitation("next")

    def test_of_two_at_once_one_is_held(self, outbox: Outbox) -> None:
        start = threading.Barrier(2)

        def hold(invitation: Invitation) -> None:
            start.wait(20)
            outbox.hold("one", invitation, 1000)

        rivals = [INVITATION, Invitation("other")]
        threads = [threading.Thread(target=hold, args=(each,)) for each in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        first = outbox.held("one", 2000)
        assert first in rivals
        for each in rivals:
            outbox.hold("one", each, 1000)
        assert outbox.held("one", 2000) == first

    def test_it_ends_with_its_token(self, outbox: Outbox) -> None:
        lifetime = TOKEN_LIFETIME * 1000
        outbox.hold("one", INVITATION, 1000)
        assert outbox.held("one", 1000 + lifetime - 1) == INVITATION
        assert outbox.held("one", 1000 + lifetime) is None
        outbox.hold("two", INVITATION, 1000 + lifetime)
        assert outbox.held("one", 1000) is None  # it is not even kept

    def test_it_is_no_event(self, outbox: Outbox) -> None:
        outbox.hold("one", INVITATION, 1000)
        assert outbox.inspector.summary().counts == {}
        assert outbox.claim("pending", 10**12, LEASE, 10) == []
