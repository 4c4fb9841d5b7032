"""``python -m example_app``: the site, and beside it a local MMOLove."""

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

  1. Join as the referrer: {site}/join
  2. Copy your link from the Friends page.
  3. Open it in a private window, and join there under another name.
  4. As that friend, press Fight until level 20.
  5. Reload the referrer's Friends page: the cape is there.
  6. Whoever joined first owns the site: as the referrer, see {site}/mmolove

  Ctrl+C stops everything. {data}
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
        # A port that is in use ends here, or in Sandbox, with a plain message.
        server = make_server(HOST, options.port, app, threaded=True)
        parts = {
            "Lanternmoor": f"{url}/",
            "MMOLove": f"{sandbox.url}/  (the sandbox; nothing leaves this machine)",
            "Data": data,
        }
        show_guide(url, parts, "The data stays; delete its folder to start over.")
        server.serve_forever()


def run_at_scale(options: argparse.Namespace) -> None:
    from . import scale  # it needs more than the site itself

    url = f"http://{HOST}:{options.port}"
    with scale.start(HOST, options.port, options.sandbox_port) as running:
        show_guide(url, running.parts, "The data is deleted then.")
        running.watch()


def show_guide(url: str, parts: t.Mapping[str, object], data: str) -> None:
    lines = "\n".join(f"  {name:<11}  {where}" for name, where in parts.items())
    print(GUIDE.format(parts=lines, site=url, data=data), flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m example_app", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=5000, help="the site's port (5000)")
    add("--sandbox-port", type=int, default=5001, help="the sandbox's port (5001)")
    add(
        "--data",
        type=Path,
        default="instance",
        help="folder of all data (instance)",
    )
    add(
        "--scale",
        action="store_true",
        help="run on PostgreSQL and Celery, and start them; their data is not kept",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
