"""The site's Celery app, as Flask's documentation has it."""

from __future__ import annotations

import typing as t

from celery import Celery
from celery import Task
from flask import Flask

from flask_mmolove.delivery.celery import ASK
from flask_mmolove.delivery.celery import BEAT_SCHEDULE
from flask_mmolove.delivery.celery import EXPIRES


def init_celery(app: Flask) -> None:
    """Make the app's own, in ``app.extensions["celery"]``."""

    class FlaskTask(Task):  # type: ignore[misc]
        def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.conf.beat_schedule = {
        **BEAT_SCHEDULE,
        # The site's processes see to this too, but not every few seconds.
        "milestone": {
            "task": ASK,
            "schedule": float(app.config["MMOLOVE_MILESTONE_INTERVAL"]),
            "options": {"expires": EXPIRES},
        },
    }
    celery_app.set_default()
    app.extensions["celery"] = celery_app
