"""Take the picture of the dashboard: ``python docs/picture.py``.

It needs the extra ``test``, and Chromium.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from pathlib import Path

from flask import Flask
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

from flask_mmolove import MMOLove
from flask_mmolove.clock import milliseconds
from flask_mmolove.outbox.counters import arrived
from flask_mmolove.outbox.invitation import Invitation
from flask_mmolove.sandbox import Sandbox
from flask_mmolove.state import State

PICTURE = Path(__file__).parent / "_static" / "dashboard.png"

REFERRERS = ["7842", "1203", "911", "4410", None]
HOUR = 3_600_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Sandbox() as sandbox:
        app = Flask("moor", instance_path=folder)
        app.config.update(sandbox.settings, SECRET_KEY="-", MMOLOVE_DELIVERY="manual")
        mmolove = MMOLove(app)
        mmolove.reward(lambda referral: None)
        dashboard = mmolove.dashboard(access=lambda: True, site_name="Lanternmoor")
        app.register_blueprint(dashboard, url_prefix="/mmolove")
        fill(app.extensions["mmolove"], sandbox)
        server = make_server("127.0.0.1", 0, app)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        photograph(f"http://127.0.0.1:{server.server_port}/mmolove/")
        server.shutdown()


def fill(state: State, sandbox: Sandbox) -> None:
    """Bring some friends within thirty days."""
    dice, now = random.Random(7), milliseconds()
    for friend in range(41):
        referrer = dice.choices(REFERRERS, [9, 6, 4, 2, 3])[0]
        invitation = Invitation(sandbox.mint(), referrer)
        moment = now - (41 - friend) * 17 * HOUR
        names = ["registered", "qualified"][: 1 + (dice.random() < 0.5)]
        visits = dice.randrange(1, 5)
        state.outbox.count([arrived(moment, referrer)] * visits, 1)
        report = state.recorder.report(str(9000 + friend), invitation, *names)
        state.recorder.record(report._replace(moment=moment))
        state.make_delivery().drain()


def photograph(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 960, "height": 570})
        page.goto(url)
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
