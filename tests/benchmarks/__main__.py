"""``python -m tests.benchmarks``: all of them, as one table of ratios."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import click

from . import crowd
from . import instructions
from . import milestones
from . import pages
from . import sending
from . import signup
from . import store
from . import worker
from .row import Row
from .row import table

MEASURES: list[t.Callable[[], t.Iterator[Row]]] = [
    pages.measure_page,
    pages.measure_again,
    signup.measure_signup,
    signup.measure_session,
    crowd.measure_crowd,
    sending.measure_work,
    sending.measure_rate,
    sending.measure_tls,
    sending.measure_far,
    store.measure_pending,
    store.measure_idle,
    milestones.measure_round,
    worker.measure_celery,
    pages.measure_import,
]


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write it there.")
def main(file: Path | None) -> None:
    """Measure what the extension costs, beside what a site would pay otherwise.

    A ratio is the middle one of several, each of two things run in turn. Instructions
    are counted with valgrind, which has to be installed.
    """
    rows: list[Row] = []
    with click.progressbar(MEASURES, label="Measuring") as measures:
        for measure in measures:
            try:
                rows += measure()
            except instructions.Missing as e:
                raise click.ClickException(str(e)) from e
    click.echo(table(rows))
    if file is not None:
        file.write_text(json.dumps([row.data() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m tests.benchmarks")
