"""A site that delivers by Celery, for a worker in a process of its own. The settings
come from the environment.

.. code-block:: sh

    celery -A celerysite:celery_app worker
"""

from __future__ import annotations

import os

from celery import Celery
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.delivery.celery import BEAT_SCHEDULE

celery_app = Celery("site", broker=os.environ["CELERYSITE_BROKER"])
celery_app.conf.beat_schedule = {**BEAT_SCHEDULE}

app = Flask(__name__, instance_path=os.environ["CELERYSITE_FOLDER"])
app.config.from_prefixed_env()
app.extensions["celery"] = celery_app
mmolove = MMOLove(app)


@mmolove.reward
def grant(referral: Referral) -> None:
    with open(os.environ["CELERYSITE_FOLDER"] + "/rewards", "a") as file:
        file.write(f"{referral.reward_key} {os.getpid()}\n")


@celery_app.task(name="signup")  # type: ignore[untyped-decorator]
def sign_up(player: str, token: str) -> None:
    with app.app_context():
        registered(player, token=token)
