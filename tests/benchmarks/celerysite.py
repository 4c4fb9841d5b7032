"""What a Celery worker of ``worker.py`` is started with: ``celery -A`` imports it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery
from flask import Flask

from flask_mmolove import MMOLove

celery_app = Celery("benchmarks", broker=os.environ["BENCHMARKS_BROKER"])
celery_app.conf.broker_connection_retry_on_startup = True
celery_app.conf.task_ignore_result = True

site = Flask(__name__, instance_path=os.environ["BENCHMARKS_FOLDER"])
site.config.update(
    SECRET_KEY="k",
    MMOLOVE_SERVER_ID="srv",
    MMOLOVE_REFERRAL_SECRET="s",
    MMOLOVE_ENDPOINT=os.environ["BENCHMARKS_ENDPOINT"],
    MMOLOVE_DELIVERY="celery",
)
site.extensions["celery"] = celery_app
MMOLove(site)


@celery_app.task  # type: ignore[untyped-decorator]
def nothing() -> None:
    """Do nothing."""


@celery_app.task  # type: ignore[untyped-decorator]
def mark(path: str) -> None:
    """Note the time."""
    Path(path).write_text(str(time.time()))
