"""``python -m example_app``: the site, and beside it a stand-in for MMOLove."""

from __future__ import annotations

import argparse
from pathlib import Path

from werkzeug.serving import make_server

from flask_mmolove.sandbox import Sandbox

from . import create_app
from . import kept_secret

HOST = "127.0.0.1"

GUIDE = """
  Lanternmoor  {site}/
  MMOLove      {sandbox}/  (a stand-in; the real one is not asked)
  Data         {data}

  1. Join as the inviter: {site}/join
  2. Copy your link from the Friends page.
  3. Open it in a private window, and join there under another name.
  4. As that friend, press Fight until level 20.
  5. Load the inviter's Friends page again: the cape is there.

  Ctrl+C ends both. The data stays; delete its folder to begin anew.
"""


def main() -> None:
    options = parse_options()
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
        print(GUIDE.format(site=url, sandbox=sandbox.url, data=data), flush=True)
        server.serve_forever()


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
    return parser.parse_args()


if __name__ == "__main__":
    main()
