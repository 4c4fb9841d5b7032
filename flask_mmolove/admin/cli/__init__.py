"""``flask mmolove …``, for the owner of a site."""

import io
import os
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
@click.pass_context
def mmolove(ctx: click.Context) -> None:
    """Check, watch and repair your site's referrals.

    Begin with 'check'. From then on, 'status' shows whether anything needs you.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe may lack a character of a player's id.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
