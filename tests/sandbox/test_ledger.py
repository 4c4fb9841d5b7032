"""What is stored."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from flask_mmolove.sandbox.ledger import Ledger
from tests.sandbox.site import changes_nothing
from tests.sandbox.site import CONFLICT
from tests.sandbox.site import NOW
from tests.sandbox.site import sign
from tests.sandbox.site import Site


def test_everything_that_arrived_is_listed_with_the_response(site: Site) -> None:
    fields = site.fields()
    site.send(fields)
    site.send(fields, secret="wrong")
    site.post(b"{", sign(b"{"))
    good, bad, broken = site.service.arrivals
    assert (good.status, good.outcome, good.lost) == (200, "accepted", False)
    assert good.body == json.dumps(fields).encode()
    assert good.when == NOW
    assert good.token == fields["token"]
    assert good.short_token == f"{fields['token'][:6]}…"
    assert fields["token"] not in repr(good)
    assert (bad.status, bad.outcome) == (401, "refused")
    assert bad.server_event_id == "reg-7842"
    assert "signature does not match" in bad.reason
    assert "MMOLOVE_REFERRAL_SECRET" in bad.hint
    assert (broken.status, broken.event, broken.body) == (400, None, b"{")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_only_its_user_can_read_the_file(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    for suffix in ("", "-journal", "-wal", "-shm"):
        file = tmp_path / f"old.db{suffix}"
        file.touch()
        file.chmod(0o644)
    umask = os.umask(0)
    try:
        Ledger(new).close()
        Ledger(old).close()
        site = Site(path=new)
        with site.service.ledger.transaction():
            site.service.mint()
            modes = {
                file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()
            }
    finally:
        os.umask(umask)
    assert "new.db-journal" in modes
    assert set(modes.values()) == {0o600}


def test_a_file_outlives_a_restart(tmp_path: Path) -> None:
    before = Site(path=tmp_path / "sandbox.db")
    fields = before.fields()
    before.send(fields)
    referrals, arrivals = before.service.referrals, before.service.arrivals
    before.service.ledger.close()
    after = Site(path=tmp_path / "sandbox.db")
    assert after.service.referrals == referrals
    assert after.service.arrivals == arrivals
    assert after.send(fields).json == {"ok": True, "duplicate": True}
    assert after.send(after.fields()).json == CONFLICT


# Made before the response was called a response.
EARLIER_TOKEN = (
    "ff4910cfeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzQxMjc2MDAwfQ.SSF8dHM27hp8bKfXFJVtEi77muw"
)
EARLIER = f"""
CREATE TABLE accepted (
    token TEXT NOT NULL,
    event TEXT NOT NULL,
    server_event_id TEXT NOT NULL,
    PRIMARY KEY (token, event, server_event_id)
);
INSERT INTO accepted VALUES ('{EARLIER_TOKEN}', 'registered', 'reg-7842');
CREATE TABLE arrival (
    number INTEGER PRIMARY KEY,
    "when" REAL NOT NULL,
    outcome TEXT NOT NULL,
    status INTEGER,
    answer TEXT NOT NULL,
    reason TEXT NOT NULL,
    hint TEXT NOT NULL,
    lost INTEGER NOT NULL,
    body BLOB NOT NULL,
    event TEXT,
    token TEXT,
    server_id TEXT,
    server_event_id TEXT,
    referee_identity TEXT
);
INSERT INTO arrival VALUES (
    1, {NOW}, 'accepted', 200, '{{"ok":true,"state":"registered"}}',
    'The referral is now registered.', '', 0, X'7B7D', 'registered',
    '{EARLIER_TOKEN}', 'demo-server', 'reg-7842', 'player-7842'
);
CREATE TABLE referral (
    token TEXT PRIMARY KEY,
    server_id TEXT NOT NULL,
    ref TEXT NOT NULL,
    expires INTEGER NOT NULL,
    state TEXT NOT NULL,
    referee_identity TEXT
);
INSERT INTO referral VALUES (
    '{EARLIER_TOKEN}', 'demo-server', 'anna', 1741276000, 'registered', 'player-7842'
);
CREATE UNIQUE INDEX anchor ON referral (server_id, referee_identity)
    WHERE referee_identity IS NOT NULL;
"""


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "sandbox.db")
    database.executescript(EARLIER)
    database.close()
    site = Site(path=tmp_path / "sandbox.db")
    [arrival] = site.service.arrivals
    assert arrival.response == '{"ok":true,"state":"registered"}'
    fields = site.fields(token=EARLIER_TOKEN)
    assert site.send(fields).json == {"ok": True, "duplicate": True}
    response = site.send(fields | {"event": "qualified"})
    assert response.json is not None
    assert response.json["state"] == "qualified"
    assert len(site.service.arrivals) == 3


def test_state_and_history_are_written_together_or_not_at_all(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(site.service.ledger, "record", fail)
    assert site.send(site.fields()).status_code == 500
    assert changes_nothing(site)


def test_a_ledger_that_was_closed_can_be_closed_again(site: Site) -> None:
    site.service.ledger.close()
    site.service.ledger.close()
