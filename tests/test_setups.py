"""Every way in which a site can be set up so that referrals are lost or wait for ever,
and what reports each: ``docs/reference/setups.md`` has the same table.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask import request
from flask.cli import ScriptInfo

from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import new_in_session
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.clock import milliseconds
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

DOCS = Path(__file__).parents[1] / "docs"


class Site:
    """A correct site, which a case then spoils."""

    def __init__(self, make_app: MakeApp, sandbox: SiteSandbox) -> None:
        self._make_app = make_app
        self.sandbox = sandbox
        self.mmolove = MMOLove()
        self.app = Flask("not made yet")

    def make(self, reward: bool = True, **settings: t.Any) -> None:
        if reward:
            self.mmolove.reward(grant)
        self.app = self._make_app(self.mmolove, **settings)
        self.app.register_blueprint(invitations)
        page = self.mmolove.dashboard(access=lambda: True)
        self.app.register_blueprint(page, url_prefix="/mmolove")

    def sign_up(self, *players: str, token: str | None = None) -> None:
        with self.app.app_context():
            for player in players:
                registered(player, token=token or self.sandbox.mint())

    def qualify(self, *players: str) -> None:
        self.sign_up(*players)
        with self.app.app_context():
            for player in players:
                qualify(player)

    def run(self, name: str) -> tuple[int, str]:
        info = ScriptInfo(create_app=lambda: self.app)
        result = CliRunner().invoke(command, [name], obj=info)
        return result.exit_code, result.output

    @property
    def page(self) -> str:
        return self.app.test_client().get("/mmolove/").text


def grant(referral: t.Any) -> None:
    pass


def other_grant(referral: t.Any) -> None:
    pass


def failing_grant(referral: t.Any) -> None:
    raise RuntimeError("no such item")


class Setup(t.NamedTuple):
    """One way to lose referrals.

    :param name: Its name in the docs.
    :param spoil: Sets the site up like that.
    :param check: The mark and a part of the finding in ``check``.
    :param status: A part of what ``status`` and the dashboard say; empty where they
        cannot know.
    :param log: A part of what is logged.
    """

    name: str
    spoil: t.Callable[[Site], object]
    check: tuple[str, str]
    status: str = ""
    log: str = ""


def no_key(site: Site) -> None:
    site.make()
    site.app.secret_key = None
    site.app.test_client().get("/?mmref=token")


def no_callback(site: Site) -> None:
    site.make(reward=False)
    site.qualify("7")


def two_callbacks(site: Site) -> None:
    site.mmolove.reward(other_grant)
    site.make()


def no_invitations(site: Site) -> None:
    site.make()
    del site.app.view_functions["mmolove_invitations.follow"]


def nameless_view(site: Site) -> None:
    site.make()

    @site.app.post("/join")
    @referral_register(player=new_in_session("user_idd"))
    def join() -> str:
        return "welcome"

    client = site.app.test_client()
    client.post(f"/join?mmref={site.sandbox.mint()}")


def suddenly_nameless(site: Site) -> None:
    site.make()

    @site.app.post("/join")
    @referral_register
    def join() -> str:
        if request.args["name"] == "anna":
            registered(1)
        return "welcome"

    client = site.app.test_client()
    for name in ("anna", *["ben"] * 10):
        client.post(f"/join?name={name}&mmref={site.sandbox.mint()}")


def no_identity(site: Site) -> None:
    site.make()

    @site.app.post("/join")
    @referral_register
    def join() -> str:
        registered({"name": "anna"})
        return "welcome"

    client = site.app.test_client()
    client.post(f"/join?mmref={site.sandbox.mint()}")


def sandbox_is_down(site: Site) -> None:
    site.make()
    site.sandbox.sandbox.stop()


def wrong_order(site: Site) -> None:
    for is_asked in (True, False):
        site.make()

        @referral_register
        @site.app.post("/register")
        def register() -> str:
            return "welcome"

        if is_asked:
            site.app.test_client().post("/register")


def dry_runs(site: Site) -> None:
    site.make(TEST=True)


def unreachable(site: Site) -> None:
    site.make()
    tokens = [site.sandbox.mint() for _ in range(5)]
    site.sandbox.sandbox.stop()
    for player, token in enumerate(tokens):
        site.sign_up(str(player), token=token)


def unreachable_at_first(site: Site) -> None:
    site.make()
    token = site.sandbox.mint()
    site.sandbox.sandbox.stop()
    site.sign_up("7", token=token)


def failing_host(site: Site) -> None:
    site.make()
    site.sandbox.sandbox.faults = Faults(fail=500)
    site.sign_up(*"abcde")


def wrong_secret(site: Site) -> None:
    site.make(REFERRAL_SECRET="a typo")
    site.sign_up(*"abc")


def wrong_server(site: Site) -> None:
    site.make(SERVER_ID="nobody")
    site.sign_up(*"abc")


def nothing_delivers(site: Site) -> None:
    site.make(DELIVERY="manual")
    state = site.app.extensions["mmolove"]
    report = state.recorder.report("7", None, "registered")
    long_ago = milliseconds() - 3_600_000
    state.recorder.record(report._replace(token="token", moment=long_ago))


def wrong_clock(site: Site) -> None:
    site.make()
    site.sandbox.sandbox.faults = Faults(clock=400)
    site.sign_up("7")


def unreadable_spool(site: Site) -> None:
    site.make()
    state = site.app.extensions["mmolove"]
    file = state.spool.write(state.recorder.report("7", None, "registered"))
    file.write_bytes(b"a torn page")
    state.make_delivery().drain()


def junk_token(site: Site) -> None:
    site.make()
    site.sign_up("7")
    site.sign_up("8", token="junk")


def failing_rewards(site: Site) -> None:
    site.make(reward=False)
    site.mmolove.reward(failing_grant)
    site.qualify(*"abc")


def failing_reward(site: Site) -> None:
    site.make(reward=False)
    site.mmolove.reward(failing_grant)
    site.qualify("7")


def no_referrer(site: Site) -> None:
    site.make()
    site.qualify("7")


def unwritable(site: Site) -> None:
    site.make()
    outbox = site.app.extensions["mmolove"].outbox
    outbox.create()
    with outbox._db.reading() as db:
        db.execute("PRAGMA query_only = ON")


def switched_off(site: Site) -> None:
    site.make(ENABLED=False)


SETUPS = [
    Setup(
        "The site has no `SECRET_KEY`",
        no_key,
        ("FAIL", "SECRET_KEY"),
        "Tokens cannot be kept",
        "A token cannot be kept",
    ),
    Setup(
        "There is no reward callback",
        no_callback,
        ("warn", "no @mmolove.reward is registered"),
        "1 reward failed",
        "the site has no @mmolove.reward",
    ),
    Setup(
        "There are two reward callbacks",
        two_callbacks,
        ("FAIL", "a site has one callback"),
        "more than one reward callback",
        "is not called any more",
    ),
    Setup(
        "There is no page for invite links",
        no_invitations,
        ("warn", "app.register_blueprint(invitations)"),
    ),
    Setup(
        "A signup view names nobody: a wrong `player=`",
        nameless_view,
        ("FAIL", "there is no 'user_idd' in the session"),
        "there is no 'user_idd' in the session",
        "there is no 'user_idd' in the session",
    ),
    Setup(
        "A signup view that named players before names nobody",
        suddenly_nameless,
        ("warn", "10 visitors with a token posted to it since"),
        "10 visitors with a token posted to it",
        "it named 1 before",
    ),
    Setup(
        "Players have no identity",
        no_identity,
        ("FAIL", "has no identity"),
        "has no identity",
        "has neither an id nor a get_id()",
    ),
    Setup(
        "The sandbox does not run",
        sandbox_is_down,
        ("FAIL", "flask mmolove sandbox"),
    ),
    Setup(
        "`@referral_register` stands above the route",
        wrong_order,
        ("warn", f"The view 'register' in {__name__} was registered before"),
        "",
        "swap the two lines: first @app.route(...), or what stands for it",
    ),
    Setup(
        "`MMOLOVE_TEST` is on",
        dry_runs,
        ("warn", "every event is a dry run"),
        "nobody is counted or rewarded",
    ),
    Setup(
        "MMOLove cannot be reached",
        unreachable,
        ("FAIL", "No response came"),
        "has been unreachable",
        "cannot be reached",
    ),
    Setup(
        "MMOLove cannot be reached at the first signup",
        unreachable_at_first,
        ("FAIL", "No response came"),
        "1 event could not be sent",
    ),
    Setup(
        "MMOLove fails",
        failing_host,
        ("FAIL", "HTTP 500"),
        "has been failing",
        "MMOLove fails",
    ),
    Setup(
        "The secret is wrong",
        wrong_secret,
        ("FAIL", "MMOLOVE_REFERRAL_SECRET"),
        "has refused this site's events",
        "MMOLOVE_REFERRAL_SECRET",
    ),
    Setup(
        "The server id is wrong, or referrals are switched off at MMOLove",
        wrong_server,
        ("FAIL", "MMOLOVE_SERVER_ID"),
        "has refused this site's events",
        "MMOLOVE_SERVER_ID",
    ),
    Setup(
        "Nothing delivers: no thread, no worker, no cron",
        nothing_delivers,
        ("FAIL", "no worker was ever seen"),
        "Delivery has stalled",
    ),
    Setup(
        "The machine's clock is off",
        wrong_clock,
        ("FAIL", "behind MMOLove's"),
        "behind MMOLove's",
        "Set the clock",
    ),
    Setup(
        "A spooled event cannot be imported",
        unreadable_spool,
        ("warn", "could not be imported"),
        "could not be imported",
        "cannot be imported",
    ),
    Setup(
        "An event was rejected",
        junk_token,
        ("warn", "1 rejected"),
        "1 rejected",
        "is rejected",
    ),
    Setup(
        "The reward callback fails for three rewards",
        failing_rewards,
        ("FAIL", "no such item"),
        "RuntimeError: no such item",
        "RuntimeError: no such item",
    ),
    Setup(
        "The reward callback fails for one or two rewards",
        failing_reward,
        ("warn", "no such item"),
        "1 reward failed: RuntimeError: no such item",
        "RuntimeError: no such item",
    ),
    Setup(
        "A reward was granted and no referrer is known",
        no_referrer,
        ("ok", ""),
        "had no known referrer",
    ),
    Setup(
        "The outbox cannot be written",
        unwritable,
        ("FAIL", "attempt to write a readonly database"),
    ),
]


@pytest.fixture
def site(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Site:
    return Site(make_app, mmolove_sandbox)


def test_a_correct_site_has_no_findings(site: Site) -> None:
    site.make()

    @site.app.post("/join")
    @referral_register
    def join() -> str:
        registered("7")
        return "welcome"

    client = site.app.test_client()
    client.post(f"/join?mmref={site.sandbox.mint()}")
    code, output = site.run("check")
    assert code == 0
    assert "join has named 1 referred player, the last 0 seconds ago" in output
    assert not re.search("^(warn|FAIL)", output, re.M)
    assert "Everything works" in site.run("status")[1]
    assert "Everything works" in site.page


def test_a_view_that_is_none_any_more_is_not_reported(site: Site) -> None:
    nameless_view(site)
    site.make()
    site.app.post("/join", endpoint="join")(lambda: "welcome")
    assert "there is no 'user_idd'" not in site.run("check")[1]
    assert "Everything works" in site.run("status")[1]


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.spoil.__name__)
def test_what_loses_referrals_is_reported(
    site: Site, setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.spoil(site)
    messages = " ".join(caplog.messages)
    code, output = site.run("check")
    mark, words = setup.check
    lines = [line for line in output.splitlines() if line.startswith(mark)]
    assert any(words in line for line in lines), output
    assert code == (mark == "FAIL"), output
    assert setup.log in messages
    for text in (site.run("status")[1], site.page.replace("&#39;", "'")):
        assert setup.status in text
        if setup.status and mark != "ok":
            assert "Everything works" not in text


def test_a_site_that_is_switched_off_is_reported(site: Site) -> None:
    site.make(ENABLED=False)
    code, output = site.run("check")
    assert code == 1
    assert "MMOLOVE_ENABLED is false" in output


def test_the_docs_have_the_same_table() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS / "reference" / "setups.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    found = {
        name: (check, bool(status), bool(log)) for name, check, status, log in rows
    }
    for setup in SETUPS:
        check, status, log = found[setup.name]
        assert check == f"`{setup.check[0]}`"
        assert (status, log) == (bool(setup.status), bool(setup.log))
