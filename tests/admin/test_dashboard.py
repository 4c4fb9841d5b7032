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
from playwright.sync_api import Browser
from playwright.sync_api import expect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from flask_mmolove import ConfigError
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
        for path in ("retry", f"events/{id}/retry", f"events/{id}/reward", ""):
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
        none = "arrived 0, signed up 0, accepted 0, qualified 0, rewarded 0</title>"
        assert owner.get("/mmolove/").text.count(none) == 3
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
            assert not re.search(r'(?:src|href|action)="(?!/mmolove/)', response.text)

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


class TestActions:
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
        for path in ("retry", f"events/{id}/retry", f"events/{id}/reward"):
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

        assert "1 failed reward will be granted now." in send(owner, url).text
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
        words = {"yes": "is recorded as granted", "no": "will be granted now"}[granted]
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
    today = page.get_by_role("img", name="Today: arrived 0, signed up 0")
    expect(today).to_be_visible()
    mmolove_sandbox.sandbox.faults = Faults(fail=422)
    sign_up(app, mmolove_sandbox, "7")
    page.reload()
    expect(
        page.get_by_role("img", name="Today: arrived 0, signed up 1")
    ).to_be_visible()
    page.get_by_role("link", name="1 rejected").click()
    page.wait_for_load_state()
    assert fits(page)
    page.get_by_role("link", name="1 registered").click()
    expect(page.get_by_text("HTTP 422")).to_be_visible()
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
    with app.app_context():
        qualify("unlucky")
        registered("8", token=mmolove_sandbox.sandbox.referrals[0].token)
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
        "retry",
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
