"""``python -m example_app``: the site, and beside it its game and a local MMOLove."""

from __future__ import annotations

import argparse
import contextlib
import typing as t
from pathlib import Path

from flask import Flask
from werkzeug.serving import make_server

from flask_mmolove.sandbox import Sandbox

from . import create_app
from . import keep_settings
from . import kept_secret
from .game import playing
from .models import find_player_by_id
from .ports import listen

HOST = "127.0.0.1"

GUIDE = """
{parts}

  1. Join as the referrer: {site}/join
  2. Copy your link from the Friends page.
  3. Open it in a private window, join there under another name, and close it.
     The friend's character gains levels all the same.
  4. Half a minute later, log out as the referrer, and log in again: the friend has
     passed level 20, and a cape is in your pack.
  5. {owner}

  Ctrl+C stops everything. {data}
"""


def main() -> None:
    options = parse_options()
    with contextlib.suppress(KeyboardInterrupt):
        (run_at_scale if options.scale else run)(options)


def run(options: argparse.Namespace) -> None:
    data = options.data.resolve()
    url = f"http://{HOST}:{options.port}"
    listen(HOST, options.sandbox_port, "--sandbox-port").close()
    with (
        listen(HOST, options.port, "--port") as listener,
        playing(data, options.level),
        Sandbox(
            server_id="lanternmoor",
            secret=kept_secret(data / "referral_secret"),
            registration_url=f"{url}/join",
            path=data / "sandbox.db",
            port=options.sandbox_port,
        ) as sandbox,
    ):
        settings = {
            **sandbox.settings,
            "PUBLIC_URL": url,
            "SANDBOX_URL": sandbox.url,
        }
        keep_settings(data, settings)
        app = create_app(settings, instance_path=str(data))
        fd = listener.fileno()
        server = make_server(HOST, options.port, app, threaded=True, fd=fd)
        parts = {
            "Lanternmoor": f"{url}/",
            "MMOLove": f"{sandbox.url}/  (the sandbox; nothing leaves this machine)",
            "The game": f"{data / 'game.db'}  (a program of its own)",
            "Data": f"{data}/",
        }
        show_guide(app, url, parts, "The data stays; delete its folder to start over.")
        server.serve_forever()


def run_at_scale(options: argparse.Namespace) -> None:
    from . import scale  # it needs more than the site itself

    url = f"http://{HOST}:{options.port}"
    ports = options.port, options.sandbox_port
    with scale.start(HOST, *ports, options.level) as running:
        show_guide(None, url, running.parts, "The data is deleted then.")
        running.watch()


def show_guide(
    app: Flask | None, url: str, parts: t.Mapping[str, object], data: str
) -> None:
    lines = "\n".join(f"  {name:<11}  {where}" for name, where in parts.items())
    owner = None
    if app is not None:
        with app.app_context():
            owner = find_player_by_id("1")
    words = "Whoever joined first owns the site, and" if owner is None else owner.name
    words = f"{words} sees the dashboard: {url}/mmolove"
    print(GUIDE.format(parts=lines, site=url, owner=words, data=data), flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m example_app", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=5000, help="the site's port (5000)")
    add("--sandbox-port", type=int, default=5001, help="the sandbox's port (5001)")
    # Flask's own instance folder, so that ``flask --app example_app`` finds the data.
    data = Path(Flask("example_app").instance_path)
    add("--data", type=Path, default=data, help="folder of all data (instance)")
    add("--level", type=float, default=1, help="seconds a level takes in the game (1)")
    add(
        "--scale",
        action="store_true",
        help="run on PostgreSQL and Celery, and start them; their data is not kept",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
