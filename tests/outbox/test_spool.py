from __future__ import annotations

import errno
import logging
import os
import threading
import time
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_mmolove import event_accepted
from flask_mmolove import OutboxError
from flask_mmolove import qualify
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.outbox.folder import Folder
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.testing import SiteSandbox
from tests.conftest import Hold
from tests.conftest import MakeApp

pytestmark = pytest.mark.usefixtures("impatient")

SECRET = "the site's secret"
NOTE = Report("7", "tok", ["registered"], False, 1_700_000_000_000)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: t.Any) -> Path:
    """The folder for temporary files, of this test alone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def site(make_app: MakeApp, mmolove_sandbox: SiteSandbox) -> Flask:
    app = make_app()

    @app.post("/register")
    @referral_register
    def register() -> str:
        registered(7)
        return "welcome"

    return app


def sign_up(app: Flask, token: str) -> float:
    client = app.test_client()
    client.get(f"/?mmref={token}")
    started = time.monotonic()
    response = client.post("/register")
    assert response.get_data(as_text=True) == "welcome"
    return time.monotonic() - started


def run_out_of_files(*args: object) -> t.NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_note_is_kept_and_read_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    file = spool.write(NOTE)
    assert file.parent == tmp_path / "outbox.db.spool"
    assert file.stat().st_mode & 0o077 == 0
    assert spool.read() == [(file, NOTE)]
    spool.remove(file)
    assert spool.read() == []


def test_notes_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    for number in range(20):
        spool.write(NOTE._replace(identity=str(number)))
    read = [note.identity for _, note in spool.read()]
    assert read == [str(number) for number in range(20)]


def test_only_what_concerns_a_player_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    for number in range(20):
        spool.write(NOTE._replace(identity=str(number)))
    spool.write(NOTE._replace(identity="", held="k", names=[]))
    opened: list[Path] = []
    read = Folder.read

    def note(folder: Folder, name: str, limit: int) -> bytes:
        opened.append(folder.path / name)
        return read(folder, name, limit)

    monkeypatch.setattr(Folder, "read", note)
    assert [note.identity for _, note in spool.of("7")] == ["7"]
    assert [note.held for _, note in spool.of("k")] == ["k"]
    assert spool.of("20") == []
    assert len(opened) == 2
    spool.write(NOTE._replace(identity="69235"))  # its mark is that of the other
    assert spool.of("95303") == []
    assert len(opened) == 3


def test_where_it_cannot_be_kept_beside_the_outbox_it_is_kept_elsewhere(
    tmp_path: Path, elsewhere: Path
) -> None:
    (tmp_path / "outbox.db.spool").write_text("in the way")
    file = Spool(tmp_path / "outbox.db", SECRET).write(NOTE)
    assert file.parent.parent == elsewhere
    assert Spool(tmp_path / "outbox.db", SECRET).read() == [(file, NOTE)]
    assert Spool(tmp_path / "another.db", SECRET).read() == []


def test_where_it_cannot_be_kept_at_all_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outbox.db.spool").write_text("in the way")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(OutboxError, match="Make room"):
        Spool(tmp_path / "outbox.db", SECRET).write(NOTE)


def test_a_folder_for_temporary_files_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> t.NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", fail)
    spool = Spool(tmp_path / "outbox.db", SECRET)
    file = spool.write(NOTE)
    assert spool.read() == [(file, NOTE)]


def test_junk_in_the_folder_is_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    file = spool.write(NOTE)
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"x": 1}')):
        file.with_name(f"{name}.event").write_text(text)
    assert spool.read() == [(file, NOTE)]


def test_what_stands_of_a_player_is_erased(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    of_another = NOTE._replace(identity="8", referrer="7")
    files = {name: spool.write(NOTE) for name in ("event", "unreadable", "half")}
    spool.reject(files["unreadable"], "it is damaged")
    files["half"].rename(files["half"].with_suffix(".1a2b.half"))
    kept = spool.write(of_another)
    other = spool.write(of_another._replace(referrer=None))
    spool.reject(other, "it is damaged")
    spool.erase("7")
    assert {*kept.parent.iterdir()} == {kept, other.with_suffix(".unreadable")}
    assert spool.read() == [(kept, of_another._replace(referrer=None))]


def test_nothing_is_said_to_be_erased_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    spool.reject(spool.write(NOTE), "it is damaged")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", run_out_of_files)
        with pytest.raises(OutboxError, match="Too many open files"):
            spool.erase("7")


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    file = spool.write(NOTE)
    recent = file.rename(file.with_suffix(".1a2b.half"))
    file = spool.write(NOTE)
    old = file.rename(file.with_suffix(".3c4d.half"))
    more_than_an_hour_ago = time.time() - 3700
    os.utime(old, (more_than_an_hour_ago, more_than_an_hour_ago))
    assert spool.read() == []
    assert [*recent.parent.iterdir()] == [recent]


@pytest.mark.parametrize("call", [(Folder, "read"), (os, "listdir")])
def test_what_cannot_be_read_for_now_is_left_for_the_next_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: tuple[t.Any, str],
) -> None:
    spool = Spool(tmp_path / "outbox.db", SECRET)
    file = spool.write(NOTE)
    with monkeypatch.context() as patch:
        patch.setattr(*call, run_out_of_files)
        assert spool.read() == spool.read() == []
        with pytest.raises(OutboxError, match="Too many open files"):
            spool.read(strict=True)
    assert spool.read() == [(file, NOTE)]
    assert caplog.text.count("cannot be read for now: Too many open files.") == 1


def test_a_milestone_is_kept_while_its_signup_cannot_be_read(
    site: Flask, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hold(site):
        sign_up(site, mmolove_sandbox.mint())
    with site.app_context():
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "read", run_out_of_files)
            assert qualify(7) is None
        site.extensions["mmolove"].engine.wake()
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


# Without a URL it may still be in a database, by MMOLove(db=db).
@pytest.mark.parametrize("outbox", [None, "sqlite+pysqlite:///{}.db"])
def test_sites_with_one_instance_folder_each_have_their_own(
    make_app: MakeApp, tmp_path: Path, outbox: str | None
) -> None:
    one, two = (
        make_app(
            SERVER_ID=name,
            OUTBOX=outbox and outbox.format(tmp_path / name),
            DELIVERY="manual",
        ).extensions["mmolove"]
        for name in ("one", "two")
    )
    one.spool.write(NOTE)
    assert [note for _, note in one.spool.read()] == [NOTE]
    assert two.spool.read() == []


def test_a_signup_takes_it_when_the_outbox_is_busy_and_nothing_is_lost(
    site: Flask, mmolove_sandbox: SiteSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    with Hold(site), caplog.at_level(logging.ERROR):
        assert sign_up(site, mmolove_sandbox.mint()) < 5
    assert "imported automatically" in caplog.text
    assert mmolove_sandbox.reported == []
    site.extensions["mmolove"].engine.wake()
    assert mmolove_sandbox.reported == [("registered", "7")]
    assert site.extensions["mmolove"].spool.read() == []


def test_a_milestone_takes_it_too(
    site: Flask, mmolove_sandbox: SiteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_mmolove.recording.recorder.TIMEOUT", 0.01)
    sign_up(site, mmolove_sandbox.mint())
    with site.app_context():
        with Hold(site):
            assert qualify(7) is None
            assert qualify(8) is None
        site.extensions["mmolove"].engine.wake()
        referral = qualify(7)
        assert qualify(8) is None
    assert referral is not None
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


def test_a_milestone_does_not_overtake_its_signup(
    site: Flask, mmolove_sandbox: SiteSandbox
) -> None:
    with Hold(site):
        sign_up(site, mmolove_sandbox.mint())
    with site.app_context():
        assert qualify(7) is None
        assert qualify(8) is None
        site.extensions["mmolove"].engine.wake()
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]


def test_a_sleeping_thread_is_woken_to_take_it_in(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    app = make_app(DELIVERY="thread")
    accepted = threading.Event()

    def hear(sender: Flask, entry: t.Any) -> None:
        accepted.set()

    with event_accepted.connected_to(hear, app), app.test_request_context():
        app.preprocess_request()
        with Hold(app):
            registered(7, token=mmolove_sandbox.mint())
        assert accepted.wait(20)


def test_a_signup_lives_without_any_disk(
    site: Flask,
    mmolove_sandbox: SiteSandbox,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> t.NoReturn:
        raise OutboxError("no room on any disk")

    monkeypatch.setattr(Spool, "write", fail)
    with Hold(site):
        sign_up(site, mmolove_sandbox.mint())
    assert "A signup could not be reported" in caplog.text
    assert "no room on any disk" in caplog.text
