from __future__ import annotations

import io
import pydoc
import re
import subprocess
import sys
import typing as t
from pathlib import Path
from types import ModuleType

import pytest
from blinker import NamedSignal
from flask import Flask
from flask.views import MethodView

import flask_mmolove
from flask_mmolove import ConfigError
from flask_mmolove import current_mmref
from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import MMOLoveError
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.outbox.report import Report
from flask_mmolove.state import current_state
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

NAMES = {
    "invitations",
    "new_by_field",
    "new_by_signal",
    "new_in_json",
    "new_in_session",
    "new_login",
    "new_row",
    "MMOLove",
    "referral_register",
    "registered",
    "qualify",
    "current_mmref",
    "current_referrer",
    "ReferralClient",
    "sign_referral_body",
    "Outcome",
    "SignedBody",
    "Verdict",
    "Referral",
}
ERRORS = {
    "MMOLoveError",
    "ConfigError",
    "IdentityError",
    "EventError",
    "ActionError",
    "RewardLater",
    "SignatureError",
    "OutboxError",
    "OutboxBusy",
}
SIGNALS = {
    "referral_captured",
    "delivery_paused",
    "delivery_resumed",
    "event_retried",
    "player_forgotten",
    "reward_failed",
    "event_recorded",
    "event_accepted",
    "event_ignored",
    "event_rejected",
    "player_rewarded",
    "reward_raised",
}


# -- the public names ------------------------------------------------------------------


def test_the_public_names_are_these_and_no_others() -> None:
    public = {
        name
        for name, value in vars(flask_mmolove).items()
        if not name.startswith("_") and not isinstance(value, type(sys))
    }
    assert public == NAMES | ERRORS | SIGNALS
    assert {*flask_mmolove.__all__} == public


def test_help_shows_the_functions_and_classes() -> None:
    text = pydoc.plain(pydoc.render_doc(flask_mmolove))
    for name in NAMES - {"invitations", "new_login"} | ERRORS:
        assert re.search(rf"^    (class )?{name}\b", text, re.M), name


def test_each_public_name_has_a_docstring() -> None:
    for name in NAMES - {"invitations"} | ERRORS:
        assert getattr(flask_mmolove, name).__doc__, name


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_is_one_of_ours(name: str) -> None:
    assert issubclass(getattr(flask_mmolove, name), MMOLoveError)


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_every_signal_bears_its_own_name(name: str) -> None:
    signal = getattr(flask_mmolove, name)
    assert isinstance(signal, NamedSignal)
    assert signal.name == name.replace("_", "-")


def test_a_caller_may_catch_a_wrong_event_as_a_value_error() -> None:
    assert issubclass(flask_mmolove.EventError, ValueError)
    assert issubclass(flask_mmolove.OutboxBusy, flask_mmolove.OutboxError)


def test_importing_it_loads_no_test_tool_and_nothing_that_only_an_app_needs() -> None:
    script = """
import sys
import flask_mmolove
for name in ("pytest", "sqlite3", "sqlalchemy", "flask_login", "requests", "celery"):
    assert name not in sys.modules, name
parts = ("delivery", "outbox.", "recording.", "settings", "wiring")
names = [name.removeprefix("flask_mmolove.") for name in sys.modules]
loaded = sorted(name for name in names if name.startswith(parts))
wanted = ["outbox.invitation", "outbox.report", "outbox.states", "recording.pending"]
assert loaded == wanted, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_a_site_that_others_deliver_for_loads_only_what_its_visitors_need(
    tmp_path: Path,
) -> None:
    script = """
import sys
from flask import Flask
from flask_mmolove import MMOLove
app = Flask("site", instance_path=sys.argv[1])
app.config.update(MMOLOVE_SERVER_ID="srv", MMOLOVE_REFERRAL_SECRET="s")
app.config.update(SECRET_KEY="k", MMOLOVE_DELIVERY="manual")
MMOLove(app)
app.add_url_rule("/", "home", lambda: "hello")
assert app.test_client().get("/?mmref=token").status_code == 200
late = ["admin.", "delivery.step", "outbox.inspector", "protocol.signature"]
late += ["protocol.transport", "sandbox"]
names = tuple(f"flask_mmolove.{name}" for name in late)
loaded = [name for name in sys.modules if name.startswith(names)]
assert not loaded, loaded
app.extensions["mmolove"].outbox.close()
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, check=True, timeout=30)


@pytest.mark.parametrize("where", ["db", "url"])
@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("1.4.54", r"SQLAlchemy 2\.0\.16 or later, and 1\.4\.54 is installed"),
        ("2.0.0b4", r"2\.0\.0b4 is installed"),
        ("2.0.15", r"2\.0\.15 is installed"),
        (None, "which needs SQLAlchemy"),
    ],
)
def test_a_sqlalchemy_that_is_missing_or_too_old_is_told_at_the_start(
    make_app: MakeApp,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    version: str | None,
    told: str,
) -> None:
    old = ModuleType("sqlalchemy")  # has nothing of what our tables need
    old.__version__ = version  # type: ignore[attr-defined]
    modules = {name for name in sys.modules if name.startswith("sqlalchemy.")}
    ours = {"flask_mmolove.outbox.sql.site", "flask_mmolove.outbox.sql.store"}
    for name in modules | (ours & sys.modules.keys()):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", old if version else None)
    with pytest.raises(ConfigError, match=told) as caught:
        if where == "db":
            MMOLove(db=t.cast(t.Any, object()))
        else:
            make_app(OUTBOX="postgresql://game@127.0.0.1:1/game")
    assert "pip install 'Flask-MMOLove[sqlalchemy]'" in str(caught.value)


# -- meeting an app --------------------------------------------------------------------


def test_an_app_may_come_now_or_later(tmp_path: Path) -> None:
    keys = {"MMOLOVE_SERVER_ID": "srv-1", "MMOLOVE_REFERRAL_SECRET": "s"}
    now, later = (Flask(__name__, instance_path=str(tmp_path)) for _ in range(2))
    for app in (now, later):
        app.config.update(keys)
    MMOLove(now)
    mmolove = MMOLove()
    assert "mmolove" not in later.extensions
    mmolove.init_app(later)
    assert now.extensions["mmolove"].settings == later.extensions["mmolove"].settings


@pytest.mark.parametrize("same", [True, False])
def test_a_second_registration_is_refused(make_app: MakeApp, same: bool) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove)
    state = app.extensions["mmolove"]
    with pytest.raises(ConfigError, match="registered on this Flask app already"):
        (mmolove if same else MMOLove()).init_app(app)
    assert app.extensions["mmolove"] is state


def test_the_settings_are_read_once(app: Flask) -> None:
    app.config["MMOLOVE_SERVER_ID"] = "another"
    app.config["MMOLOVE_COOKIE_DAYS"] = "junk"
    assert app.extensions["mmolove"].settings.server_id == "demo-server"
    assert app.test_client().get("/?mmref=tok").status_code == 404


def test_nothing_of_an_app_is_kept_on_the_object(make_app: MakeApp) -> None:
    mmolove = MMOLove()
    before = dict(vars(mmolove))
    make_app(mmolove)
    make_app(mmolove, COOKIE_DAYS=3)
    assert vars(mmolove) == before


def test_meeting_an_app_makes_no_file_and_no_thread(tmp_path: Path) -> None:
    script = """
import sys, threading
from flask import Flask
from flask_mmolove import MMOLove
app = Flask("site", instance_path=sys.argv[1])
app.config.update(MMOLOVE_SERVER_ID="srv-1", MMOLOVE_REFERRAL_SECRET="s")
MMOLove(app)
assert threading.active_count() == 1, threading.enumerate()
"""
    folder = tmp_path / "instance"
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=30)
    assert not folder.exists()


def test_two_apps_with_one_object_report_to_their_own_places(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, tmp_path: Path
) -> None:
    mmolove = MMOLove()
    here = make_app(mmolove)
    elsewhere = make_app(mmolove, OUTBOX=tmp_path / "other.db", DELIVERY="manual")
    with here.app_context():
        registered(1, token=mmolove_sandbox.mint())
    with elsewhere.app_context():
        registered(2, token=mmolove_sandbox.mint())
        assert qualify(1) is None
        assert qualify(2) is not None
    with here.app_context():
        assert qualify(2) is None
    assert mmolove_sandbox.reported == [("registered", "1")]


def test_in_a_test_nothing_goes_where_the_fixture_does_not_reach(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    app = make_app(ENDPOINT="https://mmolove.invalid/events")
    with app.app_context():
        registered(1, token=mmolove_sandbox.mint())
    assert "MMOLove(app) has read its settings before" in log.getvalue()


def test_a_callback_may_be_named_before_or_after_the_app_is_met(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove)
    given: list[str] = []

    @mmolove.reward
    def grant(referral: Referral) -> None:
        given.append(referral.identity)

    @mmolove.identity
    def identity(player: t.Any) -> str:
        return f"p-{player}"

    with app.app_context():
        registered(1, token=mmolove_sandbox.mint())
        qualify(1)
    assert given == ["p-1"]


def test_the_decorators_give_the_function_back() -> None:
    mmolove = MMOLove()

    def function(*args: t.Any) -> None:
        """What the site wrote."""

    assert mmolove.reward(function) is function
    assert mmolove.reward(at_most_once=True)(function) is function
    assert mmolove.identity(function) is function
    assert mmolove.consent(function) is function


@pytest.mark.parametrize(
    "call", [lambda: qualify(1), lambda: registered(1, token="tok")]
)
def test_an_app_without_it_is_told_so(call: t.Callable[[], object]) -> None:
    with Flask(__name__).app_context():
        with pytest.raises(MMOLoveError, match=r"mmolove\.init_app\(app\)"):
            call()


def test_a_site_that_switched_it_off_does_nothing(
    tmp_path: Path, mmolove_sandbox: SiteSandbox
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    app.config.update(MMOLOVE_ENABLED=False, SECRET_KEY="not a secret")
    MMOLove(app)
    assert app.before_request_funcs.get(None) is None
    with app.test_request_context("/?mmref=tok"):
        app.preprocess_request()
        assert current_mmref() is None
        registered(1, token="tok")
        assert qualify(1) is None
    assert not (tmp_path / "instance").exists()


def test_a_site_that_switched_it_off_still_erases(make_app: MakeApp) -> None:
    mmolove = MMOLove()
    with make_app(mmolove).app_context():
        state = current_state()
        for player in ("7", "8"):
            registered(player, token=f"tok{player}")
        state.spool.write(Report("7", "tok9", ("registered",), False, 1))
    with make_app(mmolove, ENABLED=False).app_context():
        mmolove.forget("7")
    assert state.spool.read() == []
    assert [entry.identity for entry in state.outbox.inspector.page()] == ["8"]


def test_an_invite_link_of_a_site_that_switched_it_off_leads_home(
    make_app: MakeApp,
) -> None:
    mmolove = MMOLove()
    app = make_app(mmolove, ENABLED=False)
    app.register_blueprint(invitations)
    with app.test_request_context():
        link = mmolove.invite("7", external=False)
    assert app.test_client().get(link).location == "/"


# -- what @referral_register goes on ---------------------------------------------------


class Join(MethodView):
    def post(self) -> str:
        return "joined"


@pytest.mark.parametrize("thing", [Join, object, 7, "view", ["view"], object()])
def test_only_a_function_can_be_decorated(thing: t.Any) -> None:
    for decorate in (referral_register, referral_register(player=lambda r: None)):
        with pytest.raises(TypeError, match="goes on a view function") as caught:
            decorate(thing)
        assert "decorators = [referral_register]" in str(caught.value)


def test_player_is_named() -> None:
    with pytest.raises(TypeError):
        referral_register(lambda: "", lambda response: None)  # type: ignore[call-overload]


def test_a_player_that_cannot_be_called_is_an_error_at_import() -> None:
    with pytest.raises(TypeError):
        referral_register(player="anna")(lambda: "")  # type: ignore[call-overload]


def test_a_player_that_is_not_named_is_an_error_that_says_so() -> None:
    def find(response: t.Any) -> None: ...

    def join() -> str:
        return "joined"

    with pytest.raises(TypeError, match="player="):
        referral_register(find)(join)


@pytest.mark.parametrize("bare", [True, False])
def test_a_decorated_view_keeps_its_name_and_words(bare: bool) -> None:
    def join() -> str:
        """Where players come from."""
        return "joined"

    view = referral_register(join) if bare else referral_register()(join)
    assert view.__name__ == "join"
    assert view.__doc__ == "Where players come from."
