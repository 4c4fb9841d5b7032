"""``python -m example_app``: the site, and beside it a stand-in for MMOLove."""

from __future__ import annotations

import argparse
import contextlib
import typing as t
from pathlib import Path

from werkzeug.serving import make_server

from flask_mmolove.sandbox import Sandbox

from . import create_app
from . import kept_secret

HOST = "127.0.0.1"

GUIDE = """
{parts}

  1. Join as the inviter: {site}/join
  2. Copy your link from the Friends page.
  3. Open it in a private window, and join there under another name.
  4. As that friend, press Fight until level 20.
  5. Load the inviter's Friends page again: the cape is there.
  6. Who joined first runs the game: as the inviter, see {site}/mmolove

  Ctrl+C ends all of it. {data}
"""


def main() -> None:
    options = parse_options()
    with contextlib.suppress(KeyboardInterrupt):
        run_at_scale(options) if options.scale else run(options)


def run(options: argparse.Namespace) -> None:
    data = options.data.resolve()
    url = f"http://{HOST}:{options.port}"
    with Sandbox(
        server_id="lanternmoor",
        secret=kept_secret(data / "referral_secret"),
        registration_url=f"{url}/join",
        path=data / "sandbox.db",
        port=options.sandbox_port,
    ) as sandbox:
        urls = {"PUBLIC_URL": url, "SANDBOX_URL": sandbox.url}
        app = create_app({**urls, **sandbox.settings}, instance_path=str(data))
        # A port that is taken ends here, and in the line above, with a plain message.
        server = make_server(HOST, options.port, app, threaded=True)
        parts = {
            "Lanternmoor": f"{url}/",
            "MMOLove": f"{sandbox.url}/  (a stand-in; the real one is not asked)",
            "Data": data,
        }
        show_guide(url, parts, "The data stays; delete its folder to begin anew.")
        server.serve_forever()


def run_at_scale(options: argparse.Namespace) -> None:
    from . import scale  # it needs more than the site itself

    url = f"http://{HOST}:{options.port}"
    with scale.start(HOST, options.port, options.sandbox_port) as running:
        show_guide(url, running.parts, "The data goes with it.")
        running.watch()


def show_guide(url: str, parts: t.Mapping[str, object], data: str) -> None:
    lines = "\n".join(f"  {name:<11}  {where}" for name, where in parts.items())
    print(GUIDE.format(parts=lines, site=url, data=data), flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m example_app", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=5000, help="where the site is (5000)")
    add("--sandbox-port", type=int, default=5001, help="where the stand-in is (5001)")
    add(
        "--data",
        type=Path,
        default="instance",
        help="folder of all data (instance)",
    )
    add(
        "--scale",
        action="store_true",
        help="on PostgreSQL and Celery, which are started too; their data is not kept",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
