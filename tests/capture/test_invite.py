"""A player's link, and the page behind it."""

from __future__ import annotations

import json
import re
import typing as t

import pytest
from flask import Blueprint
from flask import Flask

from flask_mmolove import ConfigError
from flask_mmolove import current_referrer
from flask_mmolove import IdentityError
from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove.admin.cli import mmolove
from flask_mmolove.capture import arrivals
from flask_mmolove.capture.invite import read_code
from flask_mmolove.testing import SiteSandbox
from tests.capture.referrals import follow
from tests.capture.referrals import Referrals
from tests.conftest import MakeApp

JUNK = ["3", "3.", "3.junk", "junk", "~.x", "~", ".", "%ff", "%00", "%ED%A0%80"]


@pytest.mark.parametrize("code", [*JUNK, "ä.b", "x" * 100_000, "%"])
def test_an_unknown_invitation_leads_to_the_site(site: Referrals, code: str) -> None:
    response = site.browser().get(f"/invite/{code}")
    assert response.status_code == 404
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("code", ["\ud800", "\udcff.a", "", None, b"3.a", 3, [], "ä.b"])
def test_what_is_no_code_is_nobody(site: Referrals, code: object) -> None:
    assert read_code(code) is None


def test_a_code_is_worth_nothing_for_another_player(site: Referrals) -> None:
    code = site.link("3").replace("/3.", "/4.")
    assert site.browser().get(code).status_code == 404


@pytest.mark.parametrize("origin", ["same-origin", "cross-site"])
@pytest.mark.parametrize("dest", ["image", "iframe", "object", "script", "empty"])
def test_a_link_that_is_embedded_or_fetched_is_refused(
    site: Referrals, mmolove_sandbox: SiteSandbox, dest: str, origin: str
) -> None:
    friend = site.browser()
    headers = {"Sec-Fetch-Dest": dest, "Sec-Fetch-Referrals": origin}
    response = friend.get(site.link("3"), headers=headers)
    assert response.status_code == 403
    assert "Location" not in response.headers
    assert "Set-Cookie" not in response.headers
    friend.get(f"/?mmref={mmolove_sandbox.mint()}")
    friend.post("/join/7")
    assert site.qualify("7").referrer is None


@pytest.mark.parametrize("purpose", [{}, {"Sec-Purpose": "prefetch;prerender"}])
def test_a_link_that_is_loaded_before_the_click_is_followed(
    site: Referrals, purpose: dict[str, str]
) -> None:
    headers = {"Sec-Fetch-Dest": "document", **purpose}
    response = site.browser().get(site.link("3"), headers=headers)
    assert "/r/demo-server?ref=" in response.location
    assert "mmolove_referrer=" in response.headers["Set-Cookie"]


def test_where_it_is_switched_off_a_link_leads_to_the_site(make_app: MakeApp) -> None:
    site = Referrals(make_app, ENABLED=False)
    assert site.browser().get(site.link("3")).location == "/"


@pytest.mark.parametrize("dest", ["document", "image"])
@pytest.mark.parametrize("is_ours", [True, False])
def test_no_shared_cache_answers_for_the_page(
    site: Referrals, dest: str, is_ours: bool
) -> None:
    link = site.link("3") if is_ours else "/invite/junk"
    response = site.browser().get(link, headers={"Sec-Fetch-Dest": dest})
    assert response.headers["Cache-Control"] == "private"
    assert response.headers["Vary"] == "Cookie"


def test_a_link_stands_on_the_sites_own_domain(site: Referrals) -> None:
    with site.app.test_request_context(base_url="https://lanternmoor.example"):
        link = site.mmolove.invite("3")
    assert link.startswith("https://lanternmoor.example/invite/3.")


def test_a_site_that_lives_under_a_prefix_keeps_to_it(make_app: MakeApp) -> None:
    site = Referrals(make_app)
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


def test_a_player_without_an_identity_has_no_link(site: Referrals) -> None:
    with site.app.test_request_context(), pytest.raises(IdentityError):
        site.mmolove.invite(None)


def test_two_apps_do_not_take_each_others_links(make_app: MakeApp) -> None:
    site, other = Referrals(make_app), Referrals(make_app)
    other.app.config["SECRET_KEY"] = "another"
    assert other.browser().get(site.link("3")).status_code == 404


def test_two_servers_with_one_key_do_not_either(make_app: MakeApp) -> None:
    site, other = Referrals(make_app), Referrals(make_app, SERVER_ID="another-server")
    assert other.browser().get(site.link("3")).status_code == 404
    friend, stranger = site.browser(), other.browser()
    friend.get(site.link("3"))
    trip = friend.get_cookie("mmolove_referrer")
    assert trip is not None
    stranger.set_cookie("mmolove_referrer", trip.value)
    with stranger:
        stranger.get("/?mmref=tok.1")
        assert current_referrer() is None


@pytest.mark.parametrize("player", ["3", "ä/b c"])
def test_a_link_that_was_shown_while_switched_off_is_good_later(
    make_app: MakeApp, player: str
) -> None:
    # It is also what links looked like before the server id was signed with them.
    link = Referrals(make_app, ENABLED=False, SERVER_ID=None).link(player)
    site = Referrals(make_app)
    assert link != site.link(player)
    friend = site.browser()
    follow(friend, link)
    friend.post("/join/7")
    assert site.qualify("7").referrer == player


def test_the_best_referrers_are_on_the_dashboard_and_the_command_line(
    site: Referrals,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "PAUSE", 0)
    page = site.mmolove.dashboard(access=lambda: True)
    site.app.register_blueprint(page, url_prefix="/mmolove")
    owner, command = site.browser(), site.app.test_cli_runner().invoke
    assert "best referrers" not in owner.get("/mmolove/").text
    assert "No invite link" in command(mmolove, ["referrers"]).output
    for player, referrer in (("7", "3"), ("8", "berta"), ("9", "3")):
        friend = site.browser()
        follow(friend, site.link(referrer))
        friend.post(f"/join/{player}")
    follow(site.browser(), site.link("3"))  # who only looks
    site.qualify("8")
    text = owner.get("/mmolove/").text
    rows = re.findall(
        r'<th scope="row" class="name"><a [^>]*>(3|berta)</a></th>\s*(.*)', text
    )
    assert [name for name, _ in rows] == ["3", "berta"]
    assert re.findall(r">(\d+)<", rows[1][1]) == ["1", "1", "1", "1"]
    lines = command(mmolove, ["referrers"]).output.splitlines()
    assert [line.split() for line in lines] == [
        ["Arrived", "Friends", "Qualified", "Rewarded", "Player"],
        ["3", "2", "0", "0", "3"],
        ["1", "1", "1", "1", "berta"],
    ]
    few = command(mmolove, ["referrers", "--limit", "1", "--json"])
    (best,) = json.loads(few.output)
    counts = {"arrived": 3, "accepted": 2, "qualified": 0, "rewarded": 0}
    assert best == {"player": "3", **counts}
    command(mmolove, ["forget", "3", "--yes"])
    assert ">3</a></th>" not in owner.get("/mmolove/").text


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
    site: Referrals, spoil: t.Callable[[str], str], root: str
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


def test_the_page_shows_nothing_of_a_forged_link(site: Referrals) -> None:
    response = site.browser().get("/invite/<script>alert(1)<%2Fscript>")
    assert response.status_code == 404
    assert "alert" not in response.text
