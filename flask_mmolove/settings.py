"""The site's settings: each ``MMOLOVE_*`` key, its default and its check.

They are read once, by ``init_app``, so that a mistake is an error at start and never in
a request.
"""

import difflib
import hashlib
import hmac
import math
import os
import re
import typing as t
from datetime import timedelta
from pathlib import Path

from .errors import ConfigError
from .log import logger
from .protocol.checks import check_ca_bundle
from .protocol.checks import check_endpoint
from .protocol.checks import check_key_id
from .protocol.checks import check_proxy
from .protocol.checks import check_text
from .protocol.client import ReferralClient
from .protocol.wire import ENDPOINT
from .text import mask

PREFIX = "MMOLOVE_"

#: The optional keys and their defaults.
DEFAULTS: dict[str, t.Any] = {
    "ENDPOINT": ENDPOINT,
    "ENABLED": True,
    "TEST": False,
    "KEY_ID": None,
    "OUTBOX": "sqlite:///mmolove.db",
    "DELIVERY": "thread",
    "ATTRIBUTION": "last-touch",
    "COOKIE_DAYS": 90,
    "TIMEOUT": 10,
    "CONCURRENCY": 4,
    "GIVE_UP_AFTER": 7,
    "MILESTONE_INTERVAL": 300,
    "PROXY": None,
    "CA_BUNDLE": None,
}

#: The required keys, and the name of each in the Referrals tab.
REQUIRED = {
    "SERVER_ID": "the server id",
    "REFERRAL_SECRET": "the signing secret",
}

# What a plain number of each key means; a timedelta needs no unit.
_UNITS = {
    "COOKIE_DAYS": timedelta(days=1),
    "GIVE_UP_AFTER": timedelta(days=1),
    "MILESTONE_INTERVAL": timedelta(seconds=1),
    "TIMEOUT": timedelta(seconds=1),
}

# The scheme of a URL, which has more than one letter: "C:" is a drive.
_HALF_URL = re.compile(r"[a-z][a-z0-9+]+:")

_FLAGS = {"true": True, "yes": True, "on": True, "1": True}
_FLAGS |= {"false": False, "no": False, "off": False, "0": False}


class Settings(t.NamedTuple):
    """One app's settings, checked.

    :param outbox: A file, or the URL of a database.
    :param spool: The path from which the spool's folder gets its name.
    :param timeout: Seconds for a whole delivery attempt.
    :param give_up_after: Seconds; the setting itself is in days.
    :param proxy: A URL, which may contain a password.
    :param ca_bundle: A file of certificates.
    """

    server_id: str
    secret: str
    endpoint: str
    enabled: bool
    test: bool
    key_id: str | None
    outbox: Path | str
    spool: Path
    delivery: str
    attribution: str
    cookie_days: int
    timeout: float
    concurrency: int
    give_up_after: float
    milestone_interval: float
    proxy: str | None = None
    ca_bundle: str | None = None

    @classmethod
    def from_config(
        cls, config: t.Mapping[str, t.Any], instance_path: str | Path
    ) -> "Settings":
        """Read the ``MMOLOVE_*`` keys.

        :param config: The app's ``config``.
        :param instance_path: The folder that relative paths start from.
        :raises ConfigError: If one is missing or wrong; the message names the key and
            its environment variable.
        """
        _warn_of_unknown_keys(config)
        read = _Reader(config)
        enabled = read.flag("ENABLED")
        # A site that is switched off still erases what it has spooled under its id.
        needs_id = enabled or config.get(PREFIX + "SERVER_ID")
        server_id = read.required("SERVER_ID") if needs_id else ""
        outbox = read.outbox("OUTBOX", Path(instance_path))
        return cls(
            enabled=enabled,
            server_id=server_id,
            secret=read.required("REFERRAL_SECRET") if enabled else "",
            endpoint=read.checked("ENDPOINT", check_endpoint),
            test=read.flag("TEST"),
            key_id=read.checked("KEY_ID", check_key_id) or None,
            outbox=outbox,
            spool=_spool(outbox, Path(instance_path), server_id),
            delivery=read.choice("DELIVERY", "thread", "celery", "inline", "manual"),
            attribution=read.choice("ATTRIBUTION", "last-touch", "first-touch"),
            cookie_days=math.ceil(read.number("COOKIE_DAYS", 0, 400)),
            timeout=read.number("TIMEOUT", 0.1, 60),
            concurrency=read.count("CONCURRENCY", 1, 64),
            give_up_after=read.number("GIVE_UP_AFTER", 0, 3650) * 86400,
            milestone_interval=read.number("MILESTONE_INTERVAL", 1, 86400),
            proxy=read.checked("PROXY", check_proxy) or None,
            ca_bundle=read.ca_bundle("CA_BUNDLE", Path(instance_path)),
        )

    @property
    def fingerprint(self) -> str:
        """Changes with every setting that MMOLove may refuse events for. The secret is
        its key and cannot be read from it.
        """
        subject = "\n".join((self.endpoint, self.server_id, self.key_id or ""))
        mac = hmac.new(self.secret.encode(), subject.encode(), hashlib.sha256)
        return mac.hexdigest()[:16]

    def make_client(self) -> ReferralClient:
        """The client that sends with these settings."""
        return ReferralClient(
            server_id=self.server_id,
            secret=self.secret,
            endpoint=self.endpoint,
            key_id=self.key_id,
            timeout=self.timeout,
            connections=self.concurrency,
            proxy=self.proxy,
            ca_bundle=self.ca_bundle,
        )

    def __repr__(self) -> str:
        # Without the secret, and without the outbox and the proxy, which may contain
        # passwords.
        return f"<Settings of {self.server_id!r} for {mask(self.endpoint)}>"


class _Reader:
    """Reads one key at a time, or raises what is wrong with it."""

    def __init__(self, config: t.Mapping[str, t.Any]) -> None:
        self._config = config

    def _get(self, name: str) -> t.Any:
        value = self._config.get(PREFIX + name)
        return DEFAULTS.get(name) if value is None else value

    def required(self, name: str) -> str:
        value = self._get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise _missing(name, "is not set" if value is None else "is empty")
        # from_prefixed_env() reads values as JSON, so digits arrive as a number.
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise _wrong(
                name,
                f"was read as a {type(value).__name__}, not as text. In the "
                f"environment, put it in double quotes inside single ones: '\"…\"'",
            )
        return self.checked(name, check_text)

    def flag(self, name: str) -> bool:
        value = self._get(name)
        if isinstance(value, bool):
            return value
        try:
            return _FLAGS[str(value).strip().lower()]
        except KeyError:
            raise _wrong(name, f"must be true or false, not {value!r}") from None

    def choice(self, name: str, *choices: str) -> str:
        value = self._get(name)
        if value in choices:
            return t.cast(str, value)
        listed = ", ".join(map(repr, choices))
        raise _wrong(name, f"must be one of {listed}, not {value!r}")

    def number(self, name: str, least: float, most: float) -> float:
        value = self._get(name)
        if isinstance(value, timedelta) and name in _UNITS:
            value = value / _UNITS[name]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            raise _wrong(name, f"must be a number, not {value!r}") from None
        if not least <= number <= most:
            raise _wrong(name, f"must be between {least:g} and {most:g}, not {value!r}")
        return number

    def count(self, name: str, least: int, most: int) -> int:
        number = self.number(name, least, most)
        if number != int(number):
            raise _wrong(name, f"must be a whole number, not {number!r}")
        return int(number)

    def checked(self, name: str, check: t.Callable[[str], str]) -> str:
        value = self._get(name)
        try:
            return check("" if value is None else str(value).strip())
        except ValueError as e:
            raise _wrong(name, str(e)) from None

    def ca_bundle(self, name: str, instance_path: Path) -> str | None:
        value = self._get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, (str, os.PathLike)):
            raise _wrong(name, f"must be a file, not {value!r}")
        file = instance_path / Path(value).expanduser()
        try:
            return check_ca_bundle(str(file))
        except ValueError as e:
            raise _wrong(name, str(e)) from None

    def outbox(self, name: str, instance_path: Path) -> Path | str:
        value = self._get(name)
        if not isinstance(value, (str, os.PathLike)):
            raise _wrong(name, f"must be a file or a URL, not {mask(repr(value))}")
        text = os.fspath(value)
        scheme, separator, path = text.partition("://")
        if separator and scheme != "sqlite":
            return text
        if not separator and _HALF_URL.match(text):
            raise _wrong(name, "is a URL that lacks '//' after its first colon")
        if separator and "?" in path:
            raise _wrong(name, "takes no options after the name of the file")
        file = path.removeprefix("/") if separator else text
        if not file or file == ":memory:":
            raise _wrong(name, "names no file: an outbox in memory would forget")
        return instance_path / Path(file).expanduser()


def _spool(outbox: Path | str, instance_path: Path, server_id: str) -> Path:
    """A path for what a site keeps beside its outbox, or in its instance folder if the
    outbox is in a database. The server id is in the name, for two sites may share that
    folder; a database's URL would not do, as it may change when a database is repaired.
    """
    file = outbox if isinstance(outbox, Path) else instance_path / "mmolove.db"
    digest = hashlib.sha256(server_id.encode()).hexdigest()[:8]
    return file.with_name(f"{file.name}.{digest}")


# Where the settings are read.
_START = "MMOLove(app) or init_app(app)"


def _missing(name: str, how: str) -> ConfigError:
    key, variable = PREFIX + name, f"FLASK_{PREFIX}{name}"
    if os.environ.get(variable, "").strip():
        advice = (
            f"{variable} is in the environment but was not read: call "
            f"app.config.from_prefixed_env() before {_START}."
        )
    else:
        advice = (
            f"Copy {REQUIRED[name]} from the Referrals tab of your MMOLove dashboard, "
            f"or what 'flask mmolove sandbox' prints, into app.config[{key!r}]; or set "
            f"the environment variable {variable} and call "
            f"app.config.from_prefixed_env() before {_START}."
        )
    return ConfigError(f"{key} {how}. {advice}", key)


def _wrong(name: str, what: str) -> ConfigError:
    key = PREFIX + name
    where = f"Change it in app.config, or FLASK_{key} in the environment."
    return ConfigError(f"{key} {what}. {where}", key)


def _warn_of_unknown_keys(config: t.Mapping[str, t.Any]) -> None:
    names = sorted({*REQUIRED, *DEFAULTS})
    for key in config:
        if key.startswith(PREFIX) and key[len(PREFIX) :] not in names:
            near = difflib.get_close_matches(key[len(PREFIX) :], names, 1, 0.5)
            hint = f" Did you mean {PREFIX}{near[0]}?" if near else ""
            logger.warning("%s is not a setting of Flask-MMOLove.%s", key, hint)
