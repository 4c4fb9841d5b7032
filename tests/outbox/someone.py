"""Records an event as another user: ``someone.py UID OUTBOX``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flask_mmolove.outbox.report import Report
from flask_mmolove.outbox.sqlite.store import SQLiteOutbox


def main(uid: int, outbox: Path) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    try:
        store = SQLiteOutbox(outbox)
        store.record(Report("8", "t", ["registered"], False, 1000), "srv")
        store.close()
    except Exception as e:
        sys.exit(f"{e}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
