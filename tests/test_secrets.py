"""The signing secret is nowhere but in ``app.config``, and no log has a token.

The fixture ``make_app`` looks through the log and the files after every test; here are
the other ways out.
"""

from __future__ import annotations

import io
import logging
import traceback
import typing as t
from urllib.parse import quote
from urllib.parse import quote_plus

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from flask_mmolove import ConfigError
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import referral_captured
from flask_mmolove import registered
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from flask_mmolove.protocol.wire import shorten
from flask_mmolove.sandbox import Faults
from flask_mmolove.settings import Settings
from flask_mmolove.testing import SiteSandbox
from tests.conftest import MakeApp


@pytest.fixture
def secret(mmolove_sandbox: SiteSandbox) -> str:
    return str(mmolove_sandbox.config["MMOLOVE_REFERRAL_SECRET"])


def _objects(app: Flask) -> t.Iterator[object]:
    state = app.extensions["mmolove"]
    delivery = state.make_delivery()
    yield from (state, state.settings, state.outbox, state.engine, state.callbacks)
    yield from (delivery, delivery._client, vars(delivery))


def test_no_object_shows_it(app: Flask, secret: str) -> None:
    for thing in _objects(app):
        assert secret not in f"{thing!r} {thing!s}"


def test_no_traceback_shows_it(
    make_app: MakeApp, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_app(ENDPOINT="http://elsewhere.example/")
    lines = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    ).format()
    # The site's own frames may hold the config; ours show nothing of it.
    ours = [line for line in lines if "flask_mmolove" in line]
    assert ours
    assert secret not in "".join(line for line in ours if "config" not in line)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "--json"],
        ["status"],
        ["status", "--json"],
        ["deliver"],
        ["retry", "--list"],
        ["retry", "--list", "--json"],
        ["retry"],
        ["rewards"],
        ["rewards", "--json"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("fault", [Faults(), Faults(fail=503), Faults(fail=401)])
def test_no_command_prints_it(
    make_app: MakeApp,
    mmolove_sandbox: SiteSandbox,
    secret: str,
    arguments: list[str],
    fault: Faults,
) -> None:
    app = make_app()
    with app.app_context():
        registered(7, token=mmolove_sandbox.mint())
        qualify(7)
        mmolove_sandbox.sandbox.faults = fault
        registered(8, token="junk-token")
    info = ScriptInfo(create_app=lambda: app)
    result = CliRunner().invoke(command, arguments, obj=info)
    assert not isinstance(result.exception, Exception) or result.exit_code
    assert secret not in result.output
    assert "junk-token" not in result.output


def test_the_sandboxs_page_does_not_show_it(
    app: Flask, mmolove_sandbox: SiteSandbox, secret: str
) -> None:
    client = mmolove_sandbox.sandbox.app.test_client()
    for path in ("/", "/history.json"):
        assert secret not in client.get(path).get_data(as_text=True)


def test_a_log_shows_tokens_shortened(
    make_app: MakeApp, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    app = make_app(MMOLove(), DELIVERY="manual")
    token = mmolove_sandbox.mint()
    with app.app_context():
        registered(7, token=token)
    entry = app.extensions["mmolove"].outbox.of("7", False)["registered"]
    logging.getLogger("site").warning("recorded %r", entry)
    assert shorten(token) in log.getvalue()
    assert token not in log.getvalue()


def test_a_captured_token_goes_to_receivers_only(
    app: Flask, mmolove_sandbox: SiteSandbox, log: io.StringIO
) -> None:
    heard: list[str] = []

    def receive(sender: Flask, token: str) -> None:
        heard.append(token)
        raise RuntimeError("a receiver's own trouble")

    token = mmolove_sandbox.mint()
    with referral_captured.connected_to(receive):
        assert app.test_client().get(f"/?mmref={token}").status_code == 404
    assert heard == [token]
    assert "receiver" in log.getvalue()


def test_a_fingerprint_does_not_reveal_it(tmp_path: t.Any) -> None:
    config = {"MMOLOVE_SERVER_ID": "srv", "MMOLOVE_REFERRAL_SECRET": "one"}
    one = Settings.from_config(config, tmp_path).fingerprint
    two = Settings.from_config(
        {**config, "MMOLOVE_REFERRAL_SECRET": "two"}, tmp_path
    ).fingerprint
    assert one != two
    assert "one" not in one


# -- passwords in URLs -----------------------------------------------------------------

PASSWORD = "h&rd/to@guess"
QUOTED = "h%26rd%2Fto%40guess"
DATABASES = [
    f"postgresql+psycopg://anna:{QUOTED}@127.0.0.1:1/site",
    f"postgresql+psycopg://anna@127.0.0.1:1/site?password={QUOTED}",
    f"postgresql+psycopg://anna@127.0.0.1:1/site?p%61ssword={QUOTED}",
    f"postgresql+psycopg://127.0.0.1:1/site?user=anna&sslpassword={QUOTED}",
    f"mariadb+pymysql://anna@127.0.0.1:1/site?charset=utf8mb4&passwd={QUOTED}",
    f"mariadb+pymysql://anna@127.0.0.1:1/site?password={QUOTED}",
]


def forms(password: str) -> set[str]:
    quoted = {quote(password), quote(password, safe=""), quote_plus(password)}
    return {password, *quoted}


@pytest.mark.parametrize("url", DATABASES)
@pytest.mark.parametrize("arguments", [["check"], ["status"], ["init-db"], ["deliver"]])
def test_no_command_prints_a_databases_password(
    make_app: MakeApp, url: str, arguments: list[str], log: io.StringIO
) -> None:
    # Nobody listens there, so that the errors are shown too.
    app = make_app(OUTBOX=url, DELIVERY="manual")
    info = ScriptInfo(create_app=lambda: app)
    result = CliRunner().invoke(command, arguments, obj=info)
    shown = f"{result.output}{log.getvalue()}{app.extensions['mmolove'].outbox}"
    assert "***@" in shown or "=***" in shown or "=%2A%2A%2A" in shown
    assert not [form for form in forms(PASSWORD) if form in shown]


@pytest.mark.parametrize("url", DATABASES)
def test_no_error_quotes_a_databases_password(url: str) -> None:
    outbox = SQLAlchemyOutbox(url)
    for form in forms(PASSWORD):
        said = Exception(f"invalid connection option: {form!r} of host")
        error = DBAPIError("SELECT 1", {}, said)
        told = outbox.in_words(error)
        told.__cause__ = outbox._cause(error)
        text = "".join(traceback.format_exception(told))
        assert "invalid connection option" in text
        assert not [each for each in forms(PASSWORD) if each in text]
    harmless = DBAPIError("SELECT 1", {}, Exception("no such host"))
    assert outbox._cause(harmless) is harmless.orig
    outbox.close()


def test_no_setting_that_is_wrong_is_quoted_with_its_password(
    make_app: MakeApp,
) -> None:
    for endpoint in (
        f"ftp://anna:{PASSWORD}@mmolove.com/",
        f"http://mmolove.com/?password={QUOTED}",
        f"https://mmolove.com:port/?password={QUOTED}",
    ):
        with pytest.raises(ConfigError) as caught:
            make_app(ENDPOINT=endpoint)
        assert not [form for form in forms(PASSWORD) if form in str(caught.value)]
    with pytest.raises(ConfigError, match="must be a file or a URL") as caught:
        make_app(OUTBOX=make_url(DATABASES[1]))
    assert not [form for form in forms(PASSWORD) if form in str(caught.value)]
