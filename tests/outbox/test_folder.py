"""What others put where the spool looks is neither believed nor waited for."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import OutboxError
from flask_mmolove import registered
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

SECRET = "the site's secret"
NOTE = Report("7", "tok", ["registered"], False, 1_700_000_000_000)
NAME = "01700000000000000000-aaaaaaaa-bbbbbbbb.event"
NOBODY = 65534

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no owners")
as_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0,
    reason="only root can make files of another user",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: t.Any) -> Path:
    """The folder for temporary files, of this test alone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db.spool"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "outbox.db", SECRET)


def unsigned(note: Report) -> bytes:
    return json.dumps(note._asdict()).encode()


def write_elsewhere(spool: Spool, beside: Path) -> Path:
    """Keep a note among the temporary files."""
    beside.write_text("in the way")
    file = spool.write(NOTE)
    beside.unlink()
    assert file.parent != beside
    return file


class TestSignature:
    @pytest.mark.parametrize("forgery", ["unsigned", "another secret", "changed"])
    def test_a_forged_note_among_the_temporary_files_is_left_there(
        self,
        spool: Spool,
        beside: Path,
        forgery: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        file = write_elsewhere(spool, beside)
        content = file.read_bytes()
        if forgery == "unsigned":
            file.write_bytes(unsigned(NOTE))
        elif forgery == "another secret":
            spool = Spool(beside.with_name("outbox.db"), "another")
        else:
            file.write_bytes(content.replace(b'"7"', b'"8"'))
        assert spool.read() == spool.read() == spool.of("7") == spool.of("8") == []
        assert file.exists()
        assert caplog.text.count("is passed over") == 1
        assert "MMOLOVE_REFERRAL_SECRET" in caplog.text

    def test_one_of_the_secret_before_is_taken_in_where_it_is_moved_to(
        self, spool: Spool, beside: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = write_elsewhere(spool, beside)
        later = Spool(beside.with_name("outbox.db"), "changed")
        assert later.read() == []
        assert f"move it to {beside}" in caplog.text
        later.write(NOTE._replace(identity="8"))
        file.rename(beside / file.name)
        assert [note.identity for _, note in later.read()] == ["7", "8"]

    def test_beside_the_outbox_nothing_is_lost_with_the_secret(
        self, spool: Spool, beside: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = spool.write(NOTE)
        (beside / NAME).write_bytes(unsigned(NOTE))  # as earlier versions wrote it
        os.chmod(beside / NAME, 0o600)
        later = Spool(beside.with_name("outbox.db"), "changed")
        assert [found.name for found, _ in later.read()] == [NAME, file.name]
        assert later.read()
        assert caplog.text.count("not all are signed") == 1
        later.remove(beside / NAME)
        assert later.read() == [(file, NOTE)]

    def test_without_a_secret_nothing_is_proved(
        self, spool: Spool, beside: Path
    ) -> None:
        file = write_elsewhere(spool, beside)
        empty = Spool(beside.with_name("outbox.db"), "")
        assert empty.read() == []
        assert file.exists()

    def test_what_names_a_player_is_erased_even_unsigned(
        self, spool: Spool, beside: Path
    ) -> None:
        file = write_elsewhere(spool, beside)
        file.write_bytes(unsigned(NOTE))
        spool.erase("8")
        assert file.exists()
        spool.erase("7")
        assert not file.exists()


def plant(kind: str, file: Path, content: bytes) -> None:
    """Put something of the name of a note in a folder."""
    other = file.with_name("other")
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "device":
        os.mknod(file, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # zeros without an end
    elif kind == "symbolic link":
        other.write_bytes(content)
        file.symlink_to(other)
    elif kind == "hard link":
        other.write_bytes(content)
        os.chmod(other, 0o600)
        os.link(other, file)
    elif kind == "endless":
        file.write_bytes(content)
        os.chmod(file, 0o600)
        os.truncate(file, 1 << 40)  # takes no room
    elif kind == "for all":
        file.write_bytes(content)
        os.chmod(file, 0o666)
    else:
        file.write_bytes(content)
        os.chmod(file, 0o644)
        os.chown(file, NOBODY, NOBODY)


@posix
@pytest.mark.parametrize(
    "kind",
    [
        "fifo",
        "folder",
        "symbolic link",
        "hard link",
        "endless",
        "for all",
        pytest.param("device", marks=as_root),
        pytest.param("another user's", marks=as_root),
    ],
)
@pytest.mark.parametrize("place", ["beside", "elsewhere"])
def test_what_is_no_file_of_ours_is_not_read(
    spool: Spool, beside: Path, kind: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_elsewhere(spool, beside) if place == "elsewhere" else spool.write(NOTE)
    content = file.read_bytes()
    planted = file.with_name(NAME)
    plant(kind, planted, content)
    started = time.monotonic()
    assert spool.read(strict=True) == spool.read() == [(file, NOTE)]
    spool.erase("7")
    assert time.monotonic() - started < 5
    assert spool.read() == []
    assert os.path.lexists(planted)
    assert caplog.text.count("is passed over") == 1


@posix
@pytest.mark.parametrize(
    "kind",
    [
        "file",
        "fifo",
        "symbolic link",
        "for all",
        pytest.param("another user's", marks=as_root),
    ],
)
def test_where_somebody_took_the_name_beside_another_place_is_found(
    spool: Spool,
    beside: Path,
    elsewhere: Path,
    tmp_path: Path,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(0o755)
    (folder / NAME).write_bytes(unsigned(NOTE._replace(identity="666")))
    if kind == "file":
        beside.write_text("in the way")
    elif kind == "fifo":
        os.mkfifo(beside)
    elif kind == "symbolic link":
        beside.symlink_to(folder)
    else:
        folder.rename(beside)
        if kind == "for all":
            os.chmod(beside, 0o777)
        else:
            os.chown(beside, NOBODY, NOBODY)
    file = spool.write(NOTE)
    assert file.parent.parent == elsewhere
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert spool.read(strict=True) == [(file, NOTE)]
    spool.write(NOTE)
    assert {each.parent for each, _ in spool.read()} == {file.parent}
    assert f"{beside} is passed over" in caplog.text


@as_root
@pytest.mark.parametrize("kind", ["folder", "file", "symbolic link", "for all"])
def test_a_name_among_the_temporary_files_can_be_taken_by_anyone(
    spool: Spool,
    beside: Path,
    elsewhere: Path,
    tmp_path: Path,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    beside.write_text("in the way")
    name = spool.write(NOTE).parent.name
    fixed, _, _ = name.rpartition("-")
    for folder in elsewhere.iterdir():
        shutil.rmtree(folder)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / NAME).write_bytes(unsigned(NOTE._replace(identity="666")))
    for squatted in (fixed, f"{fixed}-1", name):
        if kind == "file":
            (elsewhere / squatted).write_text("in the way")
        elif kind == "symbolic link":
            (elsewhere / squatted).symlink_to(theirs)
        else:
            shutil.copytree(theirs, elsewhere / squatted)
        if kind == "for all":
            os.chmod(elsewhere / squatted, 0o777)
        else:
            os.chown(elsewhere / squatted, NOBODY, NOBODY, follow_symlinks=False)
    file = spool.write(NOTE)
    assert [note for _, note in spool.read()] == [NOTE]
    assert file.parent.stat().st_uid == os.getuid()
    # Who takes names does not fill the log.
    assert (str(elsewhere) in caplog.text) == (kind == "for all")


@as_root
def test_a_signup_notices_nothing_of_it(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, elsewhere: Path
) -> None:
    app = make_app(DELIVERY="manual", OUTBOX="/dev/null/outbox.db")
    state = app.extensions["mmolove"]
    beside = Path(f"{state.settings.spool}.spool")
    assert beside.parent == Path("/dev/null")  # neither the outbox nor a spool
    os.chmod(elsewhere, 0o1777)
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
    [(file, note)] = state.spool.read()
    assert note.identity == "7"
    assert file.parent.parent == elsewhere


_ATTACKER = """
import os, shutil, sys
temporary, prefix, user, note, name = sys.argv[1:]
os.setgroups([]), os.setgid(int(user)), os.setuid(int(user))
os.chdir(temporary)
os.mkdir("mine")

def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        pass

def plant(folder):
    attempt(os.mkdir, folder)
    attempt(os.mkfifo, f"{folder}/0-fifo.event")
    try:
        with open(f"{folder}/{name}", "w") as file:
            file.write(note)
    except OSError:
        pass

print("ready", flush=True)
number = 0
while True:
    number += 1
    plant(prefix)
    plant(f"{prefix}-{number % 20}")
    for found in os.listdir("."):
        if found.startswith(prefix):
            attempt(os.rename, found, f"mine/{number}")
            plant(found)
            attempt(os.symlink, "mine", found)
    attempt(os.rename, prefix, f"mine/{number}-")
    shutil.rmtree("mine", ignore_errors=True)
    attempt(os.mkdir, "mine")
"""


@pytest.mark.slow
@as_root
@pytest.mark.parametrize("mode", [0o1777, 0o777], ids=["sticky", "open"])
def test_an_attacker_who_swaps_folders_is_never_believed(
    spool: Spool, beside: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    beside.write_text("in the way")
    prefix = spool.write(NOTE).parent.name.rpartition("-")[0]
    forged = unsigned(NOTE._replace(identity="666")).decode()
    # Where another user can come: the folders of a test are closed to others.
    shared = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chmod(shared, mode)
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    command = [sys.executable, "-c", _ATTACKER, str(shared), prefix, str(NOBODY)]
    attacker = subprocess.Popen([*command, forged, NAME], stdout=subprocess.PIPE)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == b"ready\n"
        kept = []
        started = time.monotonic()
        for number in range(60):
            note = NOTE._replace(identity=str(number))
            try:
                spool.write(note)
                kept.append(note)
            except OutboxError:
                assert mode == 0o777  # who may rename our folder is in the way
            assert "666" not in {found.identity for _, found in spool.read()}
            spool.oldest()
            spool.erase("666")
        assert time.monotonic() - started < 60
        assert attacker.poll() is None
        found = [note for _, note in spool.read()]
        if mode == 0o1777:
            assert found == kept
            assert len(kept) == 60
        else:
            assert {note.identity for note in found} <= {n.identity for n in kept}
    finally:
        attacker.kill()
        attacker.communicate()
        shutil.rmtree(shared)
