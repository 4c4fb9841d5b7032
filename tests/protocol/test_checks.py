"""Values that cannot work are refused, by the settings and by the client."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from flask_mmolove import ConfigError
from flask_mmolove import ReferralClient
from flask_mmolove.protocol.proxy import read_proxy
from flask_mmolove.settings import Settings
from tests.protocol.clients import PASSWORD
from tests.protocol.clients import report
from tests.protocol.clients import SECRET
from tests.protocol.tlsserver import Authority


def settings(folder: Path, **values: t.Any) -> Settings:
    config = {"MMOLOVE_SERVER_ID": "srv-1", "MMOLOVE_REFERRAL_SECRET": "secret"}
    config |= {f"MMOLOVE_{name}": value for name, value in values.items()}
    return Settings.from_config(config, folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("secret", ""),
        ("secret", None),
        ("secret", b"bytes"),
        ("secret", f"{SECRET}\udcff"),
        ("server_id", ""),
        ("server_id", 7),
        ("endpoint", ""),
        ("endpoint", None),
        ("endpoint", "mmolove.com/api"),
        ("endpoint", "ftp://mmolove.com/api"),
        ("endpoint", "https://anna:will-o-the-wisp@mmolove.com/api"),
        # Anyone on the way could read the tokens, and set our clock by a forged Date.
        ("endpoint", "http://mmolove.com/api/referral/events"),
        ("key_id", "a b"),
        ("key_id", "a\r\nX-Evil: 1"),
    ],
)
def test_a_client_that_cannot_work_is_an_error_when_it_is_made(
    name: str, value: t.Any
) -> None:
    arguments = {"server_id": "srv-1", "secret": SECRET} | {name: value}
    with pytest.raises(ConfigError, match=f"'{name}' ") as caught:
        ReferralClient(**arguments)
    assert SECRET not in str(caught.value)
    assert "will-o-the-wisp" not in str(caught.value)


@pytest.mark.parametrize("name", ["secret", "server_id"])
def test_blank_is_as_good_as_empty(name: str) -> None:
    arguments: dict[str, t.Any] = {"server_id": "srv-1", "secret": SECRET}
    with pytest.raises(ConfigError):
        ReferralClient(**arguments | {name: " \n"})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f"socks5://anna:{PASSWORD}@proxy:1080", "socks5:// is not supported"),
        (f"https://anna:{PASSWORD}@proxy:3128", "https:// is not supported"),
        (f"http://anna:{PASSWORD}@", "must have the form"),
        (f"http://anna:{PASSWORD}@proxy:port", "is not a valid URL"),
        (f"http://anna:{PASSWORD}@proxy:99999", "is not a valid URL"),
        (f"http://anna:{PASSWORD}@[::1", "is not a valid URL"),
        (f"http://anna:{PASSWORD}@proxy/path", "must have the form"),
        (f"http://anna:{PASSWORD}@proxy?a=b", "must have the form"),
        (f"http://anna:{PASSWORD} @proxy", "contains a space"),
    ],
)
def test_a_proxy_that_can_only_fail_is_an_error_at_start_without_the_password(
    tmp_path: Path, value: str, words: str
) -> None:
    with pytest.raises(ConfigError, match="MMOLOVE_PROXY ") as caught:
        settings(tmp_path, PROXY=value)
    assert words in str(caught.value)
    assert PASSWORD not in str(caught.value)
    with pytest.raises(ConfigError, match="'proxy' ") as caught:
        report(proxy=value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("missing.pem", "cannot be read"),
        (".", "is a folder"),
        ("key.pem", "holds no certificates in PEM format"),
        ("empty.pem", "holds no certificates in PEM format"),
        (7, "must be a file, not 7"),
    ],
)
def test_a_bundle_that_can_only_fail_is_an_error_at_start(
    tmp_path: Path, value: object, words: str
) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN NOTHING-----")
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ConfigError, match="MMOLOVE_CA_BUNDLE ") as caught:
        settings(tmp_path, CA_BUNDLE=value)
    assert words in str(caught.value)


def test_a_bundle_lies_in_the_instance_folder_like_the_outbox(
    tmp_path: Path, authority: Authority
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.file.read_bytes())
    for value in ("ca.pem", Path("ca.pem"), str(file)):
        assert settings(tmp_path, CA_BUNDLE=value).ca_bundle == str(file)
    for nothing in (None, ""):
        read = settings(tmp_path, CA_BUNDLE=nothing, PROXY=nothing)
        assert (read.ca_bundle, read.proxy) == (None, None)


def test_no_repr_shows_the_password(tmp_path: Path) -> None:
    read = settings(tmp_path, PROXY=f"http://anna:{PASSWORD}@proxy:3128")
    client = read.make_client()
    proxy = read_proxy(f"http://anna:{PASSWORD}@proxy:3128")
    assert proxy is not None
    encoded = proxy.headers["Proxy-Authorization"].split()[1]
    shown = f"{read!r} {client!r} {proxy!r} {proxy}"
    assert PASSWORD not in shown and encoded not in shown
