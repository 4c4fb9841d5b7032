"""``flask mmolove …``, for the owner of a site."""

import io
import sys

import click

from .check import check
from .deliver import deliver
from .events import events
from .events import export
from .events import show
from .init_db import init_db
from .players import forget
from .players import purge
from .players import referrers
from .qualify import qualify
from .retry import retry
from .rewards import rewards
from .sandbox import sandbox
from .status import status


@click.group(
    commands=[
        check,
        deliver,
        events,
        export,
        forget,
        init_db,
        purge,
        qualify,
        referrers,
        retry,
        rewards,
        sandbox,
        show,
        status,
    ]
)
def mmolove() -> None:
    """Check, watch and repair referrals with MMOLove."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe may lack a character of a player's id.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
