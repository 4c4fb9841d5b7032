from __future__ import annotations

import pytest
from flask import Flask

from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.outbox.report import Report
from flask_mmolove.testing import SiteSandbox
from tests.admin.cli.conftest import Run


def test_a_player_is_forgotten(
    site: Flask, run: Run, mmolove_sandbox: SiteSandbox
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
    site: Flask, run: Run, player: str
) -> None:
    for args in (["forget", player, "--yes"], ["events", "--player", player]):
        result = run(site, *args)
        assert result.exit_code == 2
        assert "has white space around it" in result.output
    assert "player 7" in run(site, "show", "1").output


def test_a_referrer_is_forgotten_as_such(
    site: Flask, run: Run, mmolove_sandbox: SiteSandbox
) -> None:
    state = site.extensions["mmolove"]
    for friend in ("20", "21"):
        by = Invitation(mmolove_sandbox.mint(), "anna")
        with site.app_context():
            state.recorder.record(state.recorder.report(friend, by, "registered"))
    output = run(site, "forget", "anna").output
    assert "Erase 0 events of player anna, who referred 2 friends?" in output
    output = run(site, "forget", "anna", "--yes").output
    assert "2 friends that they referred now have no referrer." in output
    assert "referrer  not known" in run(site, "show", "5").output


def test_spooled_events_are_forgotten_too(site: Flask, run: Run) -> None:
    spool = site.extensions["mmolove"].spool
    for player in ("7", "8"):
        spool.write(Report(player, "tok", ["registered"], False, 1000))
    run(site, "forget", "7", "--yes")
    assert [note.identity for _, note in spool.read()] == ["8"]


def test_spooled_friends_of_a_forgotten_player_have_no_referrer(
    site: Flask, run: Run
) -> None:
    spool = site.extensions["mmolove"].spool
    for name in ("registered", "qualified"):
        spool.write(Report("8", "tok", [name], False, 1000, "7"))
    run(site, "forget", "7", "--yes")
    notes = [note for _, note in spool.read()]
    assert [note.names for note in notes] == [["registered"], ["qualified"]]
    assert {note.referrer for note in notes} == {None}


def test_only_what_is_finished_is_purged(site: Flask, run: Run) -> None:
    assert "Aborted" in run(site, "purge", "--older-than", "1").output
    result = run(site, "purge", "--older-than", "1", "--yes")
    assert result.output == "0 events removed.\n"
    assert run(site, "purge").exit_code == 2
