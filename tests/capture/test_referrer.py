"""Who referred a visitor: from a player's link to the reward."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest
import requests
from itsdangerous import URLSafeTimedSerializer

from flask_mmolove import current_referrer
from flask_mmolove import registered
from flask_mmolove.testing import SiteSandbox
from tests.capture.referrals import cookie_names
from tests.capture.referrals import follow
from tests.capture.referrals import Referrals
from tests.conftest import Hold
from tests.conftest import MakeApp

# -- from the link to the reward ----------------------------------------------------


def test_the_reward_knows_the_referrer(
    site: Referrals, mmolove_sandbox: SiteSandbox
) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    assert friend.post("/join/7").text == "welcome"
    referral = site.qualify("7")
    assert (referral.identity, referral.referrer) == ("7", "3")
    assert [given.referrer for given in site.given] == ["3"]
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


def test_mmolove_is_told_the_referrers_code(
    site: Referrals, mmolove_sandbox: SiteSandbox
) -> None:
    link = site.link("3")
    friend = site.browser()
    follow(friend, link)
    friend.post("/join/7")
    [referral] = mmolove_sandbox.sandbox.referrals
    assert link == f"/invite/{referral.ref}"


@pytest.mark.parametrize(
    "player",
    ["3", "c0ffee00-1234-4321-abcd-0123456789ab", "~x", "anna@example.org", "ä/b c"],
)
def test_every_identity_has_a_link(site: Referrals, player: str) -> None:
    friend = site.browser()
    follow(friend, site.link(player))
    friend.post("/join/7")
    assert site.qualify("7").referrer == player


def test_a_friend_who_signs_up_in_another_browser_is_still_theirs(
    site: Referrals,
) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    sealed = friend.post("/late/7").text
    site.browser().get("/activate/7")
    assert site.qualify("7").referrer == "3"
    site.browser().get(f"/callback/8/{sealed}")
    assert site.qualify("8").referrer == "3"


def test_the_referrer_survives_the_spool(site: Referrals) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    state = site.app.extensions["mmolove"]
    with Hold(site.app):
        assert friend.post("/join/7").text == "welcome"
    state.make_delivery().drain()
    assert site.qualify("7").referrer == "3"


def test_after_the_signup_the_browser_forgets_it_all(site: Referrals) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    assert cookie_names(friend) == {"mmolove_ref"}
    friend.post("/join/7")
    assert cookie_names(friend) <= {"session"}


def test_a_stranger_who_is_invited_and_signs_up_in_one_request_is_theirs(
    site: Referrals,
) -> None:
    friend = site.browser()
    answer = requests.get(
        friend.get(site.link("3")).location, allow_redirects=False, timeout=5
    )
    query = urlsplit(answer.headers["Location"]).query
    friend.post(f"/join/7?{query}")
    assert site.qualify("7").referrer == "3"


def test_a_page_can_greet_a_visitor_in_the_referrers_name(site: Referrals) -> None:
    friend, stranger = site.browser(), site.browser()
    follow(friend, site.link("3"))
    for client, referrer in ((friend, "3"), (stranger, None)):
        with client:
            client.get("/")
            assert current_referrer() == referrer
    assert current_referrer() is None  # there is no visitor


# -- what cannot be known is nobody -------------------------------------------------


def test_a_token_that_came_another_way_has_no_referrer(
    site: Referrals, mmolove_sandbox: SiteSandbox
) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    friend.get(f"/?mmref={mmolove_sandbox.mint('another')}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_a_trip_that_brought_no_news_is_over(
    site: Referrals, mmolove_sandbox: SiteSandbox
) -> None:
    friend = site.browser()
    token = follow(friend, site.link("3"))
    friend.get(site.link("4"))
    friend.get(f"/?mmref={token}")
    friend.get(f"/?mmref={mmolove_sandbox.mint('another')}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_the_last_link_counts(site: Referrals) -> None:
    friend = site.browser()
    for player in ("3", "4"):
        follow(friend, site.link(player))
    friend.post("/join/7")
    assert site.qualify("7").referrer == "4"


def test_or_the_first_where_the_site_says_so(make_app: MakeApp) -> None:
    site = Referrals(make_app, ATTRIBUTION="first-touch")
    friend = site.browser()
    for player in ("3", "4"):
        follow(friend, site.link(player))
    friend.post("/join/7")
    assert site.qualify("7").referrer == "3"


def test_a_link_that_did_not_lead_back_changes_nothing(site: Referrals) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    friend.get(site.link("4"))
    friend.post("/join/7")
    assert site.qualify("7").referrer == "3"


def test_a_trip_that_lasts_for_hours_proves_nothing(
    site: Referrals, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    friend = site.browser()
    friend.get(site.link("3"))
    later = time.time() + 3602
    with monkeypatch.context() as patch:
        patch.setattr("itsdangerous.timed.time.time", lambda: later)
        friend.get(f"/?mmref={mmolove_sandbox.mint()}")
        friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_a_token_that_the_site_names_has_no_referrer(
    site: Referrals, mmolove_sandbox: SiteSandbox
) -> None:
    with site.app.app_context():
        registered("7", token=mmolove_sandbox.mint())
    assert site.qualify("7").referrer is None


def test_nobody_invites_themselves(site: Referrals) -> None:
    friend = site.browser()
    follow(friend, site.link("7"))
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


@pytest.mark.parametrize("value", ["3", "junk", "x.y.z", ""])
def test_a_cookie_that_we_did_not_sign_is_not_believed(
    site: Referrals, mmolove_sandbox: SiteSandbox, value: str
) -> None:
    friend = site.browser()
    friend.set_cookie("mmolove_referrer", value)
    friend.get(f"/?mmref={mmolove_sandbox.mint()}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_of_two_trips_the_newer_one_counts(
    site: Referrals, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_off(player: str, moment: float) -> str:
        browser = site.browser()
        with monkeypatch.context() as patch:
            patch.setattr("itsdangerous.timed.time.time", lambda: moment)
            browser.get(site.link(player))
        cookie = browser.get_cookie("mmolove_referrer")
        assert cookie is not None
        return f"mmolove_referrer={cookie.value}"

    now = time.time()
    for player, header in (
        ("7", f"{set_off('3', now)}; {set_off('4', now - 60)}"),
        ("8", f"mmolove_referrer=junk; {set_off('4', now - 60)}; {set_off('3', now)}"),
    ):
        token = mmolove_sandbox.mint()
        site.app.test_client(use_cookies=False).post(
            f"/join/{player}?mmref={token}", headers={"Cookie": header}
        )
        assert site.qualify(player).referrer == "3"


# -- the cookie for the trip -----------------------------------------------------------


def test_without_consent_or_a_cookie_nobody_is_remembered(make_app: MakeApp) -> None:
    site = Referrals(make_app)
    site.mmolove.consent(lambda: False)
    assert "Set-Cookie" not in site.browser().get(site.link("3")).headers
    bare = Referrals(make_app, COOKIE_DAYS=0)
    assert "Set-Cookie" not in bare.browser().get(bare.link("3")).headers


def test_the_cookie_reaches_as_far_as_the_session_and_lasts_for_the_trip(
    site: Referrals,
) -> None:
    site.app.config.update(SESSION_COOKIE_SECURE=True)
    header = site.browser().get(site.link("3")).headers["Set-Cookie"]
    assert header.startswith("mmolove_referrer=")
    for part in ("Max-Age=3600", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
        assert part in header


@pytest.mark.parametrize(
    ("session", "ours"), [(None, "Lax"), ("Strict", "Lax"), ("None", "None")]
)
def test_the_cookie_survives_the_way_back_from_another_site(
    site: Referrals, session: str | None, ours: str
) -> None:
    site.app.config.update(SESSION_COOKIE_SAMESITE=session, SESSION_COOKIE_SECURE=True)
    header = site.browser().get(site.link("3")).headers["Set-Cookie"]
    assert f"SameSite={ours}" in header


def test_a_page_on_which_a_trip_ends_is_its_visitors_alone(site: Referrals) -> None:
    friend = site.browser()
    token = follow(friend, site.link("3"))
    friend.get(site.link("4"))
    response = friend.get(f"/?mmref={token}")  # no news, but its cookie is deleted
    assert response.headers["Set-Cookie"].startswith("mmolove_referrer=;")
    assert response.headers["Cache-Control"] == "private"
    assert response.headers["Vary"] == "Cookie"


def test_a_trip_that_began_before_an_update_still_has_its_referrer(
    site: Referrals, mmolove_sandbox: SiteSandbox
) -> None:
    friend = site.browser()
    serializer = URLSafeTimedSerializer(
        "not a secret", "flask-mmolove.inviter.demo-server"
    )
    friend.set_cookie("mmolove_inviter", str(serializer.dumps("3")))
    friend.get(f"/?mmref={mmolove_sandbox.mint()}")
    assert friend.get_cookie("mmolove_inviter") is None
    friend.post("/join/7")
    assert site.qualify("7").referrer == "3"
