from __future__ import annotations

import logging
import traceback
import typing as t
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

from flask_mmolove import ConfigError
from flask_mmolove import MMOLove
from flask_mmolove.settings import DEFAULTS
from flask_mmolove.settings import Settings

SECRET = "hush-hush-7f3a"
KEYS = {"MMOLOVE_SERVER_ID": "srv-1", "MMOLOVE_REFERRAL_SECRET": SECRET}
INSTANCE = Path("/srv/site/instance")


def read(**settings: t.Any) -> Settings:
    """The settings of a site that sets these beside the two required ones."""
    config = KEYS | {f"MMOLOVE_{key}": value for key, value in settings.items()}
    return Settings.from_config(config, INSTANCE)


def refusal(**settings: t.Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(**settings)
    [key] = settings
    assert caught.value.key == f"MMOLOVE_{key}"
    return str(caught.value)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVER_ID", "REFERRAL_SECRET", *DEFAULTS):
        monkeypatch.delenv(f"FLASK_MMOLOVE_{name}", raising=False)


# -- what is read ----------------------------------------------------------------------


def test_two_keys_are_enough() -> None:
    assert read() == Settings(
        server_id="srv-1",
        secret=SECRET,
        endpoint="https://mmolove.com/api/referral/events",
        enabled=True,
        test=False,
        key_id=None,
        outbox=INSTANCE / "mmolove.db",
        spool=INSTANCE / "mmolove.db.ce956e9f",
        delivery="thread",
        attribution="last-touch",
        cookie_days=90,
        timeout=10,
        concurrency=4,
        give_up_after=7 * 86400,
        milestone_interval=300,
    )


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("SERVER_ID", "  srv-2\n", "server_id", "srv-2"),
        ("SERVER_ID", 42, "server_id", "42"),
        ("REFERRAL_SECRET", " s e c ", "secret", "s e c"),
        ("REFERRAL_SECRET", 123456, "secret", "123456"),
        ("ENDPOINT", "https://mmolove.gg/x", "endpoint", "https://mmolove.gg/x"),
        ("ENDPOINT", " https://h:8443/x?a=b ", "endpoint", "https://h:8443/x?a=b"),
        ("ENDPOINT", "http://localhost:8008", "endpoint", "http://localhost:8008"),
        ("ENDPOINT", "http://127.8.9.1/x", "endpoint", "http://127.8.9.1/x"),
        ("ENDPOINT", "http://[::1]:8008/x", "endpoint", "http://[::1]:8008/x"),
        ("ENABLED", "yes", "enabled", True),
        ("ENABLED", 1, "enabled", True),
        ("TEST", "On", "test", True),
        ("TEST", "0", "test", False),
        ("KEY_ID", "2024-b", "key_id", "2024-b"),
        ("KEY_ID", 7, "key_id", "7"),
        ("KEY_ID", "", "key_id", None),
        ("DELIVERY", "thread", "delivery", "thread"),
        ("DELIVERY", "celery", "delivery", "celery"),
        ("DELIVERY", "inline", "delivery", "inline"),
        ("DELIVERY", "manual", "delivery", "manual"),
        ("ATTRIBUTION", "first-touch", "attribution", "first-touch"),
        ("COOKIE_DAYS", 0, "cookie_days", 0),
        ("COOKIE_DAYS", "30", "cookie_days", 30),
        ("COOKIE_DAYS", timedelta(days=14), "cookie_days", 14),
        ("TIMEOUT", 0.1, "timeout", 0.1),
        ("TIMEOUT", timedelta(seconds=5), "timeout", 5.0),
        ("CONCURRENCY", 64, "concurrency", 64),
        ("MILESTONE_INTERVAL", timedelta(minutes=2), "milestone_interval", 120.0),
        ("GIVE_UP_AFTER", 0.5, "give_up_after", 43200.0),
        ("GIVE_UP_AFTER", timedelta(days=2), "give_up_after", 172800.0),
    ],
)
def test_a_setting_is_read_as_it_is_meant(
    key: str, value: object, field: str, expected: object
) -> None:
    result = getattr(read(**{key: value}), field)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("key", DEFAULTS)
def test_none_is_the_default(key: str) -> None:
    assert read(**{key: None}) == read()


@pytest.mark.parametrize(
    ("value", "file"),
    [
        ("sqlite:///events.db", INSTANCE / "events.db"),
        ("sqlite:////var/lib/events.db", Path("/var/lib/events.db")),
        ("sub/events.db", INSTANCE / "sub/events.db"),
        ("/var/lib/events.db", Path("/var/lib/events.db")),
        (Path("events.db"), INSTANCE / "events.db"),
        ("~/events.db", Path.home() / "events.db"),
    ],
)
def test_an_outbox_is_a_file_and_lies_in_the_instance_folder(
    value: str | Path, file: Path
) -> None:
    assert read(OUTBOX=value).outbox == file


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read().test = True  # type: ignore[misc]


def test_a_site_that_switched_it_off_needs_no_keys() -> None:
    settings = Settings.from_config({"MMOLOVE_ENABLED": False}, INSTANCE)
    assert (settings.enabled, settings.server_id, settings.secret) == (False, "", "")


def test_less_than_a_day_does_not_switch_the_cookie_off() -> None:
    try:
        settings = read(COOKIE_DAYS=timedelta(hours=12))
    except ConfigError:
        return
    assert settings.cookie_days > 0


# -- from the environment --------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "field", "expected"),
    [
        ("SERVER_ID", "8123", "server_id", "8123"),
        ("SERVER_ID", "srv-1", "server_id", "srv-1"),
        ("SERVER_ID", '"8123"', "server_id", "8123"),
        ("REFERRAL_SECRET", "0042", "secret", "0042"),
        ("REFERRAL_SECRET", '"1e5"', "secret", "1e5"),
        ("ENABLED", "true", "enabled", True),
        ("TEST", "True", "test", True),
        ("TEST", "false", "test", False),
        ("KEY_ID", "3", "key_id", "3"),
        ("COOKIE_DAYS", "7", "cookie_days", 7),
        ("TIMEOUT", "2.5", "timeout", 2.5),
        ("CONCURRENCY", "8", "concurrency", 8),
        ("DELIVERY", "manual", "delivery", "manual"),
    ],
)
def test_the_environment_gives_typed_values(
    monkeypatch: pytest.MonkeyPatch, key: str, text: str, field: str, expected: object
) -> None:
    app = Flask(__name__)
    app.config.update(KEYS)
    monkeypatch.setenv(f"FLASK_MMOLOVE_{key}", text)
    app.config.from_prefixed_env()
    settings = Settings.from_config(app.config, INSTANCE)
    assert getattr(settings, field) == expected
    assert type(getattr(settings, field)) is type(expected)


@pytest.mark.parametrize("text", ["1e5", "true", "[1]", '{"a": 1}', "NaN"])
def test_a_secret_that_was_read_as_json_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    app = Flask(__name__)
    app.config.update(KEYS)
    monkeypatch.setenv("FLASK_MMOLOVE_REFERRAL_SECRET", text)
    app.config.from_prefixed_env()
    with pytest.raises(ConfigError, match="double quotes inside single ones") as e:
        Settings.from_config(app.config, INSTANCE)
    assert e.value.key == "MMOLOVE_REFERRAL_SECRET"


# -- what is missing -------------------------------------------------------------------


@pytest.mark.parametrize("key", ["SERVER_ID", "REFERRAL_SECRET"])
@pytest.mark.parametrize(
    ("value", "how"), [(None, "is not set"), ("", "is empty"), (" \t", "is empty")]
)
def test_a_missing_key_is_named_with_its_variable_and_where_to_find_it(
    key: str, value: str | None, how: str
) -> None:
    message = refusal(**{key: value})
    assert message.startswith(f"MMOLOVE_{key} {how}.")
    assert f"the environment variable FLASK_MMOLOVE_{key} " in message
    assert f"app.config['MMOLOVE_{key}']" in message
    assert "Referrals tab" in message
    assert "from_prefixed_env()" in message


@pytest.mark.parametrize("key", ["SERVER_ID", "REFERRAL_SECRET"])
def test_a_variable_that_is_set_but_was_not_read_is_the_hint(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(f"FLASK_MMOLOVE_{key}", SECRET)
    message = refusal(**{key: None})
    assert f"FLASK_MMOLOVE_{key} is in the environment but was not read" in message
    assert "app.config.from_prefixed_env() before MMOLove(app)" in message
    assert SECRET not in message


def test_a_blank_variable_is_no_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_MMOLOVE_SERVER_ID", "  ")
    assert "was not read" not in refusal(SERVER_ID=None)


def test_a_site_without_keys_fails_at_start_and_not_in_a_request() -> None:
    app = Flask(__name__)
    with pytest.raises(ConfigError, match="MMOLOVE_SERVER_ID"):
        MMOLove(app)
    assert "mmolove" not in app.extensions
    assert app.test_client().get("/").status_code == 404


# -- what is wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("SERVER_ID", True, "read as a bool"),
        ("SERVER_ID", 1.5, "read as a float"),
        ("REFERRAL_SECRET", b"bytes", "read as a bytes"),
        ("ENDPOINT", "", "must be an https:// URL, not ''"),
        ("ENDPOINT", "mmolove.com/api", "must be an https:// URL"),
        ("ENDPOINT", "https://", "must be an https:// URL"),
        ("ENDPOINT", "ftp://mmolove.com/api", "must be an https:// URL"),
        ("ENDPOINT", "https://mmolove.com:port/", "is not a valid URL"),
        ("ENDPOINT", "https://[::1/", "is not a valid URL"),
        ("ENDPOINT", "https://a..b/", "is not a valid URL"),
        ("ENDPOINT", "https://.example.com/", "is not a valid URL"),
        ("ENDPOINT", "http://mmolove.com/api", "over plain http"),
        ("ENDPOINT", "http://10.0.0.5/api", "over plain http"),
        ("ENDPOINT", "http://0.0.0.0/api", "over plain http"),
        ("ENDPOINT", "http://localhost.example.com/", "over plain http"),
        ("ENDPOINT", "http://127.0.0.1@mmolove.com/", "a user name or password"),
        ("ENDPOINT", "https://u:p@mmolove.com/", "a user name or password"),
        ("REFERRAL_SECRET", "s\udcff", "is not valid text"),
        ("ENABLED", "", "must be true or false, not ''"),
        ("ENABLED", "maybe", "must be true or false, not 'maybe'"),
        ("TEST", 2, "must be true or false, not 2"),
        ("KEY_ID", "a,b", "without commas"),
        ("KEY_ID", "a b", "must be visible ASCII"),
        ("KEY_ID", "a\r\nX-Evil: 1", "visible ASCII"),
        ("KEY_ID", "clé", "visible ASCII"),
        ("OUTBOX", "", "names no file"),
        ("OUTBOX", "sqlite://", "names no file"),
        ("OUTBOX", True, "must be a file or a URL, not True"),
        ("OUTBOX", "sqlite:events.db", "lacks '//'"),
        ("OUTBOX", "postgresql:/user@host/db", "lacks '//'"),
        ("OUTBOX", "sqlite:///events.db?timeout=20", "takes no options"),
        ("OUTBOX", "sqlite:///:memory:", "an outbox in memory would forget"),
        ("OUTBOX", ":memory:", "an outbox in memory would forget"),
        ("DELIVERY", "", "'thread', 'celery', 'inline', 'manual', not ''"),
        ("DELIVERY", "Thread", "'thread', 'celery', 'inline', 'manual', not 'Thread'"),
        ("ATTRIBUTION", "", "must be one of 'last-touch', 'first-touch', not ''"),
        ("ATTRIBUTION", "last", "'last-touch', 'first-touch', not 'last'"),
        ("COOKIE_DAYS", -1, "must be between 0 and 400, not -1"),
        ("COOKIE_DAYS", 401, "between 0 and 400"),
        ("COOKIE_DAYS", "", "must be a number, not ''"),
        ("TIMEOUT", 0, "between 0.1 and 60"),
        ("TIMEOUT", "soon", "must be a number, not 'soon'"),
        ("TIMEOUT", float("nan"), "between 0.1 and 60"),
        ("TIMEOUT", [10], "must be a number, not [10]"),
        ("CONCURRENCY", 0, "between 1 and 64"),
        ("CONCURRENCY", 65, "between 1 and 64"),
        ("GIVE_UP_AFTER", float("inf"), "between 0 and 3650"),
        ("GIVE_UP_AFTER", timedelta(days=-1), "between 0 and 3650"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_key_and_its_variable(
    key: str, value: object, words: str
) -> None:
    message = refusal(**{key: value})
    assert message.startswith(f"MMOLOVE_{key} ")
    assert f"FLASK_MMOLOVE_{key} in the environment" in message
    assert words in message


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("MMOLOVE_SERVERID", "MMOLOVE_SERVER_ID"),
        ("MMOLOVE_REFERAL_SECRET", "MMOLOVE_REFERRAL_SECRET"),
        ("MMOLOVE_COOKIE_DAY", "MMOLOVE_COOKIE_DAYS"),
        ("MMOLOVE_1234567890123456", None),
    ],
)
def test_an_unknown_key_is_warned_of_with_its_nearest_match(
    caplog: pytest.LogCaptureFixture, key: str, near: str | None
) -> None:
    Settings.from_config(KEYS | {key: SECRET}, INSTANCE)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("flask_mmolove", logging.WARNING)
    hint = f" Did you mean {near}?" if near else ""
    assert record.getMessage() == f"{key} is not a setting of Flask-MMOLove.{hint}"


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("MMOLOVE_SECRET", "MMOLOVE_SERVER_ID"), ("MMOLOVE_URL", "MMOLOVE_OUTBOX")],
)
def test_no_key_is_suggested_that_is_like_it_only_in_the_prefix(
    caplog: pytest.LogCaptureFixture, key: str, wrong: str
) -> None:
    Settings.from_config(KEYS | {key: SECRET}, INSTANCE)
    assert wrong not in caplog.text


def test_a_misspelt_required_key_is_warned_of_before_it_is_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ConfigError):
        Settings.from_config({"MMOLOVE_SERVER": "srv-1"}, INSTANCE)
    assert "Did you mean MMOLOVE_SERVER_ID?" in caplog.text


def test_known_keys_and_other_peoples_keys_are_not_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    everything = {f"MMOLOVE_{key}": value for key, value in DEFAULTS.items()}
    Settings.from_config({**KEYS, **everything, "MMOLOVER": 1, "X": 2}, INSTANCE)
    assert caplog.records == []


# -- the secret ------------------------------------------------------------------------


def test_the_secret_is_in_no_repr() -> None:
    settings = read()
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in f"{settings}"


@pytest.mark.parametrize("secret", [f"{SECRET}\ud800", SECRET.encode(), [SECRET]])
def test_the_secret_is_in_no_error(secret: object) -> None:
    try:
        read(REFERRAL_SECRET=secret)
    except ConfigError as e:
        assert SECRET not in "".join(traceback.format_exception(e))


def test_a_change_that_mmolove_would_see_changes_the_fingerprint() -> None:
    ours = read().fingerprint
    assert ours == read(TIMEOUT=3, DELIVERY="manual", TEST=True).fingerprint
    others = [
        read(SERVER_ID="srv-2").fingerprint,
        read(REFERRAL_SECRET="another").fingerprint,
        read(ENDPOINT="https://mmolove.gg/api/referral/events").fingerprint,
        read(KEY_ID="2").fingerprint,
    ]
    assert len({ours, *others}) == 5
    assert SECRET not in ours
