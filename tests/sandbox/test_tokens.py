"""Tokens of the sandbox."""

from __future__ import annotations

import pytest

from flask_mmolove.protocol.wire import is_token
from tests.sandbox.site import DAY
from tests.sandbox.site import error
from tests.sandbox.site import Site


def test_two_clicks_give_two_tokens_even_when_shortened(site: Site) -> None:
    tokens = {site.service.mint("anna") for _ in range(20)}
    assert len(tokens) == 20
    assert len({referral.short_token for referral in site.service.referrals}) == 20


@pytest.mark.parametrize("ref", ["\x21" * 256, "\\" * 256, "anna"])
def test_every_token_has_the_form_of_one(site: Site, ref: str) -> None:
    assert is_token(site.service.mint(ref))


def test_a_token_that_was_changed_anywhere_is_unknown(site: Site) -> None:
    token = site.service.mint()
    for index, letter in enumerate(token):
        changed = token[:index] + ("A" if letter != "A" else "B") + token[index + 1 :]
        response = site.send(site.fields(token=changed))
        assert error(response) == (404, "unknown_token"), index


@pytest.mark.parametrize("token", ["tok.demo", "x", "ü.ü", "." * 2000])
def test_a_token_of_elsewhere_is_unknown(site: Site, token: str) -> None:
    assert error(site.send(site.fields(token=token))) == (404, "unknown_token")


def test_a_token_expires_after_90_days_unless_it_was_registered(site: Site) -> None:
    early, late = site.fields(), site.fields(referee_identity="late")
    site.clock.now += 90 * DAY - 1
    assert site.send(early).status_code == 200
    site.clock.now += 1
    assert error(site.send(late)) == (422, "referral_expired")
    assert site.send(early | {"event": "qualified"}).status_code == 200


def test_a_token_outlives_a_ledger_in_memory(site: Site) -> None:
    fields = Site().fields()
    assert site.send(fields).status_code == 200
    [referral] = site.service.referrals
    assert (referral.ref, referral.state) == ("demo", "registered")
