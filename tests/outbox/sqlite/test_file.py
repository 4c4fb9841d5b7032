"""A SQLite file that several processes share."""

from __future__ import annotations

import multiprocessing
import sqlite3
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import EventError
from flask_mmolove import OutboxBusy
from flask_mmolove import OutboxError
from flask_mmolove.outbox.sqlite import damage
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox
from tests.outbox.recording import add
from tests.outbox.recording import start_together


def _add_in_process(folder: Path, barrier: t.Any, number: int) -> None:
    outbox = SQLiteOutbox(folder / "outbox.db")
    barrier.wait(30)
    add(outbox, str(number))
    outbox.close()


class TestFile:
    def test_the_folder_is_made(self, tmp_path: Path) -> None:
        outbox = SQLiteOutbox(tmp_path / "a" / "b" / "outbox.db")
        add(outbox)
        outbox.close()
        assert (tmp_path / "a" / "b" / "outbox.db").exists()

    def test_another_process_holding_it_is_waited_for_no_longer_than_allowed(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own)
        other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutboxBusy, match="kept busy by other processes"):
            add(own, "8", timeout=0.05)
        other.execute("ROLLBACK")
        other.close()
        assert len(add(own, "8", timeout=0.05)) == 1

    def test_a_deleted_file_is_made_anew(
        self, own: SQLiteOutbox, tmp_path: Path
    ) -> None:
        add(own)
        (tmp_path / "outbox.db").unlink()
        assert len(add(own)) == 1
        assert (tmp_path / "outbox.db").exists()

    def test_a_newer_schema_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "outbox.db"
        outbox = SQLiteOutbox(path)
        add(outbox)
        outbox.close()
        connection = sqlite3.connect(path)
        for pragma in ("user_version", "application_id"):
            ((now,),) = connection.execute(f"PRAGMA {pragma}")
            connection.execute(f"PRAGMA {pragma} = {now + 98}")
        connection.close()
        with pytest.raises(OutboxError, match="newer Flask-MMOLove"):
            add(SQLiteOutbox(path))

    def test_what_it_cannot_do_it_says_with_the_file_and_the_key(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutboxError, match="MMOLOVE_OUTBOX"):
            add(SQLiteOutbox(tmp_path / "file" / "outbox.db"))

    @pytest.mark.slow
    def test_processes_that_start_at_once_make_one_schema(self, tmp_path: Path) -> None:
        start_together(multiprocessing.get_context("spawn"), _add_in_process, tmp_path)
        outbox = SQLiteOutbox(tmp_path / "outbox.db")
        assert outbox.inspector.summary().counts == {"pending": 4}
        outbox.close()

    def test_an_error_of_ours_is_no_sign_of_damage(
        self, own: SQLiteOutbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[object] = []
        monkeypatch.setattr(damage, "is_sound", looked.append)
        with pytest.raises(EventError):
            add(own, server_id="")
        assert looked == []
        assert len(add(own)) == 1
