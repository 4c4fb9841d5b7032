"""``python -m tests.reliability``: lists the harnesses and runs one."""

from __future__ import annotations

import signal

import click

from . import celery
from . import commits
from . import crashpoints
from . import damage
from . import database
from . import diskfull
from . import doors
from . import faultserver
from . import mutants
from . import recycling
from . import soak
from . import startrace
from . import statemachine
from . import takeover


@click.group()
def main() -> None:
    """Try to break the promise of the outbox, and print what was counted.

    The exit status is 1 if a promise was broken.
    """


for harness in (
    soak,
    crashpoints,
    faultserver,
    statemachine,
    takeover,
    diskfull,
    damage,
    startrace,
    recycling,
    database,
    commits,
    celery,
    doors,
    mutants,
):
    main.add_command(harness.command)

if __name__ == "__main__":
    # What was started in the background ignores SIGINT, and so would waitress, which
    # stops by no other signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(prog_name="python -m tests.reliability")
