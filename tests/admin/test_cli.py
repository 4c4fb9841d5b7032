from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo
from sqlalchemy import create_engine
from sqlalchemy import inspect
from sqlalchemy import MetaData
from sqlalchemy import URL

from flask_mmolove import MMOLove
from flask_mmolove import Outcome
from flask_mmolove import qualify
from flask_mmolove import ReferralClient
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.outbox import Invitation
from flask_mmolove.outbox import Note
from flask_mmolove.outbox.sql.tables import tables
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from flask_mmolove.sandbox import Faults
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp
from tests.outbox.recording import add

Run = t.Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def run(app: Flask, *args: str) -> Result:
        info = ScriptInfo(create_app=lambda: app)
        return app.test_cli_runner().invoke(command, args, obj=info)

    return run


class TestCheck:
    def test_all_is_well(self, app: Flask, run: Run) -> None:
        result = run(app, "check")
        assert result.exit_code == 0
        lines = [line.split()[:2] for line in result.output.splitlines()]
        names = ["settings", "session", "outbox", "clock", "registered", "qualified"]
        assert [name for mark, name in lines if mark == "ok"] == names
        # What may be meant is no failure.
        others = [line for line in lines if line[0] != "ok"]
        assert others == [["warn", name] for name in ("reward", "invite", "signup")]

    def test_a_site_that_keeps_no_session_is_found(self, app: Flask, run: Run) -> None:
        app.config["SECRET_KEY"] = None
        result = run(app, "check")
        assert result.exit_code == 1
        assert "FAIL  session" in result.output
        assert "SECRET_KEY" in result.output

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"REFERRAL_SECRET": "a typo"}, ["HTTP 401", "MMOLOVE_REFERRAL_SECRET"]),
            ({"SERVER_ID": "nobody"}, ["HTTP 404", "MMOLOVE_SERVER_ID"]),
            ({"ENDPOINT": "http://127.0.0.1:1/"}, ["refused", "No answer came"]),
        ],
    )
    def test_what_is_wrong_is_said_in_a_line_with_the_key(
        self,
        make_app: MakeApp,
        run: Run,
        settings: dict[str, str],
        words: list[str],
    ) -> None:
        result = run(make_app(**settings), "check")
        assert result.exit_code == 1
        (line,) = [x for x in result.output.splitlines() if x.startswith("FAIL  reg")]
        assert all(word in line for word in words)
        assert "a typo" not in result.output

    def test_an_outbox_that_cannot_be_written_is_found(
        self, app: Flask, run: Run
    ) -> None:
        outbox = app.extensions["mmolove"].outbox
        outbox.create()
        with outbox._db.reading() as db:
            db.execute("PRAGMA query_only = ON")
        result = run(app, "check")
        assert result.exit_code == 1
        assert "FAIL  outbox" in result.output

    def test_an_outbox_that_cannot_be_used_is_found(
        self, make_app: MakeApp, run: Run, tmp_path: Path
    ) -> None:
        result = run(make_app(OUTBOX=tmp_path), "check")
        assert result.exit_code == 1
        assert "FAIL  outbox      The outbox" in result.output

    def test_a_wrong_clock_is_found(
        self, app: Flask, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        mmolove_sandbox.sandbox.faults = Faults(clock=200)
        result = run(app, "check")
        assert result.exit_code == 1
        # A Date has whole seconds, and the way there takes its time.
        assert re.search(r"FAIL  clock +(19|20)\d s behind MMOLove's", result.output)

    def test_it_writes_nothing(
        self, app: Flask, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        findings = json.loads(run(app, "check", "--json").output)
        assert all(finding["ok"] or finding["may_be_meant"] for finding in findings)
        outcomes = [a.outcome for a in mmolove_sandbox.sandbox.arrivals]
        assert outcomes == ["test", "test"]


class TestStatus:
    def test_nothing_yet(self, app: Flask, run: Run) -> None:
        assert "No events yet" in run(app, "status").output

    def test_it_counts_and_says_what_waits(
        self, make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        app = make_app(DELIVERY="manual")
        with app.app_context():
            registered(7, token=mmolove_sandbox.mint())
            qualify(7)
        output = run(app, "status").output
        assert "pending          2  to be sent" in output
        assert "The oldest pending event has waited" in output
        data = json.loads(run(app, "status", "--json").output)
        assert data["counts"]["pending"] == 2
        assert data["waiting_for_registered"] == 1
        assert data["oldest_pending_seconds"] >= 0

    def test_trouble_is_named(
        self, make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        mmolove_sandbox.sandbox.faults = Faults(fail=503)
        app = make_app()
        with app.app_context():
            for player in range(6):
                registered(player, token=mmolove_sandbox.mint())
        output = run(app, "status").output
        assert output.count("MMOLove has answered with failures for") == 1
        assert output.count("HTTP 503") == 1
        health = json.loads(run(app, "status", "--json").output)["health"]
        assert health["level"] == "bad"


class TestInitDB:
    def test_it_makes_the_tables_once_and_says_where(
        self, make_app: MakeApp, run: Run, url: URL
    ) -> None:
        shown = url.render_as_string(hide_password=True)
        app = make_app(OUTBOX=url.render_as_string(hide_password=False))
        assert run(app, "init-db").output == f"The outbox was made: {shown}\n"
        engine = create_engine(url)
        made = {table.name for table in tables(MetaData())}
        assert {*inspect(engine).get_table_names()} == made
        engine.dispose()
        words = f"The outbox is there already: {shown}\n"
        assert run(app, "init-db").output == words

    def test_a_file_needs_no_command(
        self, app: Flask, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        path = mmolove_sandbox.config["MMOLOVE_OUTBOX"]
        assert run(app, "init-db").output.splitlines() == [
            f"The outbox was made: {path}",
            "A file is also made by itself, when it is first needed.",
        ]
        assert Path(path).is_file()

    def test_a_database_that_is_not_there_is_one_line(
        self, make_app: MakeApp, run: Run
    ) -> None:
        url = "postgresql+psycopg://game:s3cret@127.0.0.1:1/game"
        result = run(make_app(OUTBOX=url), "init-db")
        assert result.exit_code == 1
        assert result.output.startswith("Error: The outbox in postgresql+psycopg://")
        assert "s3cret" not in result.output


class TestDeliver:
    def test_it_sends_what_is_due(
        self, make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        app = make_app(DELIVERY="manual")
        with app.app_context():
            registered(8, token="junk")
            registered(7, token=mmolove_sandbox.mint())
        words = "Waiting for you: 1 rejected. See 'flask mmolove retry --list'."
        output = run(app, "deliver").output
        assert output == f"1 accepted, 1 rejected; 0 pending.\n{words}\n"
        assert mmolove_sandbox.reported == [("registered", "7")]
        assert "Nothing was due; 0 pending." in run(app, "deliver").output

    def test_several_are_on_their_way_at_once(
        self,
        make_app: MakeApp,
        run: Run,
        mmolove_sandbox: SiteSandbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        app = make_app(DELIVERY="manual", CONCURRENCY=2)
        with app.app_context():
            for player in range(2):
                registered(player, token=mmolove_sandbox.mint())
        meet, send = threading.Barrier(2), ReferralClient.send

        def send_together(client: ReferralClient, body: bytes) -> Outcome:
            meet.wait(20)
            return send(client, body)

        monkeypatch.setattr(ReferralClient, "send", send_together)
        assert run(app, "deliver").output.startswith("2 accepted; 0 pending.")

    def test_an_outage_is_no_success(
        self, make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        mmolove_sandbox.sandbox.faults = Faults(fail=503)
        app = make_app(DELIVERY="manual")
        with app.app_context():
            for player in range(6):
                registered(player, token=mmolove_sandbox.mint())
        result = run(app, "deliver")
        assert result.exit_code == 1
        first, second = result.output.splitlines()
        assert first == "6 tried, none accepted; 6 pending."
        assert second.startswith("MMOLove has answered with failures for")

    def test_as_a_service_it_goes_on_until_it_is_told_to_stop(
        self, tmp_path: Path, mmolove_sandbox: SiteSandbox
    ) -> None:
        (tmp_path / "game.py").write_text(
            "from flask import Flask\nfrom flask_mmolove import MMOLove\n"
            "app = Flask(__name__)\napp.config.from_prefixed_env()\nMMOLove(app)\n"
        )
        environment = {**os.environ, "FLASK_MMOLOVE_DELIVERY": "manual"}
        for key, value in mmolove_sandbox.config.items():
            environment.setdefault(f"FLASK_{key}", json.dumps(str(value)))
        flask = [sys.executable, "-m", "flask", "--app", "game"]
        process = subprocess.Popen(
            [*flask, "mmolove", "deliver", "--forever"],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "until stopped" in process.stderr.readline()
        outbox = SQLiteOutbox(mmolove_sandbox.config["MMOLOVE_OUTBOX"])
        token = mmolove_sandbox.mint()
        add(outbox, token=token, now=10**12, server_id="demo-server")
        outbox.close()
        deadline = time.monotonic() + 60
        while not mmolove_sandbox.reported and time.monotonic() < deadline:
            time.sleep(0.1)  # it is another process, that looks by itself
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert mmolove_sandbox.reported == [("registered", "7")]


class TestRetry:
    @pytest.fixture
    def rejected(self, make_app: MakeApp) -> Flask:
        app = make_app()
        with app.app_context():
            registered(7, token="junk")
        return app

    def test_what_was_rejected_is_listed_with_its_words_and_a_hint(
        self, rejected: Flask, run: Run
    ) -> None:
        output = run(rejected, "retry", "--list").output
        assert "registered  player 7  rejected" in output
        assert "unknown_token" in output
        assert "MMOLOVE_SERVER_ID" in output
        (entry,) = json.loads(run(rejected, "retry", "--list", "--json").output)
        assert (entry["status"], entry["state"]) == (404, "rejected")

    def test_that_none_is_leads_to_what_waits(self, app: Flask, run: Run) -> None:
        output = run(app, "retry").output
        assert output.startswith(
            "0 rejected events will be sent again.\nWhat is pending"
        )

    def test_it_is_sent_again_by_id_or_all(
        self, rejected: Flask, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        for args in (["1"], []):
            result = run(rejected, "retry", *args)
            assert result.output == "1 rejected event will be sent again.\n"
        assert len(mmolove_sandbox.sandbox.arrivals) == 3

    def test_an_id_that_is_not_rejected_is_said_so(
        self, rejected: Flask, run: Run
    ) -> None:
        result = run(rejected, "retry", "99")
        assert result.exit_code == 1
        assert "There is no event 99." in result.output


class TestDeliverNow:
    def test_it_sends_at_once_what_waited_for_the_breaker(
        self, make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        broken = make_app(REFERRAL_SECRET="a typo")
        with broken.app_context():
            for player in range(1, 6):
                registered(player, token=mmolove_sandbox.mint())
        assert "HTTP 401" in run(broken, "status").output
        app = make_app(DELIVERY="manual")
        mmolove_sandbox.sandbox.faults = Faults(fail=503)
        for _ in range(9):
            run(app, "deliver", "--now")
        mmolove_sandbox.sandbox.faults = Faults()
        output = run(app, "deliver").output
        assert "5 pending" in output
        assert "'flask mmolove deliver --now' sends at once" in output
        due = run(app, "show", "1").output
        assert re.search(r"^next +20", due, re.M)
        result = run(app, "deliver", "--now")
        assert result.output.startswith("5 accepted; 0 pending.")
        assert result.exit_code == 0

    def test_rewards_that_were_paused_are_granted(
        self, make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        mmolove = MMOLove()
        given: list[str] = []
        is_up = False

        @mmolove.reward
        def grant(referral: t.Any) -> None:
            if not is_up:
                raise RuntimeError("the game is down")
            given.append(referral.identity)

        app = make_app(mmolove, DELIVERY="manual")
        with app.app_context():
            for player in range(1, 5):
                registered(player, token=mmolove_sandbox.mint())
                qualify(player)
        run(app, "deliver")
        assert "Rewards have been paused" in run(app, "status").output
        is_up = True
        run(app, "deliver")
        assert given == []
        run(app, "deliver", "--now")
        assert sorted(given) == ["1", "2", "3", "4"]


class TestRewards:
    def test_a_person_decides(
        self,
        make_app: MakeApp,
        run: Run,
        mmolove_sandbox: SiteSandbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        mmolove = MMOLove()
        given: list[str] = []

        @mmolove.reward(at_most_once=True)
        def grant(referral: t.Any) -> None:
            given.append(referral.identity)
            if len(given) <= 2:
                raise RuntimeError("the game is down")

        app = make_app(mmolove)
        with app.app_context():
            for player in (7, 8):
                registered(player, token=mmolove_sandbox.mint())
                qualify(player)
        assert "rewards --paid ID\n" in run(app, "rewards").output
        listed = json.loads(run(app, "rewards", "--json").output)
        ids = {entry["identity"]: str(entry["id"]) for entry in listed}
        outbox = app.extensions["mmolove"].outbox
        entry = outbox.inspector.get(int(ids["8"]))
        outbox.renew([entry], 1 << 50)  # a process keeps it
        result = run(app, "rewards", "--again", ids["8"])
        assert "may be under way at this moment" in result.output
        outbox.renew([entry], 1)  # its lease ends
        result = run(app, "rewards", "--paid", ids["7"], "--again", ids["8"])
        assert "noted as given" in result.output
        assert given == ["7", "8", "8"]
        assert run(app, "rewards").output == "None.\n"
        result = run(app, "rewards", "--paid", ids["7"])
        assert result.exit_code == 1

    def test_all_that_failed_are_given_again_at_once(
        self,
        make_app: MakeApp,
        run: Run,
        mmolove_sandbox: SiteSandbox,
    ) -> None:
        mmolove = MMOLove()
        app = make_app(mmolove)
        with app.app_context():
            for player in (7, 8):  # set aside, because there is no callback yet
                registered(player, token=mmolove_sandbox.mint())
                qualify(player)
        given: list[str] = []

        @mmolove.reward
        def grant(referral: t.Any) -> None:
            given.append(referral.identity)

        for wrong in (["--all"], ["--again"], ["--again", "seven"]):
            assert run(app, "rewards", *wrong).exit_code == 2
        result = run(app, "rewards", "--again", "--all")
        assert result.output == "2 failed rewards will be given now.\n"
        assert sorted(given) == ["7", "8"]

    def test_status_quotes_a_callback_that_fails(
        self, make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        mmolove = MMOLove()

        @mmolove.reward
        def grant(referral: t.Any) -> None:
            raise KeyError("no such item")

        app = make_app(mmolove)
        with app.app_context():
            for player in range(1, 4):
                registered(player, token=mmolove_sandbox.mint())
                qualify(player)
                output = run(app, "status").output
                assert "no such item" in output
                assert ("Rewards have been paused" in output) == (player == 3)
        events = run(app, "show", "2").output
        assert "no such item" in events and "HTTP 200: KeyError" not in events

    def test_without_a_callback_nothing_can_be_given(
        self, app: Flask, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        with app.app_context():
            registered(7, token=mmolove_sandbox.mint())
            qualify(7)
        (entry,) = json.loads(run(app, "rewards", "--json").output)
        result = run(app, "rewards", "--again", str(entry["id"]))
        assert result.exit_code == 1
        assert "no @mmolove.reward" in result.output


def test_a_mistake_in_the_settings_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(
        "from flask import Flask\nfrom flask_mmolove import MMOLove\n"
        "app = Flask(__name__)\nMMOLove(app)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "game", "mmolove", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: MMOLOVE_SERVER_ID is not set.")
    assert "FLASK_MMOLOVE_SERVER_ID" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_app_without_mmolove_is_told_so(run: Run) -> None:
    result = run(Flask("bare"), "status")
    assert result.exit_code == 1
    assert "Did you forget mmolove.init_app(app)" in result.output


def test_switched_off_is_said(make_app: MakeApp, run: Run) -> None:
    result = run(make_app(ENABLED=False), "status")
    assert "MMOLOVE_ENABLED is false" in result.output


def test_the_sandbox_runs_without_a_site(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "mmolove", "sandbox", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        url = first.split()[-1]
        assert requests.get(url, timeout=10).status_code == 200
        link = process.stdout.readline().split()[-1]
        response = requests.get(link, allow_redirects=False, timeout=10)
        assert "/register?mmref=" in response.headers["Location"]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("secret", "line"),
    [
        ("demo-secret", "  export FLASK_MMOLOVE_REFERRAL_SECRET=demo-secret\n"),
        ("two words", "  export FLASK_MMOLOVE_REFERRAL_SECRET='two words'\n"),
        ("the site's own", "  # FLASK_MMOLOVE_REFERRAL_SECRET stays as it is\n"),
    ],
)
def test_the_sandbox_prints_lines_that_a_shell_takes(
    secret: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_MMOLOVE_REFERRAL_SECRET", "the site's own")
    # The name of the module is that of its command too.
    module = sys.modules["flask_mmolove.admin.cli.sandbox"]
    monkeypatch.setattr(module, "wait_for_a_signal", lambda: None)
    options = ["--port", "0", "--secret", secret]
    output = CliRunner().invoke(command, ["sandbox", *options]).output
    assert line in output
    assert "the site's own" not in output


class TestEvents:
    @pytest.fixture
    def site(self, make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Flask:
        app = make_app()
        with app.app_context():
            for player in ("7", "8", "=1+1"):
                registered(player, token=mmolove_sandbox.mint())
            registered("9", token="junk")
        return app

    def test_they_are_listed_newest_last(self, site: Flask, run: Run) -> None:
        lines = run(site, "events").output.splitlines()
        assert [line.split()[0] for line in lines] == ["id", "1", "2", "3", "4"]
        result = run(site, "events", "--limit", "2")
        assert "Older ones: --before 3" in result.output
        (entry,) = run(site, "events", "--json", "--before", "2").output.splitlines()
        assert json.loads(entry)["identity"] == "7"

    def test_they_are_filtered(self, site: Flask, run: Run) -> None:
        for args in (["--state", "rejected"], ["--player", "9"]):
            _, line = run(site, "events", *args).output.splitlines()
            assert line.split()[:4] == ["4", "registered", "9", "rejected"]
        assert "No events match." in run(site, "events", "--player", "x").output

    def test_nothing_yet(self, app: Flask, run: Run) -> None:
        assert run(app, "events").output == "No events yet.\n"

    def test_a_table_fits_the_terminal(
        self, site: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "40")
        lines = run(site, "events").output.splitlines()
        assert {len(line) for line in lines} == {40}

    def test_where_there_is_no_terminal_nothing_is_cut(
        self, site: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("COLUMNS", raising=False)
        assert '"unknown_token"}' in run(site, "events").output

    def test_it_follows_what_happens(
        self, site: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = [False, True]

        def wait(seconds: float) -> None:
            if not looks:
                raise KeyboardInterrupt
            if looks.pop():
                run(site, "retry", "4")

        monkeypatch.setattr(time, "sleep", wait)
        output = run(site, "events", "--limit", "1", "--follow").output
        assert [line.split()[0] for line in output.splitlines()] == ["id", "4", "4"]

    def test_one_is_shown_with_its_answers(self, site: Flask, run: Run) -> None:
        run(site, "retry", "4")
        output = run(site, "show", "4").output
        assert output.count("HTTP 404: ") == 2
        assert "inviter   not known" in output
        assert "MMOLOVE_SERVER_ID" in output
        assert len(json.loads(run(site, "show", "4", "--json").output)["answers"]) == 2
        assert "There is no event 99." in run(site, "show", "99").output

    def test_all_are_exported_without_tokens(
        self, site: Flask, run: Run, tmp_path: Path, mmolove_sandbox: SiteSandbox
    ) -> None:
        for form in ("csv", "jsonl"):
            file = tmp_path / f"events.{form}"
            result = run(site, "export", "--format", form, "--output", str(file))
            assert result.output == "4 events written.\n"
            text = file.read_text()
            assert len(text.splitlines()) == 4 + (form == "csv")
            assert all(r.token not in text for r in mmolove_sandbox.sandbox.referrals)
        assert ""","'=1+1",""" in (tmp_path / "events.csv").read_text()

    def test_a_player_is_forgotten(
        self, site: Flask, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        outbox = mmolove_sandbox.config["MMOLOVE_OUTBOX"]
        token = mmolove_sandbox.sandbox.referrals[0].token.encode()
        assert token in outbox.read_bytes()
        before = run(site, "status").output
        assert "Aborted" in run(site, "forget", "7").output
        assert "1 event of player 7 erased." in run(site, "forget", "7", "--yes").output
        assert token not in outbox.read_bytes()
        words = "PLAYER is the account's id, not its name."
        assert words in run(site, "forget", "7", "--yes").output
        today = [x for x in before.splitlines() if x.startswith("Today")]
        assert today[0] in run(site, "status").output

    @pytest.mark.parametrize("player", ["7 ", "7\xa0", " 7", "7\n", "\ufeff7"])
    def test_an_id_with_white_space_around_it_forgets_nobody_else(
        self, site: Flask, run: Run, player: str
    ) -> None:
        for args in (["forget", player, "--yes"], ["events", "--player", player]):
            result = run(site, *args)
            assert result.exit_code == 2
            assert "has white space around it" in result.output
        assert "player 7" in run(site, "show", "1").output

    def test_who_invited_others_is_forgotten_as_such(
        self, site: Flask, run: Run, mmolove_sandbox: SiteSandbox
    ) -> None:
        state = site.extensions["mmolove"]
        for friend in ("20", "21"):
            by = Invitation(mmolove_sandbox.mint(), "anna")
            with site.app_context():
                state.record(state.note(friend, by, "registered"))
        output = run(site, "forget", "anna").output
        assert (
            "Erase 0 events of player anna, and that they invited 2 friends?" in output
        )
        output = run(site, "forget", "anna", "--yes").output
        assert "Nobody is known any more to have invited 2 friends of theirs." in output
        assert "inviter   not known" in run(site, "show", "5").output

    def test_what_the_emergency_exit_holds_is_forgotten_too(
        self, site: Flask, run: Run
    ) -> None:
        spool = site.extensions["mmolove"].spool
        for player in ("7", "8"):
            spool.write(Note(player, "tok", ["registered"], False, 1000))
        run(site, "forget", "7", "--yes")
        assert [note.identity for _, note in spool.read()] == ["8"]

    def test_nobody_there_was_invited_by_who_is_forgotten(
        self, site: Flask, run: Run
    ) -> None:
        spool = site.extensions["mmolove"].spool
        for name in ("registered", "qualified"):
            spool.write(Note("8", "tok", [name], False, 1000, "7"))
        run(site, "forget", "7", "--yes")
        notes = [note for _, note in spool.read()]
        assert [note.names for note in notes] == [["registered"], ["qualified"]]
        assert {note.referrer for note in notes} == {None}

    def test_only_what_is_finished_is_purged(self, site: Flask, run: Run) -> None:
        assert "Aborted" in run(site, "purge", "--older-than", "1").output
        result = run(site, "purge", "--older-than", "1", "--yes")
        assert result.output == "0 events removed.\n"
        assert run(site, "purge").exit_code == 2
