"""Forks, kills and scratch files."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import traceback
import typing as t
from pathlib import Path

from example_app.servers import memory


def fork(work: t.Callable[[], object]) -> int:
    """Do something in a child, which ends with it, and give the child's pid.

    A fork copies one thread only and every lock as it stands, so a process with
    threads must not fork; and the child leaves without running what its parent set up
    to run at exit.
    """
    if threading.active_count() > 1:
        raise RuntimeError("A process with threads must not fork.")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def kill(pid: int) -> bool:
    """Kill a child with SIGKILL, and say whether that is what it died of."""
    os.kill(pid, signal.SIGKILL)
    return was_killed(pid)


def was_killed(pid: int) -> bool:
    """Wait for a child, and say whether it died of SIGKILL.

    :raises RuntimeError: If it failed by itself.
    """
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status:
        raise RuntimeError(f"A process of the harness failed (status {status}).")
    return False


@contextlib.contextmanager
def scratch() -> t.Iterator[Path]:
    """A folder for the files of a run, in memory where the system has that.

    What a killed process wrote survives it in either place: SIGKILL takes a process,
    not the system's cache. Power cuts are not tried here.
    """
    with tempfile.TemporaryDirectory(prefix="reliability-", dir=memory()) as folder:
        yield Path(folder)
