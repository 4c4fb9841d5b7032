"""What the worker of ``celery.py`` is started with: ``celery -A`` imports it."""

from __future__ import annotations

from .celery import make_site

site = make_site()

#: The site's Celery app.
app = site.app.extensions["celery"]
