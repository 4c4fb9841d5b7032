from __future__ import annotations

import re
import textwrap
import typing as t
from pathlib import Path
from types import SimpleNamespace

import flask
import pytest

from flask_mmolove import MMOLove
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.settings import DEFAULTS
from flask_mmolove.settings import REQUIRED
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md"])
def test_the_first_block_integrates_a_site(
    mmolove_sandbox: SiteSandbox, tmp_path: Path, page: str
) -> None:
    text = (ROOT / page).read_text()
    block = re.search(r"^ *```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    app = flask.Flask("site", instance_path=str(tmp_path))
    app.config.update(mmolove_sandbox.config, SECRET_KEY="not a secret")
    given: list[dict[str, t.Any]] = []
    names: dict[str, t.Any] = {
        "app": app,
        "request": flask.request,
        "redirect": flask.redirect,
        "create_player": lambda form: SimpleNamespace(id=7, level=20),
        # Flask-Login's effect on the extension; the example site uses the real one.
        "login_user": registered,
        "give_item": lambda *args, key: given.append({"args": args, "key": key}),
    }
    exec(textwrap.dedent(block[1]), names)
    client = app.test_client()
    with app.test_request_context():
        client.get(names["mmolove"].invite("3", external=False))
    client.get(f"/?mmref={mmolove_sandbox.mint()}")
    assert client.post("/register").status_code in (302, 303)
    with app.app_context():
        names["on_level_up"](SimpleNamespace(id=7, level=20))
    assert mmolove_sandbox.reported == [("registered", "7"), ("qualified", "7")]
    args = ("3", "founder-cape")
    assert given == [{"args": args, "key": "mmolove-demo-server-7"}]
    app.extensions["mmolove"].outbox.close()


def test_the_table_of_settings_is_true() -> None:
    rows = dict(re.findall(r"^\| `MMOLOVE_(\w+)` \| (.*?) \|", README, re.MULTILINE))
    required = {name: "required" for name in REQUIRED}
    assert rows == required | {name: f"`{value}`" for name, value in DEFAULTS.items()}


def test_every_command_is_told_of() -> None:
    told = set(re.findall(r"^\| `flask mmolove ([\w-]+)`", README, re.MULTILINE))
    assert told == set(command.commands)


def test_what_is_said_of_cookies_is_true(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox
) -> None:
    client = make_app(MMOLove()).test_client()
    response = client.get(f"/?mmref={mmolove_sandbox.mint()}")
    cookie = response.headers.getlist("Set-Cookie")[0]
    assert cookie.startswith("mmolove_ref=")
    assert f"Max-Age={90 * 86400}" in cookie
    assert "HttpOnly" in cookie
