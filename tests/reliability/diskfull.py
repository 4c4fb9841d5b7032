"""The disk fills up, at every page from the first on.

**What runs.** On a file system of a fixed size, a site takes signups while no page is
free, then one, then two, and so on, until everything fits: once from an empty disk,
where not even the outbox can be made, and once while events are on their way, where the
disk fills after the first post. The second folder of the spool lies on another
disk. The same with a limit on the size of files (``RLIMIT_FSIZE``) in place of the full
disk; where no file system can be mounted, for want of the right to, only that.

**What is measured, and why it can fail.** Each signup is answered with 200 and within
2 s, and an event whose signup was answered is delivered once there is room again, out
of the outbox or out of the spool: a store that loses what it acknowledged, or
an exit on the same full disk, leaves the client without it. What was posted and could
not be settled is not posted again by the same process: each further post is a
``duplicate``, and a fault. How many signups took the exit, and how often the delivery
could not write, is counted, else the disk was never full.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

from flask_mmolove.errors import OutboxError

from . import processes
from .inprocess import Client
from .inprocess import Site
from .inprocess import Surprises
from .report import Counters
from .report import Findings
from .report import harness
from .report import progress

PAGE = 4096

#: Pages of the disk, and how many are left free at the most: then everything fits.
DISK = 128
LEVELS = 32

#: Signups while the disk fills, and events on their way when it does.
SIGNUPS = 12

#: Seconds that a signup may take.
BUDGET = 2.0


class Disk(t.Protocol):
    """Something that can be full.

    :param folder: Where the site's files go.
    """

    folder: Path

    def leave(self, pages: int) -> None:
        """Let only so many more pages be written."""

    def make_room(self) -> None:
        """Let anything be written again."""


class FullDisk:
    """A file system of a fixed size, filled with ballast."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, pages: int) -> None:
        with self._ballast.open("ab") as file:
            status = os.statvfs(self.folder)
            more = status.f_bavail * status.f_frsize - pages * PAGE
            size = file.tell() + more
            file.truncate(size)
            os.posix_fallocate(file.fileno(), 0, size)

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


class SizeLimit:
    """A limit on the size of this process's files. The least is a page: where not a
    byte can be written, nothing can be kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def leave(self, pages: int) -> None:
        size = (1 + pages) * PAGE
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._hard))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))


class Trial:
    """Signups and deliveries on one disk at every level, and what came of them."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.counters = Counters()
        self.faults: list[str] = []
        self.exits = 0
        self.blocked = 0
        self.slowest = 0.0

    def run(self, label: str) -> None:
        """Try every level."""
        for pages in progress(range(LEVELS), label):
            before = self.exits, self.blocked
            for try_out in (self._from_nothing, self._on_the_way):
                folder = self.disk.folder / "site"
                folder.mkdir()
                client = Client()
                site = Site(folder / "outbox.db", client)
                try:
                    try_out(site, client, pages)
                    self._end(site, client, f"{try_out.__name__}, {pages} pages")
                finally:
                    self.disk.make_room()
                    site.close()
                    shutil.rmtree(folder)
        if not self.exits or not self.blocked:
            self.faults.append(f"{label}: the disk was never full")
        if before != (self.exits, self.blocked):
            self.faults.append(f"{label}: {LEVELS} pages are still too few")

    def _from_nothing(self, site: Site, client: Client, pages: int) -> None:
        """The site is new on a disk that is nearly full."""
        self.disk.leave(pages)
        self._sign_up(site, "new", SIGNUPS)
        self._deliver(site)

    def _on_the_way(self, site: Site, client: Client, pages: int) -> None:
        """The disk fills when the first event has been posted and none is settled."""
        self._sign_up(site, "early", SIGNUPS)

        def fill() -> None:
            if sum(client.posts.values()) == 1:
                self.disk.leave(pages)

        client.meanwhile = fill
        self._deliver(site)
        self._sign_up(site, "late", SIGNUPS)
        self._deliver(site)
        self._deliver(site)

    def _sign_up(self, site: Site, name: str, count: int) -> None:
        for number in range(count):
            started = time.monotonic()
            status = site.sign_up(f"{name}-{number}")
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.counters.attempted += 1
            self.counters.acknowledged += status == 200
            if status != 200:
                self.faults.append(f"a signup was answered with {status}")

    def _deliver(self, site: Site) -> None:
        try:
            site.delivery.step()
        except OutboxError:
            self.blocked += 1

    def _end(self, site: Site, client: Client, words: str) -> None:
        """There is room again: see that all arrives."""
        notes = site.state.spool.read()
        self.exits += len(notes)
        self.disk.make_room()
        if not site.drain():
            self.faults.append(f"{words}: the delivery does not come to an end")
        counts = site.state.outbox.inspector.summary().counts
        told = 2 * SIGNUPS if "way" in words else SIGNUPS
        self.counters.delivered += len(client.posts)
        self.counters.duplicate_posts += client.duplicates
        self.counters.lost += told - len(client.posts)
        if client.duplicates:
            self.faults.append(f"{words}: {client.duplicates} events posted again")
        if counts != {"accepted": told} or site.state.spool.read():
            self.faults.append(f"{words}: left over {counts}")

    def row(self, disk: str) -> dict[str, t.Any]:
        """What was counted, for the table."""
        return {
            "disk": disk,
            "levels": LEVELS,
            "signups": self.counters.attempted,
            "through the exit": self.exits,
            "steps that could not write": self.blocked,
            "slowest signup, ms": round(self.slowest * 1000),
        }


def run() -> Findings:
    """Fill the disk, and then limit the files."""
    report = Findings("diskfull", Counters())
    with processes.scratch() as folder, Surprises() as surprises:
        with _other_disk(folder / "other"):
            with _mounted(folder / "mounted") as mounted:
                if mounted is not None:
                    _try(report, "full disk", FullDisk(mounted))
            limited = folder / "limited"
            limited.mkdir()
            _try(report, "limit on files", SizeLimit(limited))
    report.faults += surprises.words[:5]
    return report


def _try(report: Findings, name: str, disk: Disk) -> None:
    trial = Trial(disk)
    trial.run(name)
    report.rows.append(trial.row(name))
    report.faults += trial.faults
    if trial.slowest > BUDGET:
        report.faults.append(f"{name}: a signup took {trial.slowest:.1f} s")
    assert report.counters is not None
    report.counters += trial.counters


@contextlib.contextmanager
def _other_disk(folder: Path) -> t.Iterator[None]:
    """Where temporary files go meanwhile."""
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _mounted(folder: Path) -> t.Iterator[Path | None]:
    """A small file system of its own, or None where that is not allowed."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK * PAGE}", "reliability", str(folder)]
    try:
        mount = subprocess.run(["mount", *options], capture_output=True, check=False)
        mounted = mount.returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


command = harness()(run)
command.name = "diskfull"
