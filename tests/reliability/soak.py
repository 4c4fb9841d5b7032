"""SIGKILL at random moments, while two processes sign up, qualify and deliver.

**What runs.** Two workers of one site share an outbox. Each takes signups in requests,
says that three players of five reached the milestone, and delivers and rewards in the
package's own thread. One signup in sixteen is of a player whom another referrer had
registered before. The server meets a quarter of the posts with a fault, see
``server.py``. Every 5 to 120 ms a worker is killed and another forked in its place.
Then all are killed, the server behaves, and a new process delivers what is left; it has
to come to an end. With ``--pauses`` one is stopped now and then, for up to two leases,
while the other one takes over what it holds, and then continued.

**What is measured, and why it can fail.** The diary says what the site attempted and
was told, the server's history what arrived. The kills hit the moments that matter, else
the run proves nothing: some events are found delivered of which nobody was told
(``recovered``, killed between the commit and the answer), some are posted twice
(``duplicate posts``, killed between the post and its settlement) and some rewards are
called for twice (``repeated calls``, killed between the reward and its settlement).

A callback that is called at least once cannot be called exactly once, so the game here
does what a game is asked to do: it honours the key. What can go wrong all the same is
counted: a reward under a second key, or for a referral that was never credited
(``double rewards``), and a credited referral that nobody was rewarded for (``missing
rewards``). With ``--at-most-once`` the game honours nothing and each second call is
``double``. With ``--milestone`` the site finds in the game's record who has reached it,
by ``@mmolove.milestone``; a friend whom no round finds is ``lost``. All friends came by
one player's link, and their numbers have to be 1, 2, 3 and so on.

**What is not.** Real pauses shape the run: a 429 asks for a second's timeout, and when
five faults come in a row the breaker opens and nothing is sent for a while. So what is
sent between two kills differs, and the number of posts from run to run. The loss of
power is not tried.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time

import click

from . import processes
from .evidence import Evidence
from .report import Findings
from .report import harness
from .report import progress
from .server import Mood
from .server import StandIn
from .server import TAKEN
from .site import LEASE
from .site import Site
from .site import warm_up

WORKERS = 2

#: Seconds between two kills.
SOONEST, LATEST = 0.005, 0.120

#: Seconds between two signups of a worker.
PACE = 0.05

#: The share of posts that meet a fault.
RATE = 0.25


def run(
    kills: int, pauses: int = 0, at_most_once: bool = False, milestone: bool = False
) -> Findings:
    """Kill and pause while two workers sign up, qualify and deliver."""
    warm_up()
    with processes.scratch() as folder, StandIn(Mood(rate=RATE)) as server:
        site = Site(
            folder,
            server.endpoint,
            delivery="thread",
            timeout=0.3,
            at_most_once=at_most_once,
            asks=milestone,
        )
        started = time.monotonic()
        _soak(site, kills, pauses)
        seconds = time.monotonic() - started
        outage = _outage(site)
        server.behave(Mood())
        before = len(server.history())
        processes.was_killed(processes.fork(site.drain))
        history = server.history()
        evidence = Evidence.of(folder, at_most_once)
        site.close()
    counters = evidence.weigh(history)
    return Findings(
        "soak",
        counters,
        figures={
            "kills": kills,
            "pauses": pauses,
            "kills_per_second": round(kills / seconds, 1),
            "posts": len(history),
            "posts_in_the_drain": len(history) - before,
            "faults_met": sum(e.outcome == "fault" for e in history),
            "rewards": len(evidence.rewards) - counters.repeated_calls,
            "breaker_open_seconds": outage,
        },
        faults=evidence.faults(),
    )


class Workers:
    """Two processes of a site, which sign up, qualify and deliver until killed.

    :param pace: Seconds between two signups of one.
    :ivar names: How the players of each begin.
    """

    def __init__(self, site: Site, pace: float) -> None:
        self._site = site
        self._pace = pace
        self._harness = os.getpid()
        self._numbers = map(str, itertools.count())
        self.names = [next(self._numbers) for _ in range(WORKERS)]
        self._pids = [self._start(name) for name in self.names]

    def replace_one(self) -> None:
        """Kill one, and begin another in its place."""
        place = random.randrange(WORKERS)
        processes.kill(self._pids[place])
        self.names[place] = next(self._numbers)
        self._pids[place] = self._start(self.names[place])

    def pause_one(self) -> None:
        """Stop one for a while, and let it go on."""
        pid = random.choice(self._pids)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(random.uniform(0, 2 * LEASE / 1000))
        os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill them all."""
        for pid in self._pids:
            processes.kill(pid)

    def _start(self, name: str) -> int:
        return processes.fork(
            lambda: _work(self._site, name, self._harness, self._pace)
        )


def _soak(site: Site, kills: int, pauses: int) -> None:
    workers = Workers(site, PACE)
    moves = [workers.replace_one] * kills + [workers.pause_one] * pauses
    random.shuffle(moves)
    for move in progress(moves, "Killing"):
        time.sleep(random.uniform(SOONEST, LATEST))
        move()
    workers.kill()


def _work(site: Site, name: str, harness: int, pace: float) -> None:
    """Sign up and qualify until killed; the thread of the package delivers."""
    random.seed()
    for number in itertools.count():
        if os.getppid() != harness:
            return
        prefix = TAKEN if random.random() < 1 / 16 else ""
        player = f"{prefix}{name}-{number}"
        site.sign_up(player)
        if random.random() < 3 / 5:
            site.qualify(player)
        time.sleep(random.uniform(0, 2 * pace))


def _outage(site: Site) -> float:
    """Seconds for which the breaker was open in all."""
    now = int(time.time() * 1000)
    return round((now - site.state.outbox.breaker().uptime(now)) / 1000, 1)


command = harness(
    click.option("--kills", default=300, show_default=True, help="How many."),
    click.option("--pauses", default=0, show_default=True, help="How many."),
    click.option("--at-most-once", is_flag=True, help="Reward at most once."),
    click.option("--milestone", is_flag=True, help="Find milestones by asking."),
)(run)
