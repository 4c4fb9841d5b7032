from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run
from tests.conftest import MakeApp


def test_they_are_listed_newest_last(site: Flask, run: Run) -> None:
    lines = run(site, "events").output.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "1", "2", "3", "4"]
    result = run(site, "events", "--limit", "2")
    assert "Older events: --before 3" in result.output
    (entry,) = run(site, "events", "--json", "--before", "2").output.splitlines()
    assert json.loads(entry)["identity"] == "7"


@pytest.fixture
def _invited(site: Flask) -> None:
    """A fifth event, of a friend of player 7."""
    recorder = site.extensions["mmolove"].recorder
    recorder.record(recorder.report("10", Invitation("other", "7"), "registered"))


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--state", "rejected"], ["4", "5"]),
        (["--state", "pending"], []),
        (["--player", "9"], ["4"]),
        (["--player", "x"], []),
        (["--event", "registered"], ["1", "2", "3", "4", "5"]),
        (["--event", "qualified"], []),
        (["--referrer", "7"], ["5"]),
        (["--since", "2020-01-01", "--until", "9999-12-31"], list("12345")),
        (["--until", "2020-01-01"], []),
        (["--since", "9999-12-31"], []),
    ],
)
@pytest.mark.usefixtures("_invited")
def test_they_are_filtered(
    site: Flask, run: Run, tmp_path: Path, filters: list[str], ids: list[str]
) -> None:
    head, *rows = run(site, "events", *filters).output.splitlines()
    assert [row.split()[0] for row in rows] == ids
    assert ids or head == "No events match."
    file = tmp_path / "events.jsonl"
    run(site, "export", "--format", "jsonl", "--output", str(file), *filters)
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [str(each["id"]) for each in reversed(found)] == ids


def test_a_day_that_is_none_is_told(site: Flask, run: Run) -> None:
    for command in ("events", "export"):
        assert "does not match" in run(site, command, "--since", "today").output


@pytest.mark.usefixtures("_invited")
def test_the_columns_say_who_referred_a_player(site: Flask, run: Run) -> None:
    _, *rows = run(site, "events").output.splitlines()
    players = [row.split()[2:4] for row in rows]
    expected = [["7", "-"], ["8", "-"], ["=1+1", "-"], ["9", "-"], ["10", "7"]]
    assert players == expected


def test_columns_are_as_wide_as_what_is_in_them(
    site: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    with site.app_context():
        registered("n" * 200, token="long")
    head, first, *_, last = run(site, "events").output.splitlines()
    # A name that is far too long moves its own row alone.
    assert head.index("Referrer") == first.index("-  ") == len("ID  registered  ") + 38
    assert last.index("-  ") > 200


def test_a_dry_run_is_marked(
    make_app: MakeApp, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(TEST=True)
    with app.app_context():
        registered("7", token=mmolove_sandbox.mint())
    assert "  accepted (dry run)  " in run(app, "events").output
    assert "state     accepted (dry run): " in run(app, "show", "1").output


def test_nothing_yet(app: Flask, run: Run) -> None:
    assert run(app, "events").output == "No events yet.\n"


def test_a_table_fits_the_terminal(
    site: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = run(site, "events").output.splitlines()
    assert {len(line) for line in lines} == {40}


def test_where_there_is_no_terminal_nothing_is_cut(
    site: Flask, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "HTTP 404: unknown_token\n" in run(site, "events").output


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_it_follows_what_happens(
    site: Flask, run: Run, monkeypatch: pytest.MonkeyPatch, as_json: list[str]
) -> None:
    looks = ["nothing", "4", "nothing", "nothing"]

    def wait(seconds: float) -> None:
        if not looks:
            raise KeyboardInterrupt
        if (id := looks.pop()) != "nothing":
            run(site, "retry", id)

    monkeypatch.setattr(time, "sleep", wait)
    output = run(site, "events", "--limit", "1", "--follow", *as_json).output
    if as_json:
        assert [json.loads(line)["id"] for line in output.splitlines()] == [4, 4]
    else:
        assert [line.split()[0] for line in output.splitlines()] == ["ID", "4", "4"]


def test_the_columns_of_what_follows_stand_below_each_other(
    make_app: MakeApp, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(DELIVERY="manual")
    players = ["7842", "n" * 20, "8"]

    def wait(seconds: float) -> None:
        if not players:
            raise KeyboardInterrupt
        with app.app_context():
            registered(players.pop(), token=f"junk-{len(players)}")

    monkeypatch.setattr(time, "sleep", wait)
    monkeypatch.delenv("COLUMNS", raising=False)
    head, *rows = run(app, "events", "--follow").output.splitlines()
    states = [row.index("pending") for row in rows]
    assert states == [head.index("State"), states[1], states[1]]


def test_one_is_shown_with_its_responses(site: Flask, run: Run) -> None:
    run(site, "retry", "4")
    output = run(site, "show", "4").output
    assert output.count("HTTP 404\n") == 2
    assert output.count(" UTC, after ") == 2
    assert '\n          {"error": "unknown_token"}\n' in output
    assert "next      Nothing, until you act." in output
    assert "referrer  not known" in output
    assert "MMOLOVE_SERVER_ID" in output
    shown = json.loads(run(site, "show", "4", "--json").output)
    assert len(shown["answers"]) == 2
    assert shown["next"] is None
    assert json.loads(shown["request"]["body"])["referee_identity"] == "9"
    assert "There is no event 99." in run(site, "show", "99").output


def test_the_request_is_shown_without_what_is_secret(
    site: Flask, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    output = run(site, "show", "1").output
    assert f"request   POST {site.config['MMOLOVE_ENDPOINT']}\n" in output
    assert "X-MMOLove-Signature: t=<time>,v1=sha256=<signature>\n" in output
    assert '            "server_event_id": "reg-7",\n' in output
    token = mmolove_sandbox.sandbox.referrals[0].token
    for secret in (token, site.config["MMOLOVE_REFERRAL_SECRET"]):
        assert secret not in output + run(site, "show", "1", "--json").output


def test_a_reward_s_attempts_are_shown(
    make_app: MakeApp,
    run: Run,
    mmolove_sandbox: SiteSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # a narrow table is cut
    mmolove = MMOLove()

    @mmolove.reward
    def grant(referral: Referral) -> None:
        raise ValueError("no such character")

    app = make_app(mmolove)
    with app.app_context():
        registered("7", token=mmolove_sandbox.mint())
        qualify("7")
    output = run(app, "show", "2").output
    assert re.search(r"\nresponse  .*, after [\d.]+ m?s: HTTP 200\n", output)
    failed = (
        r"\nreward    .*, after [\d.]+ m?s: failed\n"
        r" {10}ValueError: no such character\n"
    )
    assert re.search(failed, output)
    assert "UTC: Its reward is tried again " in output
    assert "ValueError: no such character" in run(app, "events").output


def test_all_are_exported_without_tokens(
    site: Flask, run: Run, tmp_path: Path, mmolove_sandbox: SiteSandbox
) -> None:
    for form in ("csv", "jsonl"):
        file = tmp_path / f"events.{form}"
        result = run(site, "export", "--format", form, "--output", str(file))
        assert result.output == "4 events written.\n"
        text = file.read_text()
        assert len(text.splitlines()) == 4 + (form == "csv")
        assert all(r.token not in text for r in mmolove_sandbox.sandbox.referrals)
    assert ""","'=1+1",""" in (tmp_path / "events.csv").read_text()
