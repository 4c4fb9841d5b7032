"""A kill before each commit and after it, with the outbox in the site's own PostgreSQL.

**What runs.** One story: a player signs up, that is delivered, they reach the
milestone, that is delivered and rewarded. These are its chapters. A first telling
counts the commits, the site's and the package's. For each of them, before it and after
it, then a child tells the story again and kills itself there, and a new process
delivers what is left.

**What is measured, and why it can fail.** As in ``database.py``. What belongs together
has to be in one commit, so whatever is in another one shows at one kill, every time,
and not by luck: an account and its event, a milestone and its event, a gift and the
ledger's ``rewarded``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import typing as t
from pathlib import Path
from unittest import mock

from example_app import servers

from . import processes
from .accounts import AccountSite
from .database import weigh
from .evidence import Evidence
from .report import Findings
from .report import harness
from .report import progress
from .server import Mood
from .server import StandIn
from .site import read_diary
from .site import warm_up

#: The most turns of a drain.
TURNS = 200


def run(url: str | None = None, only: t.Collection[str] = ()) -> Findings:
    """Kill a site before and after each commit.

    :param url: A PostgreSQL database that is to itself; one is started, unless given.
    :param only: Chapters whose commits are tried; all, unless given.
    """
    warm_up()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(processes.scratch())
        server = stack.enter_context(StandIn(Mood()))
        if url is None:
            database = stack.enter_context(servers.postgresql())
            url = database.render_as_string(hide_password=False)
        site = AccountSite(folder, server.endpoint, url)
        site.early = 1
        site.empty()
        chapters = _rehearse(site, folder)
        fatal = [n for n, name in enumerate(chapters) if not only or name in only]
        for number in progress(fatal, "Killing"):
            _tell_and_drain(site, f"player-{number}", number)
        history = server.history()
        evidence = Evidence.of(folder, database=url)
        report = weigh(evidence, site.rows(), history)
        site.close()
        fired = len(read_diary(folder, "F"))
    report.harness = "commits"
    report.figures = {"moments": len(fatal), "fired": fired, **report.figures}
    if not len(fatal) == fired > 0:
        report.faults.append(f"{len(fatal) - fired} of {len(fatal)} kills never fired")
    return report


def _rehearse(site: AccountSite, folder: Path) -> list[str]:
    """Tell the story to its end, and give the chapter of each of its moments."""
    script = folder / "moments"
    # The first telling makes what the others find, so it does not count.
    _tell_and_drain(site, "first")

    def work() -> None:
        script.write_text(" ".join(_tell(site, "rehearsal")))

    processes.was_killed(processes.fork(work))
    return script.read_text().split()


def _tell_and_drain(site: AccountSite, player: str, fatal: int | None = None) -> None:
    processes.was_killed(processes.fork(lambda: _tell(site, player, fatal)))
    processes.was_killed(processes.fork(lambda: site.drain(TURNS)))


def _tell(site: AccountSite, player: str, fatal: int | None = None) -> list[str]:
    """The story; gives the chapter of each moment."""
    passed: list[str] = []
    chapters: dict[str, t.Callable[[], object]] = {
        "signup": lambda: site.sign_up(player),
        "delivery": lambda: site.drain(TURNS),
        "milestone": lambda: site.qualify(player),
        "reward": lambda: site.drain(TURNS),
    }
    for name, tell in chapters.items():
        with _watched(site, name, passed, fatal):
            tell()
    return passed


@contextlib.contextmanager
def _watched(
    site: AccountSite, chapter: str, passed: list[str], fatal: int | None
) -> t.Iterator[None]:
    """Note the moments of each commit, and end this process at one."""
    import psycopg

    commit = psycopg.Connection.commit

    def reach() -> None:
        passed.append(chapter)
        if len(passed) - 1 == fatal:
            site.diary.note("F", chapter)
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(connection: t.Any) -> None:
        reach()
        commit(connection)
        reach()

    with mock.patch.object(psycopg.Connection, "commit", watched):
        yield


command = harness()(run)
