from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import OutboxBusy
from flask_mmolove import OutboxError
from flask_mmolove.outbox.entry import Entry
from flask_mmolove.outbox.entry import Settlement
from flask_mmolove.outbox.sqlite.recover import read_remains
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from tests.outbox.recording import add

MOMENT = 1_790_000_000_123
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path: Path) -> t.Iterator[SQLiteOutbox]:
    outbox = SQLiteOutbox(path)
    yield outbox
    outbox.close()


def add_both(outbox: SQLiteOutbox, *identities: str) -> None:
    for identity in identities:
        names = ("registered", "qualified")
        add(outbox, identity, *names, token=f"tök-{identity}", now=MOMENT)


def identities(entries: t.Iterable[Entry]) -> list[str]:
    return sorted({entry.identity for entry in entries})


def everything(outbox: SQLiteOutbox) -> list[Entry]:
    return outbox.inspector.page(limit=1000)


def accept(outbox: SQLiteOutbox) -> None:
    for entry in outbox.claim("pending", MOMENT, 1000, 1):
        settled = Settlement(entry, "accepted", is_fact=True, status=200, answer="{}")
        outbox.settle([settled], MOMENT + 5)


class TestSalvage:
    def test_a_sound_file_is_read_as_sqlite_reads_it(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, *map(str, range(300)))
        accept(outbox)
        expected = sorted(everything(outbox))
        outbox.close()
        assert sorted(read_remains(path).entries) == expected

    def test_without_its_header_every_row_below_is_read(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, *map(str, range(300)))
        outbox.close()
        content = path.read_bytes()
        path.write_bytes(os.urandom(PAGE) + content[PAGE:])
        assert identities(read_remains(path).entries) == sorted(map(str, range(300)))

    def test_a_row_that_was_touched_is_not_believed(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, "7")
        outbox.close()
        content = path.read_bytes()
        place = content.index('"token":"tök-7"'.encode())
        path.write_bytes(content[: place + 9] + b"T" + content[place + 10 :])
        assert len(read_remains(path).entries) == 1

    def test_a_row_that_is_longer_than_its_page_is_read_too(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, *map(str, range(30)))
        entries = everything(outbox)
        with outbox._db.transaction() as db:
            for entry in entries:
                # Of every length up to three pages: SQLite cuts where it likes.
                history = json.dumps([[1, 503, "n" * entry.id * 200]])
                where = (history, entry.id)
                db.execute("UPDATE event SET history = ? WHERE id = ?", where)
        expected = sorted(everything(outbox))
        assert len(expected[-1].history or "") > 2 * PAGE
        outbox.close()
        assert sorted(read_remains(path).entries) == expected

    def test_what_a_page_has_lost_of_it_takes_no_row_along(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, "7")
        entry = outbox.of("7", False)["registered"]
        history = '[[1, 503, "' + "no " * 3000 + '"]]'
        with outbox._db.transaction() as db:
            db.execute("UPDATE event SET history = ? WHERE id = ?", (history, entry.id))
        outbox.close()
        content = path.read_bytes()
        end = content.index(b'no "]]')
        path.write_bytes(content[:end] + b"x" * 6 + content[end + 6 :])
        assert [each.history for each in read_remains(path).entries] == [None, None]

    def test_pages_that_name_themselves_come_to_an_end(self, path: Path) -> None:
        third = (3).to_bytes(4, "big")
        head = bytes([13, 0, 0, 0, 1, 0, 0, 0]) + (36).to_bytes(2, "big")
        # 492 bytes on the leaf and terabytes on the third page, whose next one it is.
        length = 492 + 4092 * (1 << 30)
        groups = [length >> shift & 0x7F | 0x80 for shift in range(42, 0, -7)]
        leaf = head.ljust(36, b"\0") + bytes([*groups, length & 0x7F, 1])
        assert len(leaf) % 4 == 0
        leaf += third * ((PAGE - len(leaf)) // 4)
        path.write_bytes(bytes(PAGE) + leaf + third * (PAGE // 4))
        assert read_remains(path).entries == []

    @pytest.mark.parametrize("content", [b"", b"x", os.urandom(5000), b"\x0d" * 9000])
    def test_junk_holds_nothing(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert read_remains(path).entries == []


class TestRescue:
    def recover(self, outbox: SQLiteOutbox) -> None:
        """What a site does: a call fails, the next ones work, a worker comes by."""
        try:
            add_both(outbox, "new")
        except OutboxError:
            add_both(outbox, "new")
        outbox.recover()

    def test_a_damaged_file_is_moved_aside_and_what_is_readable_taken_over(
        self, outbox: SQLiteOutbox, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        add_both(outbox, *map(str, range(100)))
        content = path.read_bytes()
        path.write_bytes(b"garbage" * 100 + content[700:])
        self.recover(outbox)
        assert len(identities(everything(outbox))) == 101
        (aside,) = outbox._db.files_aside()
        assert aside.read_bytes().startswith(b"garbage")
        assert {record.levelno for record in caplog.records} == {logging.CRITICAL}

    def test_another_process_rescues_what_this_one_moved_aside(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, *map(str, range(100)))
        path.write_bytes(b"garbage" * 100 + path.read_bytes()[700:])
        with pytest.raises(OutboxError):
            add_both(outbox, "new")
        other = SQLiteOutbox(path)
        assert other.recover() == 200
        assert other.recover() == 0
        other.close()
        later = SQLiteOutbox(path)
        assert later.recover() == 0
        later.close()

    @pytest.mark.parametrize("replaced", [True, False])
    def test_a_file_that_is_deleted_or_replaced_while_open_is_taken_over(
        self, outbox: SQLiteOutbox, path: Path, replaced: bool
    ) -> None:
        add_both(outbox, "a", "b")
        accept(outbox)
        path.unlink()
        if replaced:
            other = SQLiteOutbox(path)
            add_both(other, "other")
            other.close()
        self.recover(outbox)
        expected = ["a", "b", "new", *(["other"] if replaced else [])]
        assert identities(everything(outbox)) == expected
        assert outbox.of("a", False)["registered"].state == "accepted"

    @pytest.mark.parametrize("lost", ["deleted", "damaged"])
    def test_one_that_is_in_the_way_for_a_moment_loses_nothing(
        self,
        outbox: SQLiteOutbox,
        path: Path,
        lost: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        add_both(outbox, "a")
        if lost == "deleted":
            path.unlink()
        else:
            path.write_bytes(b"garbage" * 100 + path.read_bytes()[700:])
        with contextlib.suppress(OutboxError):
            everything(outbox)

        def fail(*args: object, **kwargs: object) -> t.NoReturn:
            raise OutboxBusy("Busy.")

        with monkeypatch.context() as patch:
            patch.setattr(outbox, "run", fail)
            with pytest.raises(OutboxBusy):
                outbox.recover()
        assert outbox.incident
        assert outbox.recover() > 0
        assert identities(everything(outbox)) == ["a"]
        assert not outbox.incident

    def test_an_emptied_file_is_made_anew(
        self, outbox: SQLiteOutbox, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        add_both(outbox, "a")
        os.truncate(path, 0)
        self.recover(outbox)
        assert "new" in identities(everything(outbox))
        assert "emptied" in caplog.text or "damaged" in caplog.text

    def test_what_had_come_further_is_not_undone(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, "a")
        accept(outbox)
        path.unlink()
        other = SQLiteOutbox(path)
        add_both(other, "a")
        other.close()
        self.recover(outbox)
        assert outbox.of("a", False)["registered"].state == "accepted"

    @pytest.mark.parametrize("kind", ["database", "text"])
    def test_a_file_of_something_else_is_refused_and_never_moved(
        self, path: Path, kind: str
    ) -> None:
        if kind == "database":
            connection = sqlite3.connect(path)
            connection.execute("CREATE TABLE event (name TEXT)")
            connection.execute("CREATE TABLE player (name TEXT)")
            connection.close()
        else:
            path.write_text("the site's own settings\n" * 100)
        before = path.read_bytes()
        outbox = SQLiteOutbox(path)
        for _ in range(2):
            with pytest.raises(OutboxError, match="MMOLOVE_OUTBOX"):
                add_both(outbox, "a")
        outbox.close()
        assert path.read_bytes() == before
        assert outbox._db.files_aside() == []

    def test_damage_that_no_query_meets_is_found_when_a_worker_begins(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, *map(str, range(300)))
        connection = sqlite3.connect(path)
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'event_due'"
        ).fetchone()
        connection.close()
        content = bytearray(path.read_bytes())
        start = (root - 1) * PAGE
        leaf = int.from_bytes(content[start + 8 : start + 12], "big")
        # The index loses half of the entries of one of its pages.
        count = (leaf - 1) * PAGE + 3
        entries = int.from_bytes(content[count : count + 2], "big")
        content[count : count + 2] = (entries // 2).to_bytes(2, "big")
        path.write_bytes(content)
        worker = SQLiteOutbox(path)
        assert worker.recover() == 600
        claimed = worker.claim("pending", MOMENT, 1000, 1000)
        worker.close()
        assert len(claimed) == 300

    @pytest.mark.parametrize("mode", [0o600, 0o640])
    def test_what_it_moved_aside_is_its_own_whatever_its_mode_was(
        self, outbox: SQLiteOutbox, path: Path, mode: int
    ) -> None:
        add_both(outbox, *map(str, range(100)))
        path.chmod(mode)
        path.write_bytes(b"garbage" * 100 + path.read_bytes()[700:])
        self.recover(outbox)
        assert len(identities(everything(outbox))) == 101

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("outbox.db.corrupt-evil", "has a name"),
            ("outbox.db.corrupt-20260101-000000-ab12.db", "has a name"),
            ("outbox.db.corrupt-20260101-000000-ab12", "is open to other users"),
            ("outbox.db.corrupt-20260101-000000-ab12 link", "is no ordinary file"),
            ("outbox.db.corrupt-20260101-000000-ab12 twice", "has a second name"),
            ("outbox.db.corrupt-20260101-000000-ab12 fifo", "is no ordinary file"),
            pytest.param(
                "outbox.db.corrupt-20260101-000000-ab12 theirs",
                "belongs to another user",
                marks=pytest.mark.skipif(
                    os.getuid() != 0, reason="only root makes files of another user"
                ),
            ),
        ],
    )
    def test_a_file_that_it_did_not_move_aside_is_not_believed(
        self,
        outbox: SQLiteOutbox,
        path: Path,
        caplog: pytest.LogCaptureFixture,
        name: str,
        why: str,
    ) -> None:
        # The file of somebody who knows how an outbox is made, in an upload folder.
        forged = SQLiteOutbox(path.with_name("forged.db"))
        add_both(forged, "666")
        accept(forged)
        forged.close()
        name, _, kind = name.partition(" ")
        planted = path.with_name(name)
        source = path.with_name("forged.db")
        if kind == "link":
            planted.symlink_to(source)
        elif kind == "twice":
            os.link(source, planted)
        elif kind == "fifo":
            os.mkfifo(planted, 0o600)
        else:
            planted.write_bytes(source.read_bytes())
            planted.chmod(0o600 if kind else 0o644)
            if kind == "theirs":
                os.chown(planted, 65534, 65534)
        add_both(outbox, "7")
        assert outbox.recover() == 0
        outbox._db.incident = True
        assert outbox.recover() == 0
        assert identities(everything(outbox)) == ["7"]
        assert os.path.lexists(planted)
        assert caplog.text.count(f"it {why}") == 1

    def test_a_log_beside_it_that_is_not_its_own_is_left_out(
        self, outbox: SQLiteOutbox, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        add_both(outbox, *map(str, range(100)))
        path.write_bytes(b"garbage" * 100 + path.read_bytes()[700:])
        with pytest.raises(OutboxError):
            add_both(outbox, "new")
        (aside,) = outbox._db.files_aside()
        os.mkfifo(aside.with_name(f"{aside.name}-wal"))
        assert outbox.recover() == 200
        assert "-wal is passed over" in caplog.text

    @pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
    def test_a_read_only_file_is_said_and_used_again_when_it_can_be(
        self, outbox: SQLiteOutbox, path: Path
    ) -> None:
        add_both(outbox, "a")
        outbox.close()
        path.chmod(0o400)
        with pytest.raises(OutboxError, match="readonly"):
            add_both(outbox, "b")
        path.chmod(0o600)
        add_both(outbox, "b")
