from __future__ import annotations

import html
import re
import threading
import typing as t

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from flask import render_template_string
from flask import session
from flask.testing import FlaskClient
from markupsafe import Markup
from playwright.sync_api import Browser
from playwright.sync_api import expect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from flask_mmolove import ConfigError
from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import registered
from flask_mmolove.capture import referrer
from flask_mmolove.protocol.wire import shorten
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.browser import browser as browser
from tests.browser import fits
from tests.conftest import Hold
from tests.conftest import MakeApp

NOTHING_SCROLLS_ASIDE = """
[...document.querySelectorAll(".scroll, pre")].every(
    each => each.scrollWidth <= each.clientWidth
)
"""
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'"


def add_dashboard(mmolove: MMOLove, app: Flask) -> Flask:
    page = mmolove.dashboard(access=lambda: session.get("owner"))
    app.register_blueprint(page, url_prefix="/mmolove")

    @app.get("/own")
    def own() -> str:
        session["owner"] = True
        return "the owner"

    return app


@pytest.fixture
def mmolove() -> MMOLove:
    mmolove = MMOLove()

    @mmolove.reward(at_most_once=True)
    def grant(referral: t.Any) -> None:
        if referral.identity == "unlucky":
            raise RuntimeError("the game is down")

    return mmolove


@pytest.fixture
def app(mmolove: MMOLove, make_app: MakeApp) -> Flask:
    return add_dashboard(mmolove, make_app(mmolove))


@pytest.fixture
def owner(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.get("/own")
    return client


def sign_up(app: Flask, sandbox: SiteSandbox, *players: str) -> None:
    with app.app_context():
        for player in players:
            registered(player, token=sandbox.mint())


def send(client: FlaskClient, url: str, **fields: str) -> TestResponse:
    """Send the form of a page, as a browser would."""
    found = re.search(r'name="token" value="([^"]+)"', client.get(url).text)
    assert found is not None
    return client.post(url, data={"token": found[1], **fields}, follow_redirects=True)


def reject(app: Flask) -> int:
    with app.app_context():
        registered("7", token="junk")
    (entry,) = app.extensions["mmolove"].outbox.inspector.page(
        state="rejected", limit=9
    )
    assert isinstance(entry.id, int)
    return entry.id


class TestAccess:
    @pytest.mark.parametrize("access", [None, "admin"])
    def test_without_access_there_is_no_dashboard(self, access: t.Any) -> None:
        with pytest.raises(ConfigError, match="needs to know who may see it"):
            MMOLove().dashboard(access=access)

    @pytest.mark.parametrize(
        "method", ["GET", "HEAD", "POST", "OPTIONS", "PUT", "TRACE", "MADE-UP"]
    )
    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/",
            "/events",
            "/events/1",
            "/retry",
            "/events/1/retry",
            "/events/1/reward",
            "/events/1/dismiss",
            "/static/dashboard.css",
        ],
    )
    def test_whoever_is_refused_gets_what_an_unknown_url_gets(
        self, make_app: MakeApp, mmolove: MMOLove, method: str, path: str
    ) -> None:
        app = make_app(mmolove)
        page = mmolove.dashboard(access=lambda: False)
        app.register_blueprint(page, url_prefix="/mmolove")

        @app.errorhandler(404)
        def missing(error: Exception) -> tuple[str, int]:
            show = "nothing here {{ health }}{{ examine }}{{ states }}{{ message }}"
            return render_template_string(show), 404

        with Hold(app):  # a read would have to wait
            client = app.test_client()
            refused = client.open(f"/mmolove{path}", method=method)
            unknown = client.open("/nothing", method=method)
        assert refused.status_code == 404
        assert (refused.data, [*refused.headers]) == (unknown.data, [*unknown.headers])

    @pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "MADE-UP"])
    def test_only_a_form_that_is_sent_acts(
        self, app: Flask, owner: FlaskClient, method: str
    ) -> None:
        id = reject(app)
        one = f"events/{id}"
        for path in ("retry", f"{one}/retry", f"{one}/reward", f"{one}/dismiss", ""):
            response = owner.open(f"/mmolove/{path}", method=method)
            assert response.status_code in (200, 405)
        assert owner.post("/mmolove/events").status_code == 405
        outbox = app.extensions["mmolove"].outbox
        assert outbox.inspector.get(id).state == "rejected"

    @pytest.mark.parametrize(
        "path", ["", "events", "events/1", "retry", "events/1/retry"]
    )
    def test_a_page_waits_for_the_outbox_no_longer_than_a_request_may(
        self, app: Flask, owner: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_mmolove.recording.recorder.REQUEST_TIMEOUT", 0.05)
        with Hold(app):
            response = owner.get(f"/mmolove/{path}")
        assert response.status_code == 503
        assert "The outbox cannot be read." in response.text

    @pytest.mark.parametrize("path", ["retry", "events/1/retry"])
    def test_an_action_waits_no_longer_either(
        self, app: Flask, owner: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reject(app)
        found = re.search(
            r'name="token" value="([^"]+)"', owner.get("/mmolove/retry").text
        )
        assert found is not None
        monkeypatch.setattr("flask_mmolove.recording.recorder.REQUEST_TIMEOUT", 0.05)
        with Hold(app):
            response = owner.post(f"/mmolove/{path}", data={"token": found[1]})
        assert response.status_code == 503

    def test_it_is_off_until_asked_for(self, make_app: MakeApp) -> None:
        rules = [rule.endpoint for rule in make_app().url_map.iter_rules()]
        assert rules == ["static"]

    def test_each_of_several_apps_shows_its_own(
        self, mmolove: MMOLove, make_app: MakeApp, mmolove_sandbox: SiteSandbox
    ) -> None:
        first, second = (
            add_dashboard(mmolove, make_app(mmolove, OUTBOX=f"{name}.db"))
            for name in "ab"
        )
        sign_up(first, mmolove_sandbox, "7")
        for app, count in ((first, 1), (second, 0)):
            client = app.test_client()
            client.get("/own")
            assert client.get("/mmolove/events").text.count("registered</a>") == count


class TestPage:
    def test_the_funnel_follows_a_player(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, "7", "8")
        with app.app_context():
            qualify("7")
        words = (
            "Today: arrived 0, signed up 2, accepted 2 (100% of the step before), "
            "qualified 1 (50% of the step before), rewarded 0 (0% of the step before)"
        )
        text = owner.get("/mmolove/").text
        assert words in text
        assert "Everything works. MMOLove accepted a signup 0 seconds ago." in text

    def test_no_token_stands_on_it(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, "7")
        token = mmolove_sandbox.sandbox.referrals[0].token
        for path in ("", "events", "events/1", "events?player=7"):
            assert token not in owner.get(f"/mmolove/{path}").text

    def test_a_strict_policy_is_enough(self, owner: FlaskClient) -> None:
        for path in ("", "events", "retry"):
            response = owner.get(f"/mmolove/{path}")
            assert response.headers["Content-Security-Policy"].startswith(POLICY)
            assert response.headers["Cache-Control"] == "no-store"
            assert not re.search(r"<script|<style| style=| on\w+=", response.text)
            links = re.findall(r'(?:src|href|action)="([^"]*)"', response.text)
            assert {each for each in links if not each.startswith("/mmolove/")} == {"/"}

    def test_what_the_game_calls_a_player_is_shown_as_text(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, "<b>&ldquo;")
        text = owner.get("/mmolove/events").text
        assert "<b>" not in text and "&lt;b&gt;&amp;ldquo;" in text

    def test_the_log_is_searched_filtered_and_paged(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, *map(str, range(100, 160)))
        first = owner.get("/mmolove/events?state=accepted").text
        assert first.count('class="badge accepted"') == 50
        (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
        second = owner.get(older.replace("&amp;", "&")).text
        assert second.count('class="badge accepted"') == 10
        assert 'rel="next"' not in second
        found = owner.get("/mmolove/events?player=123").text
        assert found.count("registered</a>") == 1
        assert "No events match." in owner.get("/mmolove/events?player=9").text
        assert owner.get("/mmolove/events?state=nonsense").status_code == 404
        assert owner.get("/mmolove/events/99999").status_code == 404

    def test_one_event_is_shown_with_its_responses(
        self, app: Flask, owner: FlaskClient
    ) -> None:
        id = reject(app)
        send(owner, f"/mmolove/events/{id}/retry")
        text = owner.get(f"/mmolove/events/{id}").text
        assert text.count("<strong>HTTP 404</strong>") == 2
        assert text.count(" UTC</time>, after ") == 2
        assert "MMOLOVE_SERVER_ID" in text
        assert "<dt>Referrer</dt><dd>not known</dd>" in text
        assert "<dt>Next</dt><dd>Nothing, until you act.</dd>" in text

    def test_the_request_is_shown_without_what_is_secret(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, "7")
        text = html.unescape(owner.get("/mmolove/events/1").text)
        (entry,) = app.extensions["mmolove"].outbox.inspector.page()
        url = app.config["MMOLOVE_ENDPOINT"]
        assert f"<code>{url}</code>" in text.replace("<wbr>", "")
        assert "t=<time>,v1=sha256=<signature>" in text
        assert f'"token": "{shorten(entry.token)}"' in text
        assert entry.token not in text
        assert app.config["MMOLOVE_REFERRAL_SECRET"] not in text

    def test_a_reward_s_attempts_stand_apart(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, "7")
        with app.app_context():
            qualify("7")
        outbox = app.extensions["mmolove"].outbox
        qualified = outbox.of("7", False)["qualified"]
        page = owner.get(f"/mmolove/events/{qualified.id}").text
        assert page.index("<strong>granted</strong>") < page.index("HTTP 200")
        assert "Nothing: this event is done." in page

    @pytest.mark.parametrize(
        ("query", "players"),
        [
            ("event=qualified", "7"),
            ("event=registered", "87"),
            ("referrer=anna", "8"),
            ("state=accepted&event=registered&player=7", "7"),
            ("until=2020-01-01", ""),
            ("since=2020-01-01&until=9999-12-31", "877"),
            ("since=9998-12-31", ""),
            ("since=0001-01-01&player=7", "77"),
            ("until=9998-12-31", "877"),
        ],
    )
    def test_the_log_is_filtered(
        self,
        app: Flask,
        owner: FlaskClient,
        mmolove_sandbox: SiteSandbox,
        query: str,
        players: str,
    ) -> None:
        sign_up(app, mmolove_sandbox, "7")
        token = mmolove_sandbox.mint()
        with app.test_request_context():
            qualify("7")
            referrer.remember(token, "anna")
            registered("8", token=token)
        text = owner.get(f"/mmolove/events?{query}").text
        shown = re.findall(r"/mmolove/events\?player=(\d+)", text)
        assert sorted(shown) == sorted(players)
        assert ("No events match." in text) == (not players)
        assert 'href="/mmolove/events">Clear</a>' in text

    @pytest.mark.parametrize(
        "query", ["since=yesterday", "until=2026-02-30", "event=none", "state=none"]
    )
    def test_a_filter_that_is_none_is_a_404(
        self, owner: FlaskClient, query: str
    ) -> None:
        assert owner.get(f"/mmolove/events?{query}").status_code == 404

    def test_an_outbox_that_fails_is_a_503(
        self, mmolove: MMOLove, make_app: MakeApp, tmp_path: t.Any
    ) -> None:
        app = add_dashboard(mmolove, make_app(mmolove, OUTBOX=tmp_path))
        client = app.test_client()
        client.get("/own")
        response = client.get("/mmolove/")
        assert response.status_code == 503
        assert "The outbox cannot be read" in response.text


class TestNames:
    @pytest.fixture
    def asked(self) -> list[list[str]]:
        return []

    @pytest.fixture
    def owner(
        self,
        make_app: MakeApp,
        mmolove_sandbox: SiteSandbox,
        asked: list[list[str]],
    ) -> FlaskClient:
        mmolove = MMOLove()
        app = make_app(mmolove)

        def find_names(ids: list[str]) -> dict[t.Any, t.Any]:
            asked.append(ids)
            if "9" in ids:
                raise RuntimeError("the database is away")
            return {7: "<i>Ann</i>", "anna": Markup("<i>Bea</i>"), "8": None}

        page = mmolove.dashboard(access=lambda: True, player_name=find_names)
        app.register_blueprint(page, url_prefix="/mmolove")
        for player in ("7", "8"):
            token = mmolove_sandbox.mint()
            with app.test_request_context():
                referrer.remember(token, "anna")
                registered(player, token=token)
        return app.test_client()

    def test_players_are_called_by_name(
        self, owner: FlaskClient, asked: list[list[str]]
    ) -> None:
        text = owner.get("/mmolove/events").text
        assert '>&lt;i&gt;Ann&lt;/i&gt; <span class="quiet">7</span></a>' in text
        assert ">8</a>" in text
        assert asked == [["8", "7"]]

    @pytest.mark.parametrize("path", ["", "events/1", "events?referrer=anna"])
    def test_so_are_referrers_and_nothing_is_asked_twice(
        self, owner: FlaskClient, asked: list[list[str]], path: str
    ) -> None:
        text = owner.get(f"/mmolove/{path}").text
        assert '&lt;i&gt;Bea&lt;/i&gt; <span class="quiet">anna</span>' in text
        (ids,) = asked
        assert len(ids) == len({*ids}) and "anna" in ids

    def test_nothing_is_asked_where_no_player_is(
        self, owner: FlaskClient, asked: list[list[str]]
    ) -> None:
        assert owner.get("/mmolove/events?state=rejected").status_code == 200
        assert asked == []

    def test_ids_are_shown_if_it_fails(
        self, owner: FlaskClient, mmolove_sandbox: SiteSandbox, log: t.Any
    ) -> None:
        sign_up(owner.application, mmolove_sandbox, "9")
        response = owner.get("/mmolove/events")
        assert response.status_code == 200
        assert ">9</a>" in response.text and ">7</a>" in response.text
        assert "player_name failed, so ids are shown" in log.getvalue()
        assert "the database is away" in log.getvalue()


class TestHeader:
    def test_it_says_whose_page_it_is(self, app: Flask, owner: FlaskClient) -> None:
        text = owner.get("/mmolove/").text
        assert '<a href="/">localhost</a>' in text
        assert f"Server <code>{app.config['MMOLOVE_SERVER_ID']}</code>" in text
        assert "dry runs only" not in text
        assert re.search(r"As of <time datetime=\"[^\"]+\">.* UTC</time>", text)

    def test_a_site_has_a_name_and_dry_runs_are_marked(self, make_app: MakeApp) -> None:
        app = make_app(mmolove := MMOLove(), TEST=True)
        page = mmolove.dashboard(access=lambda: True, site_name="Lantern & Moor")
        app.register_blueprint(page, url_prefix="/mmolove")
        text = app.test_client().get("/mmolove/").text
        assert '<a href="/">Lantern &amp; Moor</a>' in text
        assert '<span class="badge">dry runs only</span>' in text

    @pytest.mark.parametrize(
        ("query", "seconds", "links"),
        [
            ("", None, ["", "?refresh=30"]),
            ("refresh=45", "45", ["?refresh=45", ""]),
            ("refresh=0", None, ["", "?refresh=30"]),
            ("refresh=1", "5", ["?refresh=5", ""]),
            ("refresh=-1", "5", ["?refresh=5", ""]),
            ("refresh=999999", "3600", ["?refresh=3600", ""]),
            ("refresh=often", None, ["", "?refresh=30"]),
            (
                "player=%26%22&refresh=60",
                "60",
                ["?player=%26%22&amp;refresh=60", "?player=%26%22"],
            ),
            ("id=9&_external=1", None, ["?id=9&amp;_external=1"]),
        ],
    )
    def test_a_page_is_loaded_again_as_its_address_says(
        self, owner: FlaskClient, query: str, seconds: str | None, links: list[str]
    ) -> None:
        response = owner.get(f"/mmolove/events?{query}")
        assert response.headers.get("Refresh") == seconds
        for link in links:
            assert f'href="/mmolove/events{link}"' in response.text

    def test_a_form_is_not_loaded_again(self, app: Flask, owner: FlaskClient) -> None:
        id = reject(app)
        assert owner.get(f"/mmolove/events/{id}?refresh=9").headers["Refresh"] == "9"
        for path in ("retry", f"events/{id}/retry", "events/99", "static/heart.svg"):
            with owner.get(f"/mmolove/{path}?refresh=9") as response:
                assert "Refresh" not in response.headers

    def test_a_page_without_its_outbox_is(
        self, app: Flask, owner: FlaskClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flask_mmolove.recording.recorder.REQUEST_TIMEOUT", 0.05)
        with Hold(app):
            response = owner.get("/mmolove/?refresh=9")
        assert (response.status_code, response.headers["Refresh"]) == (503, "9")

    @pytest.mark.parametrize("path", ["", "events", "events/1", "retry"])
    def test_bytes_that_no_browser_sends_are_a_400(
        self, owner: FlaskClient, path: str
    ) -> None:
        environ = {"QUERY_STRING": "refresh=\xff"}
        response = owner.get(f"/mmolove/{path}", environ_overrides=environ)
        assert response.status_code == 400


class TestEmpty:
    def test_it_says_what_to_do_next(self, make_app: MakeApp) -> None:
        app = make_app(mmolove := MMOLove())
        page = mmolove.dashboard(access=lambda: True)
        app.register_blueprint(page, url_prefix="/mmolove")
        text = app.test_client().get("/mmolove/").text
        assert "Nobody has signed up with a token yet" in text
        assert "Register the blueprint <code>invitations</code>" in text
        assert "There is none yet, so every reward would fail." in text
        assert "How far referred players get" not in text

    def test_it_does_not_name_what_is_there(
        self, mmolove: MMOLove, make_app: MakeApp, mmolove_sandbox: SiteSandbox
    ) -> None:
        app = add_dashboard(mmolove, make_app(mmolove))
        app.register_blueprint(invitations)
        owner = app.test_client()
        owner.get("/own")
        text = owner.get("/mmolove/").text
        assert "Show your players their own invite links" in text
        assert "@mmolove.reward" not in text
        owner.get(f"/?mmref={mmolove_sandbox.mint()}")
        text = owner.get("/mmolove/").text
        assert "Nobody has signed up with a token yet" in text
        assert "arrived 1, signed up 0" in text

    def test_it_goes_with_the_first_signup_and_stays_away(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, "7")
        assert "Nobody has signed up" not in owner.get("/mmolove/").text
        with app.app_context():
            app.extensions["mmolove"].outbox.erase("7")
        assert "Nobody has signed up" not in owner.get("/mmolove/").text


class TestActions:
    def test_the_overview_leads_to_each(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        rejected = reject(app)
        sign_up(app, mmolove_sandbox, "unlucky")
        with app.app_context():
            qualify("unlucky")
        text = owner.get("/mmolove/").text
        outbox = app.extensions["mmolove"].outbox
        unconfirmed = outbox.of("unlucky", False)["qualified"].id
        for path in (
            "retry",
            f"events/{rejected}/retry",
            f"events/{rejected}/dismiss",
            f"events/{unconfirmed}/reward",
            "#stuck",
        ):
            assert f'href="/mmolove/{path}"' in text
        assert "HTTP 404: unknown_token" in text
        assert "flask mmolove" not in text

    def test_the_overview_lists_a_few(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        sign_up(app, mmolove_sandbox, "8")  # so the settings are right
        for player in range(7):
            with app.app_context():
                registered(player, token=f"junk-{player}")
        text = owner.get("/mmolove/").text
        assert "Rejected: 7</a>" in text
        assert text.count(">Dismiss</a>") == 5

    def test_a_finding_leads_to_the_pending_events(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        mmolove_sandbox.sandbox.faults = Faults(fail=503)
        sign_up(app, mmolove_sandbox, "7")
        text = owner.get("/mmolove/").text
        assert 'href="/mmolove/events?state=pending">Show the pending events' in text
        assert "Nothing is lost: each is retried automatically." in text

    def test_a_junk_token_is_dismissed(
        self, app: Flask, owner: FlaskClient, log: t.Any
    ) -> None:
        id = reject(app)
        with app.app_context():
            qualify("7")
        assert (
            f"/mmolove/events/{id}/dismiss" in owner.get(f"/mmolove/events/{id}").text
        )
        text = send(owner, f"/mmolove/events/{id}/dismiss").text
        assert f"Event {id} was dismissed." in text
        assert "Waiting for you" not in text
        assert app.extensions["mmolove"].outbox.inspector.page() == []
        assert f"Event {id} (registered of player 7) was dismissed." in log.getvalue()
        assert owner.get(f"/mmolove/events/{id}/dismiss").status_code == 404

    def test_nothing_else_is_dismissed(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        id = reject(app)
        token = re.findall(
            r'name="token" value="([^"]+)"',
            owner.get(f"/mmolove/events/{id}/dismiss").text,
        )[0]
        sign_up(app, mmolove_sandbox, "8")
        outbox = app.extensions["mmolove"].outbox
        other = outbox.of("8", False)["registered"].id
        url = f"/mmolove/events/{other}/dismiss"
        assert "there is nothing to dismiss" in owner.get(url).text
        text = owner.post(url, data={"token": token}, follow_redirects=True).text
        assert "Nothing was done." in text
        assert len(outbox.inspector.page()) == 2

    def test_one_event_is_sent_again(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        id = reject(app)
        response = send(owner, f"/mmolove/events/{id}/retry")
        assert f"Event {id} will be sent again." in response.text
        assert len(mmolove_sandbox.sandbox.arrivals) == 2
        assert "will be sent again" not in owner.get("/mmolove/").text

    def test_all_are_sent_again(
        self, app: Flask, owner: FlaskClient, mmolove_sandbox: SiteSandbox
    ) -> None:
        reject(app)
        response = send(owner, "/mmolove/retry")
        assert "1 rejected event will be sent again." in response.text
        assert len(mmolove_sandbox.sandbox.arrivals) == 2

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"token": "x"},
            {"token": "ä.b.c"},
            {"token": "x." * 10_000},
            {"token": "stranger's"},
        ],
        ids=["none", "junk", "no ASCII", "huge", "a stranger's"],
    )
    def test_a_form_without_its_token_changes_nothing(
        self,
        app: Flask,
        owner: FlaskClient,
        mmolove_sandbox: SiteSandbox,
        data: dict[str, str],
    ) -> None:
        id = reject(app)
        if data.get("token") == "stranger's":
            other = app.test_client()
            other.get("/own")
            text = other.get("/mmolove/retry").text
            data["token"] = re.findall(r'name="token" value="([^"]+)"', text)[0]
        owner.get("/mmolove/retry")
        for path in (
            "retry",
            f"events/{id}/retry",
            f"events/{id}/reward",
            f"events/{id}/dismiss",
        ):
            response = owner.post(f"/mmolove/{path}", data={**data, "granted": "yes"})
            assert response.status_code == 400
            assert "Nothing was changed" in response.text
        assert len(mmolove_sandbox.sandbox.arrivals) == 1

    def test_an_open_form_outlives_a_change_of_the_site_s_key(
        self, app: Flask, owner: FlaskClient
    ) -> None:
        reject(app)
        text = owner.get("/mmolove/retry").text
        token = re.findall(r'name="token" value="([^"]+)"', text)[0]
        with owner.session_transaction() as session:
            kept = dict(session)
        app.config["SECRET_KEY_FALLBACKS"] = [app.config["SECRET_KEY"]]
        app.config["SECRET_KEY"] = "the next one"
        with owner.session_transaction() as session:
            session.update(kept)  # Flask reads old ones by itself since 3.1
        response = owner.post("/mmolove/retry", data={"token": token})
        assert response.status_code == 303

    def test_all_failed_rewards_are_retried(
        self,
        make_app: MakeApp,
        mmolove_sandbox: SiteSandbox,
    ) -> None:
        mmolove = MMOLove()
        app = make_app(mmolove)
        app.register_blueprint(
            mmolove.dashboard(access=lambda: True), url_prefix="/mmolove"
        )
        owner = app.test_client()
        sign_up(app, mmolove_sandbox, "unlucky")
        with app.app_context():
            qualify("unlucky")
        assert "/mmolove/rewards/retry" in owner.get("/mmolove/").text
        url = "/mmolove/rewards/retry"
        text = send(owner, url).text
        assert "Nothing was done. The site has no @mmolove.reward" in text
        given: list[str] = []

        @mmolove.reward
        def grant(referral: t.Any) -> None:
            given.append(referral.identity)

        assert (
            "1 failed reward will be granted with the next delivery."
            in send(owner, url).text
        )
        assert given == ["unlucky"]
        assert "No reward has failed." in owner.get(url).text

    @pytest.mark.parametrize("granted", ["yes", "no"])
    def test_an_unconfirmed_reward_is_settled(
        self,
        app: Flask,
        owner: FlaskClient,
        mmolove_sandbox: SiteSandbox,
        granted: str,
    ) -> None:
        sign_up(app, mmolove_sandbox, "unlucky")
        with app.app_context():
            qualify("unlucky")
        outbox = app.extensions["mmolove"].outbox
        (entry,) = outbox.inspector.page(state="reward_unconfirmed", limit=9)
        url = f"/mmolove/events/{entry.id}/reward"
        if granted == "no":
            outbox.renew([entry], 1 << 50)  # a process keeps it
            text = send(owner, url, granted="no").text
            assert "Nothing was done. The reward of event" in text
            outbox.renew([entry], 1)  # its lease ends
        text = send(owner, url, granted=granted).text
        no = "will be granted with the next delivery"
        words = {"yes": "is recorded as granted", "no": no}[granted]
        assert f"The reward of event {entry.id} {words}." in text
        state = outbox.inspector.get(entry.id).state
        assert state == {"yes": "rewarded", "no": "reward_unconfirmed"}[granted]
        assert owner.post(url, data={"granted": "perhaps"}).status_code == 400


@pytest.fixture
def served(app: Flask) -> t.Iterator[str]:
    """The site, behind a prefix."""
    mounted = DispatcherMiddleware(Flask("nothing"), {"/game": app})
    server = make_server("127.0.0.1", 0, mounted, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/game"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_owner_repairs_an_event(
    browser: Browser,
    app: Flask,
    served: str,
    mmolove_sandbox: SiteSandbox,
    width: int,
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    context.request.get(f"{served}/own")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{served}/mmolove/")
    assert fits(page)
    expect(page.get_by_text("Nobody has signed up with a token yet")).to_be_visible()
    mmolove_sandbox.sandbox.faults = Faults(fail=422)
    sign_up(app, mmolove_sandbox, "7")
    page.reload()
    expect(
        page.get_by_role("img", name="Today: arrived 0, signed up 1")
    ).to_be_visible()
    page.get_by_role("link", name="Rejected: 1").click()
    page.wait_for_load_state()
    assert fits(page)
    page.get_by_role("link", name="1 registered").click()
    expect(page.get_by_text("HTTP 422", exact=True)).to_be_visible()
    mmolove_sandbox.sandbox.faults = Faults()
    page.get_by_role("link", name="Send it again").click()
    page.get_by_role("button", name="Send event 1 again").click()
    expect(page.get_by_text("Event 1 will be sent again.")).to_be_visible()
    expect(page.get_by_text("accepted accepted by MMOLove.")).to_be_visible()
    page.wait_for_load_state()
    assert fits(page)
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_role("img", name="accepted 1 (100%").first).to_be_visible()
    assert complaints == []
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "scheme"),
    [(390, "light"), (390, "dark"), (720, "light"), (1280, "light"), (1280, "dark")],
)
def test_each_page_can_be_read_by_everybody(
    browser: Browser,
    app: Flask,
    served: str,
    mmolove_sandbox: SiteSandbox,
    width: int,
    scheme: t.Literal["light", "dark"],
) -> None:
    rejected = reject(app)
    players = [f"player-{number}" for number in range(60)]
    sign_up(app, mmolove_sandbox, "unlucky", *players)
    token = mmolove_sandbox.mint()
    with app.test_request_context():
        qualify("unlucky")
        registered("8", token=mmolove_sandbox.sandbox.referrals[0].token)
        referrer.remember(token, "a-referrer-with-a-long-id@address")
        registered("friend", token=token)
    mmolove_sandbox.sandbox.faults = Faults(fail=503)
    sign_up(app, mmolove_sandbox, "a-player-with-an-id-that-is-as-long-as-an@address")
    viewport: t.Any = {"width": width, "height": 844}
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    context.request.get(f"{served}/own")
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    outbox = app.extensions["mmolove"].outbox
    last = outbox.last_row()
    unconfirmed = outbox.of("unlucky", False)["qualified"].id
    ignored = outbox.of("8", False)["registered"].id
    page.goto(f"{served}/mmolove/events/{unconfirmed}/reward")
    expect(page.get_by_role("button", name="It was granted")).to_be_visible()
    for path in (
        "",
        "events",
        "events?state=rejected",
        "events?player=nobody",
        "events?event=registered&since=2020-01-01&until=9999-12-31",
        f"events/{unconfirmed}",
        f"events/{ignored}",
        f"events/{rejected}",
        f"events/{last}",
        f"events/{rejected}/retry",
        f"events/{rejected}/dismiss",
        f"events/{unconfirmed}/reward",
        "retry",
        "?refresh=30",
    ):
        page.goto(f"{served}/mmolove/{path}")
        assert fits(page), path
        assert page.evaluate(NOTHING_SCROLLS_ASIDE), path
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        height = page.evaluate("document.documentElement.scrollHeight")
        assert height < 9000, path
    assert complaints == []
    context.close()
