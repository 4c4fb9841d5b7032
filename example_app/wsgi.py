"""The site for a server and for workers, with its settings from the environment.

.. code-block:: sh

    gunicorn example_app.wsgi:app
    celery -A example_app.wsgi:celery_app worker --beat
"""

from __future__ import annotations

import os

from . import create_app

app = create_app(instance_path=os.environ.get("LANTERNMOOR_DATA"))
celery_app = app.extensions.get("celery")
