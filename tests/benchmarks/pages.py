"""What a page pays that has nothing to do with referrals, and what the import costs.

Counted in instructions, which repeat.
"""

from __future__ import annotations

import typing as t

from .instructions import count
from .instructions import count_start
from .instructions import SEEDS
from .row import Row

#: Others that a site has, for orientation.
_OTHERS = ("snippet", "login", "csrf")


def measure_page() -> t.Iterator[Row]:
    """A page for somebody who was not invited."""
    ratios = []
    for seed in SEEDS:
        bare = count("page", "nothing", seed=seed)
        hook = count("page", "hook", seed=seed) - bare
        ours = count("page", "mmolove", seed=seed) - bare
        ratios.append(ours / hook)
    # For orientation, with the last of them.
    figures = {"page": bare, "hook": hook, "ours": ours}
    figures |= {name: count("page", name, seed=seed) - bare for name in _OTHERS}
    yield Row(
        "a page, nobody invited",
        "an empty before_request hook",
        ratios,
        1.4,
        note=", ".join(f"{name} {n / 1e3:.0f} k" for name, n in figures.items()),
    )


def measure_again() -> t.Iterator[Row]:
    """A page for a visitor whose token is in the session already."""
    bare = count("again", "nothing")
    ours = count("again", "mmolove") - bare
    snippet = count("again", "snippet") - bare
    yield Row(
        "a page, the same token again",
        "MMOLove's lines to copy",
        [ours / snippet],
        0.27,
        note=f"+{ours / 1e3:.0f} k and no Set-Cookie, +{snippet / 1e3:.0f} k",
    )


def measure_import() -> t.Iterator[Row]:
    """``import flask_mmolove`` in a process that has Flask."""
    flask = count_start("import flask")
    ours = count_start("import flask, flask_mmolove") - flask
    yield Row(
        "import flask_mmolove",
        "import flask",
        [ours / flask],
        40 / 607,
        note=f"+{ours / 1e6:.0f} M to {flask / 1e6:.0f} M",
    )
