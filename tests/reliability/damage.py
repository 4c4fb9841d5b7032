"""Damage to the file of the outbox, before the site starts and while it runs.

**What runs.** An outbox with eighty pending events fills about twenty pages. In each
round another process damages the file in one of the ways of :data:`KINDS`, at another
page each time; signups come in, the delivery runs, the site is started again, and more
signups come in. In half of the rounds the site is quiet: the delivery has to notice the
damage by itself. Each round is a process of its own, and an ordinary user's: nothing is
read-only for root.

**What is measured, and why it can fail.** Which rows have to survive is known without
the package: those whose body stands, byte for byte, on no other page than those that
the damage left alone. Each of them has to be delivered, and so has each new signup; no
request may raise or be answered with anything but 200; and in the end the outbox itself
takes events again, not the spool alone. How many rows a round was to save is
counted, for a round in which nothing had to survive shows little.

A row on a damaged page may come back altered, as SQLite keeps no checksums; how many
did is counted as ``altered``.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import struct
import tempfile
import typing as t
from pathlib import Path

import click

from . import processes
from .inprocess import Client
from .inprocess import Site
from .inprocess import Surprises
from .report import Counters
from .report import Findings
from .report import harness
from .report import progress

PAGE = 4096
NOBODY = 65534

#: Events in the outbox, and what fills them up.
ROWS = 80
PADDING = "x" * 100


class Scene(t.NamedTuple):
    """Where damage is done.

    :param path: The file of the outbox.
    :param image: What it holds.
    :param page: The page to damage, counted from 0.
    :param running: Whether the site has the file open.
    """

    path: Path
    image: bytes
    page: int
    running: bool
    random: random.Random

    @property
    def pages(self) -> set[int]:
        """All there are."""
        return set(range(len(self.image) // PAGE))

    def overwrite(self, position: int, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(position)
            file.write(content)

    def replace(self, content: bytes) -> None:
        """Put another file in the place of this one."""
        other = self.path.with_name("other")
        other.write_bytes(content)
        other.replace(self.path)

    @property
    def touched_by_removal(self) -> set[int]:
        """A site that has the file open can still read it."""
        return set() if self.running else self.pages


def garbage(scene: Scene) -> set[int]:
    """All is overwritten."""
    scene.overwrite(0, scene.random.randbytes(len(scene.image)))
    return scene.pages


def garbage_page(scene: Scene) -> set[int]:
    """A page is overwritten."""
    scene.overwrite(scene.page * PAGE, scene.random.randbytes(PAGE))
    return {scene.page}


def zero_page(scene: Scene) -> set[int]:
    """A page is nothing but zeros."""
    scene.overwrite(scene.page * PAGE, bytes(PAGE))
    return {scene.page}


def cut(scene: Scene) -> set[int]:
    """The file ends with a page."""
    os.truncate(scene.path, scene.page * PAGE)
    return {page for page in scene.pages if page >= scene.page}


def cut_within(scene: Scene) -> set[int]:
    """The file ends within a page."""
    os.truncate(scene.path, scene.page * PAGE + scene.random.randrange(1, PAGE))
    return {page for page in scene.pages if page >= scene.page}


def flip(scene: Scene) -> set[int]:
    """Some byte of a page is another."""
    return _flip(scene, scene.page, range(PAGE))


def flip_head(scene: Scene) -> set[int]:
    """A byte among the first hundred of a page: its header, where it has one."""
    return _flip(scene, scene.page, range(100))


def flip_schema(scene: Scene) -> set[int]:
    """A byte of what says which tables there are."""
    return _flip(scene, 0, range(100, PAGE))


def flip_index(scene: Scene) -> set[int]:
    """A byte of a page on which no event stands, and by which some are found."""
    needle = b'"server_event_id"'
    pages = [
        page
        for page in sorted(scene.pages - {0})
        if needle not in scene.image[page * PAGE :][:PAGE]
    ]
    return _flip(scene, scene.random.choice(pages), range(PAGE))


def _flip(scene: Scene, page: int, offsets: range) -> set[int]:
    used = [offset for offset in offsets if scene.image[page * PAGE + offset]]
    position = page * PAGE + scene.random.choice(used)
    byte = scene.image[position] ^ scene.random.randrange(1, 256)
    scene.overwrite(position, bytes([byte]))
    return {page}


def empty(scene: Scene) -> set[int]:
    """The file is there, with nothing in it."""
    os.truncate(scene.path, 0)
    return scene.pages


def unlink(scene: Scene) -> set[int]:
    """The file is gone."""
    scene.path.unlink()
    return scene.touched_by_removal


def move(scene: Scene) -> set[int]:
    """The file has another name."""
    scene.path.rename(scene.path.with_name("elsewhere"))
    return scene.touched_by_removal


def replace(scene: Scene) -> set[int]:
    """Another file is there: the same outbox, older."""
    scene.replace(older_image())
    return scene.touched_by_removal


def replace_by_garbage(scene: Scene) -> set[int]:
    """Another file is there, and it is no outbox."""
    scene.replace(scene.random.randbytes(len(scene.image)))
    return scene.touched_by_removal


def read_only(scene: Scene) -> set[int]:
    """The file may not be written to."""
    scene.path.chmod(0o400)
    return set()


def read_only_folder(scene: Scene) -> set[int]:
    """Nothing may be made or removed beside the file."""
    scene.path.parent.chmod(0o500)
    return set()


def unreadable(scene: Scene) -> set[int]:
    """The file may not even be read."""
    scene.path.chmod(0)
    return set()


def junk_journal(scene: Scene) -> set[int]:
    """A journal stands beside the file, and it is none."""
    _journal_of(scene.path).write_bytes(scene.random.randbytes(3 * PAGE))
    return set()


def stale_journal(scene: Scene) -> set[int]:
    """A journal stands beside the file that SQLite has to believe: it puts a page back
    to what it was long ago.
    """
    # https://www.sqlite.org/fileformat2.html, section 3
    old = older_image()
    page = old[scene.page * PAGE :][:PAGE].ljust(PAGE, b"\0")
    checksum = 7 + sum(page[place] for place in range(PAGE - 200, 0, -200))
    count = len(scene.image) // PAGE
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">5I", 1, 7, count, 512, PAGE)
    record = struct.pack(">I", scene.page + 1) + page + struct.pack(">I", checksum)
    _journal_of(scene.path).write_bytes(header.ljust(512, b"\0") + record)
    return {scene.page}


def _journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


Kind = t.Callable[[Scene], set[int]]

#: Each does its damage and gives the pages that it touched.
KINDS: t.Sequence[Kind] = [
    garbage,
    garbage_page,
    zero_page,
    cut,
    cut_within,
    flip,
    flip_head,
    flip_schema,
    flip_index,
    empty,
    unlink,
    move,
    replace,
    replace_by_garbage,
    read_only,
    read_only_folder,
    unreadable,
    junk_journal,
    stale_journal,
]

#: Those that are done at one page after another.
_AT_A_PAGE = {garbage_page, zero_page, cut, cut_within, flip, flip_head, stale_journal}


def _image(rows: int) -> bytes:
    """The file of an outbox with so many pending events."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.db"
        site = Site(path, Client())
        for number in range(rows):
            site.sign_up(f"old-{number}-{PADDING}")
        site.warm_up()
        site.close()
        return path.read_bytes()


@functools.cache
def whole_image() -> bytes:
    """What the file holds at the beginning of each round."""
    return _image(ROWS)


@functools.cache
def older_image() -> bytes:
    """What stood there when there were half as many events."""
    return _image(ROWS // 2)


def survivors(image: bytes, touched: set[int]) -> set[str]:
    """The ids of the events whose bodies stand on no touched page."""
    found = set()
    for number in range(ROWS):
        event_id = f"reg-old-{number}-{PADDING}"
        # The end of a body, from the player's id on, which is nobody else's.
        needle = f'"server_event_id":"{event_id}"'.encode()
        pages = set()
        place = image.find(needle)
        while place >= 0:
            # The body begins some hundred bytes before that, on the same page.
            pages |= {place // PAGE, (place + len(needle)) // PAGE}
            place = image.find(needle, place + 1)
        if not pages:
            raise RuntimeError("A row was not found in the file it was written to.")
        if not pages & touched:
            found.add(event_id)
    return found


class Finding(t.NamedTuple):
    """What a round showed. Events are named by their ids."""

    survivors: int
    told: int
    delivered: int
    duplicates: int
    lost: list[str]
    altered: int
    faults: list[str]


class Round(t.NamedTuple):
    """What is done in a round.

    :param running: While the site runs, or before it starts.
    :param quiet: No signup comes before the delivery turns.
    """

    kind: Kind
    page: int
    running: bool
    quiet: bool

    def __str__(self) -> str:
        when = "while it runs" if self.running else "before it starts"
        how = "quiet" if self.quiet else "with signups"
        return f"{self.kind.__name__}, page {self.page}, {when}, {how}"


def try_out(folder: Path, round: Round, seed: int) -> Finding:
    """One round."""
    image = whole_image()
    path = folder / "site" / "outbox.db"
    path.parent.mkdir()
    path.write_bytes(image)
    # What an outbox has beside it from its first day; without it a file that cannot be
    # read counts as somebody else's, and is not touched.
    path.with_name(f"{path.name}-lock").touch()
    client = Client()
    site = Site(path, client)
    faults: list[str] = []
    told: set[str] = set()

    def sign_up(name: str) -> None:
        try:
            status = site.sign_up(name)
        except Exception as e:
            faults.append(f"a request raised {e!r}")
            return
        told.add(f"reg-{name}")
        if status != 200:
            faults.append(f"a request was answered with {status}")

    def drain() -> bool:
        try:
            return site.drain()
        except Exception as e:
            faults.append(f"the delivery raised {e!r}")
            return False

    with Surprises() as surprises:
        if round.running:
            site.warm_up()
        scene = Scene(path, image, round.page, round.running, random.Random(seed))
        must = survivors(image, _in_another_process(scene, round.kind))
        if not round.quiet:
            sign_up("new-1")
            sign_up("new-2")
        drain()
        _mend(path)
        drain()
        if waiting := must - client.posts.keys():
            faults.append(f"{len(waiting)} are not delivered before the next signup")
        sign_up("new-3")
        drain()
        site.close()
        site = Site(path, client)
        sign_up("new-4")
        if not drain():
            faults.append("the delivery does not come to an end")
        sign_up("new-5")
        if site.state.spool.read():
            faults.append("the outbox takes nothing any more")
        drain()
        site.close()
    faults += surprises.words
    known = {f"reg-old-{number}-{PADDING}" for number in range(ROWS)} | told
    return Finding(
        survivors=len(must),
        told=len(told),
        delivered=len(client.posts.keys() & known),
        duplicates=client.duplicates,
        lost=sorted((must | told) - client.posts.keys()),
        altered=len(client.posts.keys() - known),
        faults=[*dict.fromkeys(faults)],
    )


def _in_another_process(scene: Scene, kind: Kind) -> set[int]:
    """Do the damage: this process must not close the file, for that drops its locks."""
    result = scene.path.parent.parent / "touched"
    pid = processes.fork(lambda: result.write_text(json.dumps([*kind(scene)])))
    processes.was_killed(pid)
    return set(json.loads(result.read_text()))


def _mend(path: Path) -> None:
    """A person gives the rights back."""
    path.parent.chmod(0o700)
    if path.exists():
        path.chmod(0o600)


def run(rounds: int, seed: int) -> Findings:
    """Damage the file in one way after the other."""
    report = Findings("damage", counters := Counters())
    pages = len(whole_image()) // PAGE
    older_image()
    plan = list(itertools.islice(_plan(pages), rounds))
    must = altered = 0
    with processes.scratch() as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        for number, round in enumerate(progress(plan, "Damaging")):
            found = _as_nobody(folder / str(number), round, seed + number)
            must += found.survivors
            altered += found.altered
            counters.attempted += found.told + ROWS
            counters.acknowledged += found.told + found.survivors
            counters.delivered += found.delivered
            counters.duplicate_posts += found.duplicates
            counters.lost += len(found.lost)
            report.faults += [f"{round}: {fault}" for fault in found.faults]
            if found.lost:
                first = found.lost[0].removesuffix(f"-{PADDING}")
                report.faults.append(f"{round}: {len(found.lost)} lost, {first} first")
    report.figures = {
        "rounds": rounds,
        "kinds": len({round.kind for round in plan}),
        "pages": pages,
        "rows_that_had_to_survive": must,
        "altered": altered,
    }
    return report


def _plan(pages: int) -> t.Iterator[Round]:
    """Kinds, pages and times, so that a short run has some of each."""
    for turn in itertools.count():
        for place, kind in enumerate(KINDS):
            page = (turn // 4 * 5 + turn + place) % pages if kind in _AT_A_PAGE else 0
            when = turn + place
            yield Round(kind, page, running=when % 2 == 0, quiet=when // 2 % 2 == 0)


def _as_nobody(place: Path, round: Round, seed: int) -> Finding:
    """A round in a process of its own, that of an ordinary user."""

    def work() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        place.mkdir()
        tempfile.tempdir = str(place)
        finding = try_out(place, round, seed)
        (place / "finding").write_text(json.dumps(finding))

    processes.was_killed(processes.fork(work))
    return Finding(*json.loads((place / "finding").read_text()))


command = harness(
    click.option("--rounds", default=100, show_default=True, help="How many."),
    click.option("--seed", default=7, show_default=True, help="Of what is random."),
)(run)
command.name = "damage"
