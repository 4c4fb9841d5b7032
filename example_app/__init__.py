"""Lanternmoor: a small private-server site with referrals, to run and to copy from.

``python -m example_app`` starts it together with its game and the sandbox, a local
MMOLove. What it does about referrals is in ``referrals.py``.
"""

from __future__ import annotations

import json
import secrets
import typing as t
from pathlib import Path

from flask import current_app
from flask import Flask
from flask import render_template
from flask import Response
from flask_login import LoginManager
from flask_wtf.csrf import CSRFProtect
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import ServiceUnavailable

from flask_mmolove import invitations

from . import models
from .models import db
from .referrals import is_owner
from .referrals import mmolove
from .views import play
from .views import site

#: The file in its folder with which ``python -m example_app`` started last.
SETTINGS = "settings.json"

csrf = CSRFProtect()
login_manager = LoginManager()
login_manager.user_loader(models.load_player)

DEFAULTS = {
    "SQLALCHEMY_DATABASE_URI": "sqlite:///lanternmoor.db",
    "SQLALCHEMY_BINDS": {"game": "sqlite:///game.db"},
    "PASSWORD_HASH_METHOD": "scrypt",
    "PUBLIC_URL": "http://127.0.0.1:5000",
    # The game is asked this often, in seconds, who has reached the milestone.
    "MMOLOVE_MILESTONE_INTERVAL": 10,
    "MMOLOVE_ENDPOINT": "https://mmolove.com/api/referral/events",
    # Cookies ignore ports: a name of its own does not collide with other local sites.
    "SESSION_COOKIE_NAME": "lanternmoor",
    "SESSION_COOKIE_SAMESITE": "Lax",
    # The sandbox's page, if there is a sandbox.
    "SANDBOX_URL": None,
}


def create_app(
    config: t.Mapping[str, t.Any] | None = None, instance_path: str | None = None
) -> Flask:
    """Make the site. ``config`` overrides ``FLASK_*``, and that the defaults.

    :param instance_path: The absolute folder of its data; Flask's own by default.
    """
    app = Flask(__name__, instance_path=instance_path)
    app.config.from_mapping(DEFAULTS)
    app.config.from_prefixed_env()
    app.config.from_mapping(config)
    if "MMOLOVE_SERVER_ID" not in app.config:
        # So ``flask --app example_app mmolove status`` looks at what ran here last.
        path = Path(app.instance_path, SETTINGS)
        app.config.from_file(str(path), load=json.load, silent=True)
    if not app.config["SECRET_KEY"]:
        app.config["SECRET_KEY"] = kept_secret(Path(app.instance_path, "secret_key"))

    db.init_app(app)
    csrf.init_app(app)
    login_manager.init_app(app)
    mmolove.init_app(app)
    if "CELERY" in app.config:
        from .background import init_celery  # only such a site needs Celery

        init_celery(app)

    app.register_blueprint(site)
    app.register_blueprint(play)
    app.register_blueprint(invitations)
    dashboard = mmolove.dashboard(
        access=is_owner, player_name=models.find_names, site_name="Lanternmoor"
    )
    app.register_blueprint(dashboard, url_prefix="/mmolove")
    app.register_error_handler(HTTPException, error_page)
    app.register_error_handler(OperationalError, database_page)
    app.after_request(add_security_headers)
    with app.app_context():
        db.create_all()  # enough for a demo; a real site has migrations
    return app


def keep_settings(folder: Path, settings: t.Mapping[str, t.Any]) -> None:
    """Write down how the site ran here last."""
    path = folder / SETTINGS
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=2))


def kept_secret(path: Path) -> str:
    """The secret in this file, which is made at the first start and never committed."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


def error_page(error: HTTPException) -> tuple[str, int]:
    return render_template("error.html", error=error), error.code or 500


def database_page(error: OperationalError) -> tuple[str, int]:
    """The game has not started, or a database is away."""
    current_app.logger.error("%s", error)
    return error_page(ServiceUnavailable("The game is away. Try again in a minute."))


def add_security_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
