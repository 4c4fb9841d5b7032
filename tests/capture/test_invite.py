"""Who invited whom: from a player's link to the reward."""

from __future__ import annotations

import json
import re
import time
import typing as t
from urllib.parse import urlsplit

import pytest
import requests
from flask import Blueprint
from flask import Flask
from flask import session
from flask.testing import FlaskClient

from flask_mmolove import ConfigError
from flask_mmolove import current_referrer
from flask_mmolove import IdentityError
from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove
from flask_mmolove.capture.invite import read_code
from flask_mmolove.testing import SiteSandbox
from tests.conftest import Hold
from tests.conftest import MakeApp


class Site:
    """A site whose players invite each other."""

    def __init__(self, make_app: MakeApp, **settings: t.Any) -> None:
        self.mmolove = MMOLove()
        self.app = make_app(self.mmolove, **settings)
        self.app.register_blueprint(invitations)
        self.given: list[Referral] = []
        self.mmolove.reward(self.given.append)

        @self.app.post("/join/<id>")
        @referral_register
        def join(id: str) -> str:
            session.clear()
            registered(id)
            return "welcome"

        @self.app.post("/late/<id>")
        def late(id: str) -> str:
            self.mmolove.hold(id)
            return self.mmolove.seal() or ""

        @self.app.get("/activate/<id>")
        def activate(id: str) -> str:
            registered(id, held=id)
            return "welcome"

        @self.app.get("/callback/<id>/<path:state>")
        def callback(id: str, state: str) -> str:
            registered(id, token=self.mmolove.unseal(state))
            return "welcome"

    def link(self, player: str) -> str:
        with self.app.test_request_context():
            return self.mmolove.invite(player, external=False)

    def browser(self) -> FlaskClient:
        return self.app.test_client()

    def qualify(self, player: str) -> Referral:
        with self.app.app_context():
            referral = qualify(player)
        assert referral is not None
        return referral


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    return Site(make_app)


def follow(client: FlaskClient, link: str) -> str:
    """Follow a link through MMOLove and back, and give the token."""
    answer = requests.get(client.get(link).location, allow_redirects=False, timeout=5)
    assert answer.status_code == 302
    query = urlsplit(answer.headers["Location"]).query
    client.get(f"/?{query}")
    return query.removeprefix("mmref=")


def names(client: FlaskClient) -> set[str]:
    """The cookies that a browser holds."""
    known = ("session", "mmref", "mmolove_ref", "mmolove_inviter")
    return {name for name in known if client.get_cookie(name) is not None}


# -- from the link to the reward -------------------------------------------------------


def test_the_reward_knows_who_invited(site: Site, mmolove_sandbox: SiteSandbox) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    assert friend.post("/join/7").text == "welcome"
    referral = site.qualify("7")
    assert (referral.identity, referral.referrer) == ("7", "3")
    assert [given.referrer for given in site.given] == ["3"]
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


def test_mmolove_is_told_the_code_of_who_invites(
    site: Site, mmolove_sandbox: SiteSandbox
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
def test_every_identity_has_a_link(site: Site, player: str) -> None:
    friend = site.browser()
    follow(friend, site.link(player))
    friend.post("/join/7")
    assert site.qualify("7").referrer == player


def test_a_friend_who_signs_up_in_another_browser_is_still_theirs(site: Site) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    sealed = friend.post("/late/7").text
    site.browser().get("/activate/7")
    assert site.qualify("7").referrer == "3"
    site.browser().get(f"/callback/8/{sealed}")
    assert site.qualify("8").referrer == "3"


def test_who_invited_survives_the_emergency_exit(site: Site) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    state = site.app.extensions["mmolove"]
    with Hold(site.app):
        assert friend.post("/join/7").text == "welcome"
    state.make_delivery().drain()
    assert site.qualify("7").referrer == "3"


def test_after_the_signup_the_browser_forgets_it_all(site: Site) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    assert names(friend) == {"mmolove_ref"}
    friend.post("/join/7")
    assert names(friend) <= {"session"}


def test_a_stranger_who_is_invited_and_signs_up_in_one_request_is_theirs(
    site: Site,
) -> None:
    friend = site.browser()
    answer = requests.get(
        friend.get(site.link("3")).location, allow_redirects=False, timeout=5
    )
    query = urlsplit(answer.headers["Location"]).query
    friend.post(f"/join/7?{query}")
    assert site.qualify("7").referrer == "3"


def test_a_page_can_greet_a_visitor_in_the_inviters_name(site: Site) -> None:
    friend, stranger = site.browser(), site.browser()
    follow(friend, site.link("3"))
    for client, inviter in ((friend, "3"), (stranger, None)):
        with client:
            client.get("/")
            assert current_referrer() == inviter
    assert current_referrer() is None  # there is no visitor


# -- what cannot be known is nobody ----------------------------------------------------


def test_a_token_that_came_another_way_has_no_inviter(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    friend.get(f"/?mmref={mmolove_sandbox.mint('another')}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_a_trip_that_brought_no_news_is_over(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    friend = site.browser()
    token = follow(friend, site.link("3"))
    friend.get(site.link("4"))
    friend.get(f"/?mmref={token}")
    friend.get(f"/?mmref={mmolove_sandbox.mint('another')}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_the_last_link_counts(site: Site) -> None:
    friend = site.browser()
    for player in ("3", "4"):
        follow(friend, site.link(player))
    friend.post("/join/7")
    assert site.qualify("7").referrer == "4"


def test_or_the_first_where_the_site_says_so(make_app: MakeApp) -> None:
    site = Site(make_app, ATTRIBUTION="first-touch")
    friend = site.browser()
    for player in ("3", "4"):
        follow(friend, site.link(player))
    friend.post("/join/7")
    assert site.qualify("7").referrer == "3"


def test_a_link_that_did_not_lead_back_changes_nothing(site: Site) -> None:
    friend = site.browser()
    follow(friend, site.link("3"))
    friend.get(site.link("4"))
    friend.post("/join/7")
    assert site.qualify("7").referrer == "3"


def test_a_trip_that_lasts_for_hours_proves_nothing(
    site: Site, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    friend = site.browser()
    friend.get(site.link("3"))
    later = time.time() + 3602
    with monkeypatch.context() as patch:
        patch.setattr("itsdangerous.timed.time.time", lambda: later)
        friend.get(f"/?mmref={mmolove_sandbox.mint()}")
        friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_a_token_that_the_site_names_has_no_inviter(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    with site.app.app_context():
        registered("7", token=mmolove_sandbox.mint())
    assert site.qualify("7").referrer is None


def test_nobody_invites_themselves(site: Site) -> None:
    friend = site.browser()
    follow(friend, site.link("7"))
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


@pytest.mark.parametrize("value", ["3", "junk", "x.y.z", ""])
def test_a_cookie_that_we_did_not_sign_is_not_believed(
    site: Site, mmolove_sandbox: SiteSandbox, value: str
) -> None:
    friend = site.browser()
    friend.set_cookie("mmolove_inviter", value)
    friend.get(f"/?mmref={mmolove_sandbox.mint()}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


def test_of_two_trips_the_newer_one_counts(
    site: Site, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_off(player: str, moment: float) -> str:
        browser = site.browser()
        with monkeypatch.context() as patch:
            patch.setattr("itsdangerous.timed.time.time", lambda: moment)
            browser.get(site.link(player))
        cookie = browser.get_cookie("mmolove_inviter")
        assert cookie is not None
        return f"mmolove_inviter={cookie.value}"

    now = time.time()
    for player, header in (
        ("7", f"{set_off('3', now)}; {set_off('4', now - 60)}"),
        ("8", f"mmolove_inviter=junk; {set_off('4', now - 60)}; {set_off('3', now)}"),
    ):
        token = mmolove_sandbox.mint()
        site.app.test_client(use_cookies=False).post(
            f"/join/{player}?mmref={token}", headers={"Cookie": header}
        )
        assert site.qualify(player).referrer == "3"


# -- the page --------------------------------------------------------------------------


JUNK = ["3", "3.", "3.junk", "junk", "~.x", "~", ".", "%ff", "%00", "%ED%A0%80"]


@pytest.mark.parametrize("code", [*JUNK, "ä.b", "x" * 100_000, "%"])
def test_an_unknown_invitation_leads_to_the_site(site: Site, code: str) -> None:
    response = site.browser().get(f"/invite/{code}")
    assert response.status_code == 404
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("code", ["\ud800", "\udcff.a", "", None, b"3.a", 3, [], "ä.b"])
def test_what_is_no_code_is_nobody(site: Site, code: object) -> None:
    assert read_code(site.app.extensions["mmolove"], code) is None


def test_a_code_is_worth_nothing_for_another_player(site: Site) -> None:
    code = site.link("3").replace("/3.", "/4.")
    assert site.browser().get(code).status_code == 404


@pytest.mark.parametrize("origin", ["same-origin", "cross-site"])
@pytest.mark.parametrize("dest", ["image", "iframe", "object", "script", "empty"])
def test_a_link_that_is_embedded_or_fetched_is_refused(
    site: Site, mmolove_sandbox: SiteSandbox, dest: str, origin: str
) -> None:
    friend = site.browser()
    headers = {"Sec-Fetch-Dest": dest, "Sec-Fetch-Site": origin}
    response = friend.get(site.link("3"), headers=headers)
    assert response.status_code == 403
    assert "Location" not in response.headers
    assert "Set-Cookie" not in response.headers
    friend.get(f"/?mmref={mmolove_sandbox.mint()}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


@pytest.mark.parametrize("purpose", [{}, {"Sec-Purpose": "prefetch;prerender"}])
def test_a_link_that_is_loaded_before_the_click_is_followed(
    site: Site, purpose: dict[str, str]
) -> None:
    headers = {"Sec-Fetch-Dest": "document", **purpose}
    response = site.browser().get(site.link("3"), headers=headers)
    assert "/r/demo-server?ref=" in response.location
    assert "mmolove_inviter=" in response.headers["Set-Cookie"]


def test_without_consent_or_a_cookie_nobody_is_remembered(make_app: MakeApp) -> None:
    site = Site(make_app)
    site.mmolove.consent(lambda: False)
    assert "Set-Cookie" not in site.browser().get(site.link("3")).headers
    bare = Site(make_app, COOKIE_DAYS=0)
    assert "Set-Cookie" not in bare.browser().get(bare.link("3")).headers


def test_where_it_is_switched_off_a_link_leads_to_the_site(make_app: MakeApp) -> None:
    site = Site(make_app, ENABLED=False)
    assert site.browser().get(site.link("3")).location == "/"


def test_the_cookie_reaches_as_far_as_the_session_and_lasts_for_the_trip(
    site: Site,
) -> None:
    site.app.config.update(SESSION_COOKIE_SECURE=True)
    header = site.browser().get(site.link("3")).headers["Set-Cookie"]
    assert header.startswith("mmolove_inviter=")
    for part in ("Max-Age=3600", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
        assert part in header


@pytest.mark.parametrize(
    ("session", "ours"), [(None, "Lax"), ("Strict", "Lax"), ("None", "None")]
)
def test_the_cookie_survives_the_way_back_from_another_site(
    site: Site, session: str | None, ours: str
) -> None:
    site.app.config.update(SESSION_COOKIE_SAMESITE=session, SESSION_COOKIE_SECURE=True)
    header = site.browser().get(site.link("3")).headers["Set-Cookie"]
    assert f"SameSite={ours}" in header


@pytest.mark.parametrize("dest", ["document", "image"])
@pytest.mark.parametrize("is_ours", [True, False])
def test_no_shared_cache_answers_for_the_page(
    site: Site, dest: str, is_ours: bool
) -> None:
    link = site.link("3") if is_ours else "/invite/junk"
    response = site.browser().get(link, headers={"Sec-Fetch-Dest": dest})
    assert response.headers["Cache-Control"] == "private"
    assert response.headers["Vary"] == "Cookie"


def test_a_page_on_which_a_trip_ends_is_its_visitors_alone(site: Site) -> None:
    friend = site.browser()
    token = follow(friend, site.link("3"))
    friend.get(site.link("4"))
    response = friend.get(f"/?mmref={token}")  # no news, but its cookie is deleted
    assert response.headers["Set-Cookie"].startswith("mmolove_inviter=;")
    assert response.headers["Cache-Control"] == "private"
    assert response.headers["Vary"] == "Cookie"


def test_a_link_stands_on_the_sites_own_domain(site: Site) -> None:
    with site.app.test_request_context(base_url="https://lanternmoor.example"):
        link = site.mmolove.invite("3")
    assert link.startswith("https://lanternmoor.example/invite/3.")


def test_a_site_that_lives_under_a_prefix_keeps_to_it(make_app: MakeApp) -> None:
    site = Site(make_app)
    with site.app.test_request_context("/", base_url="http://localhost/moor"):
        assert site.mmolove.invite("3", external=False).startswith("/moor/invite/3.")
    response = site.browser().get("/invite/junk", base_url="http://localhost/moor")
    assert 'href="/moor/"' in response.text


def test_without_the_page_or_a_key_the_error_says_what_to_write(app: Flask) -> None:
    with app.test_request_context(), pytest.raises(ConfigError, match="invitations"):
        MMOLove().invite("3")
    app.config["SECRET_KEY"] = None
    with app.test_request_context(), pytest.raises(ConfigError, match="SECRET_KEY"):
        MMOLove().invite("3")


def test_a_player_without_an_identity_has_no_link(site: Site) -> None:
    with site.app.test_request_context(), pytest.raises(IdentityError):
        site.mmolove.invite(None)


def test_two_apps_do_not_take_each_others_links(make_app: MakeApp) -> None:
    site, other = Site(make_app), Site(make_app)
    other.app.config["SECRET_KEY"] = "another"
    assert other.browser().get(site.link("3")).status_code == 404


def test_two_servers_with_one_key_do_not_either(make_app: MakeApp) -> None:
    site, other = Site(make_app), Site(make_app, SERVER_ID="another-server")
    assert other.browser().get(site.link("3")).status_code == 404
    friend, stranger = site.browser(), other.browser()
    friend.get(site.link("3"))
    trip = friend.get_cookie("mmolove_inviter")
    assert trip is not None
    stranger.set_cookie("mmolove_inviter", trip.value)
    with stranger:
        stranger.get("/?mmref=tok.1")
        assert current_referrer() is None


@pytest.mark.parametrize("player", ["3", "ä/b c"])
def test_a_link_that_was_shown_while_switched_off_is_good_later(
    make_app: MakeApp, player: str
) -> None:
    # It is also what links looked like before the server id was signed with them.
    link = Site(make_app, ENABLED=False).link(player)
    site = Site(make_app)
    assert link != site.link(player)
    friend = site.browser()
    follow(friend, link)
    friend.post("/join/7")
    assert site.qualify("7").referrer == player


# -- what the owner sees of it ---------------------------------------------------------


def test_the_best_referrers_are_seen_on_the_page_and_by_command(
    site: Site, mmolove_sandbox: SiteSandbox
) -> None:
    page = site.mmolove.dashboard(access=lambda: True)
    site.app.register_blueprint(page, url_prefix="/mmolove")
    desk, command = site.browser(), site.app.test_cli_runner().invoke
    assert "best referrers" not in desk.get("/mmolove/").text
    assert "No invite link" in command(mmolove, ["referrers"]).output
    for player, referrer in (("7", "3"), ("8", "berta"), ("9", "3")):
        friend = site.browser()
        follow(friend, site.link(referrer))
        friend.post(f"/join/{player}")
    site.qualify("8")
    text = desk.get("/mmolove/").text
    rows = re.findall(r'<th scope="row" class="name">(3|berta)</th>\s*(.*)', text)
    assert [name for name, _ in rows] == ["3", "berta"]
    assert re.findall(r">(\d+)<", rows[1][1]) == ["1", "1", "1"]
    lines = command(mmolove, ["referrers"]).output.splitlines()
    assert [line.split() for line in lines] == [
        ["FRIENDS", "QUALIFIED", "REWARDED", "PLAYER"],
        ["2", "0", "0", "3"],
        ["1", "1", "1", "berta"],
    ]
    few = command(mmolove, ["referrers", "--limit", "1", "--json"])
    (best,) = json.loads(few.output)
    assert best == {"player": "3", "accepted": 2, "qualified": 0, "rewarded": 0}
    command(mmolove, ["forget", "3", "--yes"])
    assert ">3</th>" not in desk.get("/mmolove/").text


@pytest.mark.parametrize("how", ["nested", "renamed", "prefixed", "twice nested"])
def test_the_page_may_be_registered_in_any_way(make_app: MakeApp, how: str) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove)
    parent = Blueprint("parent", __name__, url_prefix="/game")
    if how == "renamed":
        app.register_blueprint(invitations, name="friends")
    elif how == "prefixed":
        app.register_blueprint(invitations, url_prefix="/game")
    elif how == "nested":
        parent.register_blueprint(invitations)
        app.register_blueprint(parent)
    else:
        middle = Blueprint("middle", __name__, url_prefix="/middle")
        middle.register_blueprint(invitations)
        parent.register_blueprint(middle)
        app.register_blueprint(parent)
    with app.test_request_context():
        link = mmolove.invite("3", external=False)
    assert "/r/demo-server?ref=" in app.test_client().get(link).location


@pytest.mark.parametrize(
    "spoil",
    [str.upper, str.lower, lambda code: code[:-3], lambda code: f"{code}.", str.title],
)
@pytest.mark.parametrize("root", ["", "/game"])
def test_a_link_that_was_spoiled_says_so(
    site: Site, spoil: t.Callable[[str], str], root: str
) -> None:
    path, _, code = site.link("Anna").rpartition("/")
    spoiled = f"{path}/{spoil(code)}"
    base = f"http://localhost{root}/"
    response = site.browser().get(spoiled, base_url=base)
    assert response.status_code == 404
    assert "This invite link is not complete" in response.text
    assert f'href="{root}/"' in response.text
    assert "Set-Cookie" not in response.headers
    assert "<script" not in response.text


def test_the_page_shows_nothing_of_a_forged_link(site: Site) -> None:
    response = site.browser().get("/invite/<script>alert(1)<%2Fscript>")
    assert response.status_code == 404
    assert "alert" not in response.text
