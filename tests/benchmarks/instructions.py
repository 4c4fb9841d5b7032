"""What a piece of work costs the processor, in instructions.

Times wander by a half on a shared machine; instructions repeat to a thousandth. A probe
is run twice under valgrind with different numbers of turns, and the difference is what
the turns cost, without the start of the interpreter.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: Numbers of turns that are compared, unless a probe is told otherwise.
TURNS = (50, 350)

#: Seeds of Python's hashes. Each lays things out differently in memory, which matters
#: to CPython's cache of types' attributes: two names of one place replace each other.
SEEDS = (0, 1, 2, 3, 4)

_ROOT = Path(__file__).parents[2]


class Missing(Exception):
    """There is no valgrind here."""


def count(
    probe: str,
    *arguments: str,
    turns: tuple[int, int] = TURNS,
    seed: int = SEEDS[0],
) -> float:
    """The instructions of one turn of a probe.

    :param probe: Its name in :mod:`tests.benchmarks.probes`.
    :param arguments: What it takes besides.
    :param seed: One of :data:`SEEDS`.
    :raises Missing: If valgrind is not installed.
    """
    # Unlike times, they do not mind what else the machine does.
    with ThreadPoolExecutor() as pool:
        few, many = pool.map(
            lambda n: _run(probe, str(n), *arguments, seed=seed), turns
        )
    return (many - few) / (turns[1] - turns[0])


def count_start(statement: str) -> int:
    """The instructions of a fresh interpreter that executes a statement, with all that
    it imports compiled already.
    """
    command = [sys.executable, "-c", statement]
    with tempfile.TemporaryDirectory() as cache:
        environ = {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        subprocess.run(command, cwd=_ROOT, env={**os.environ, **environ}, check=True)
        return _count(command, **environ)


def _run(*arguments: str, seed: int) -> int:
    command = [sys.executable, "-m", "tests.benchmarks.probes", *arguments]
    return _count(command, PYTHONHASHSEED=str(seed))


def _count(command: list[str], **environ: str) -> int:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Missing("valgrind is not installed")
    done = subprocess.run(
        [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
        cwd=_ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", **environ},
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr[-2000:]}")
    return int(found[1])
