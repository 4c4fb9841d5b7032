"""Root runs a command first, and the site, which is somebody else, goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.outbox import owner
from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.spool import Spool
from flask_mmolove.outbox.sqlite.file import SIDE_FILES
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

TESTS = Path(__file__).parent

#: Who the site runs as.
SITE = 65534

pytestmark = pytest.mark.skipif(
    not owner.is_root(), reason="Only root can be somebody else."
)


@pytest.fixture
def home() -> t.Iterator[Path]:
    """The site's own folder, which others than root reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, SITE, SITE)
        yield Path(name)


@pytest.fixture
def site(make_app: MakeApp, home: Path) -> Flask:
    return make_app(OUTBOX=home / "mmolove.db", DELIVERY="manual")


def run(app: Flask, *args: str) -> Result:
    info = ScriptInfo(create_app=lambda: app)
    return app.test_cli_runner().invoke(command, args, obj=info)


def owners(folder: Path) -> set[int]:
    """Of all that a folder holds."""
    found = {file.lstat().st_uid for file in folder.rglob("*")}
    assert found
    return found


def record_as_the_site(outbox: Path) -> str:
    """Sign a player up in a process of the site, and give what went wrong."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "someone.py"), str(SITE), str(outbox)],
        capture_output=True,
        text=True,
    )
    return done.stderr


def owner_line(result: Result) -> str:
    lines = [line for line in result.output.splitlines() if "  owner " in line]
    return "".join(lines)


def test_what_root_makes_first_the_site_can_use(site: Flask, home: Path) -> None:
    result = run(site, "check")
    assert result.exit_code == 0, result.output
    assert not owner_line(result)
    assert owners(home) == {SITE}
    assert {file.name for file in home.iterdir()} >= {"mmolove.db", "mmolove.db-lock"}
    assert record_as_the_site(home / "mmolove.db") == ""
    assert run(site, "status").exit_code == 0
    assert owners(home) == {SITE}


def test_so_it_is_while_a_connection_of_root_is_open(
    site: Flask, home: Path, mmolove_sandbox: SiteSandbox
) -> None:
    with site.app_context():
        registered("7", token=mmolove_sandbox.mint())
    # With what SQLite put beside it.
    assert any((home / f"mmolove.db{side}").exists() for side in SIDE_FILES[1:])
    assert owners(home) == {SITE}
    assert record_as_the_site(home / "mmolove.db") == ""


def test_folders_that_root_makes_are_the_site_s_too(
    make_app: MakeApp, home: Path
) -> None:
    app = make_app(OUTBOX=home / "var" / "instance" / "mmolove.db")
    run(app, "check")
    assert owners(home) == {SITE}
    assert record_as_the_site(home / "var" / "instance" / "mmolove.db") == ""


def test_a_file_that_root_found_damaged_is_the_site_s_again(
    site: Flask, home: Path
) -> None:
    run(site, "check")
    (home / "mmolove.db").write_bytes(b"SQLite format 3\0" + b"?" * 8192)
    run(site, "check")
    run(site, "check")
    assert [*home.glob("mmolove.db.corrupt-*")]
    assert owners(home) == {SITE}


NOTE = Report("7", "tok", ["registered"], False, 1_700_000_000_000, None)


def test_what_root_puts_into_the_emergency_exit_the_site_takes_in(home: Path) -> None:
    file = Spool(home / "mmolove.db", "a secret").write(NOTE)
    assert file.parent == home / "mmolove.db.spool"
    assert owners(home) == {SITE}
    assert file.stat().st_gid == SITE
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_so_it_is_in_the_folder_for_temporary_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool(home / "mmolove.db", "a secret")
    (home / "mmolove.db.spool").touch()  # in the way of the folder
    file = spool.write(NOTE)
    assert file.parent.parent == tmp_path
    assert owners(tmp_path) == {SITE}
    assert [note for _, note in spool.read()] == [NOTE]
    os.chown(file.parent, SITE - 1, SITE - 1)  # a third one's is nobody's
    assert spool.read() == []


def test_in_a_folder_of_root_all_is_root_s(site: Flask, home: Path) -> None:
    os.chown(home, 0, 0)
    result = run(site, "check")
    assert owners(home) == {0}
    assert not owner_line(result)


def test_a_link_is_not_followed(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "passwd"
    target.touch()
    (home / "mmolove.db").symlink_to(target)
    owner.give(home / "mmolove.db", home)
    assert target.stat().st_uid == 0


class TestCheck:
    """Files that root made before it gave them away."""

    def test_root_s_file_is_named_with_the_line_to_run(
        self, site: Flask, home: Path
    ) -> None:
        run(site, "check")
        file = home / "mmolove.db"
        os.chown(file, 0, 0)
        assert "unable to open" in record_as_the_site(file)
        result = run(site, "check")
        assert result.exit_code == 1
        line = owner_line(result)
        assert line.startswith("FAIL  owner")
        name = owner.user_name(SITE)
        assert f"{file} belongs to root, and the folder to {name}." in line
        _, _, rest = line.partition("run '")
        subprocess.run(rest.partition("'")[0], shell=True, check=True)
        assert record_as_the_site(file) == ""
        assert not owner_line(run(site, "check"))

    def test_so_is_the_emergency_exit(self, site: Flask, home: Path) -> None:
        spool = site.extensions["mmolove"].spool
        for _ in range(3):
            os.chown(spool.write(NOTE), 0, 0)
        line = owner_line(run(site, "check"))
        assert line.startswith("FAIL  owner")
        assert line.count(".spool") == 2
        _, _, rest = line.partition("run '")
        subprocess.run(rest.partition("'")[0], shell=True, check=True)
        assert not owner_line(run(site, "check"))

    def test_a_third_one_s_is_told_of_and_may_be_meant(
        self, site: Flask, home: Path
    ) -> None:
        run(site, "check")
        for file in home.iterdir():
            os.chown(file, SITE - 1, SITE - 1)
        result = run(site, "check")
        assert result.exit_code == 0
        assert owner_line(result).startswith("ok")
        assert f"belong to {SITE - 1}" in owner_line(result)
