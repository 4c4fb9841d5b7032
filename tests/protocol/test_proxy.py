"""Proxies and private certificate authorities, with real ones of both."""

from __future__ import annotations

import base64
import io
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import typing as t
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from flask_mmolove import ConfigError
from flask_mmolove import MMOLove
from flask_mmolove import Outcome
from flask_mmolove import ReferralClient
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.protocol.client import Verdict
from flask_mmolove.protocol.proxy import CA_VARIABLES
from flask_mmolove.protocol.proxy import PROXY_VARIABLES
from flask_mmolove.protocol.proxy import read_proxy
from flask_mmolove.protocol.proxy import why
from flask_mmolove.settings import Settings
from tests.protocol.rawserver import Act
from tests.protocol.rawserver import Answer
from tests.protocol.rawserver import answer
from tests.protocol.rawserver import drip
from tests.protocol.rawserver import flood
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import reset
from tests.protocol.rawserver import then_close
from tests.protocol.rawserver import then_hold

#: A host that only the proxy finds.
HOST = "mmolove.test"
NOBODY = "https://127.0.0.1:1/api"
PASSWORD = "open-sesame-41"

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, *CA_VARIABLES):
        monkeypatch.delenv(name, raising=False)


class Authority(t.NamedTuple):
    """A private one: its certificate, and a host's that it signed, with the key."""

    file: Path
    host: Path
    key: Path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        assert not os.environ.get("CI"), "openssl is not installed."
        pytest.skip("Not installed: OpenSSL: apt-get install openssl")
    folder = tmp_path_factory.mktemp("authority")

    def make(name: str, *options: str) -> None:
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2")
        subprocess.run(
            ["openssl", "req", "-x509", *kind, *files, "-subj", f"/CN={name}"]
            + [part for option in options for part in option.split(" ")],
            cwd=folder,
            check=True,
            capture_output=True,
        )

    make("ca", "-addext keyUsage=critical,keyCertSign,cRLSign")
    make(
        "host",
        "-CA ca.pem -CAkey ca.key",
        f"-addext subjectAltName=DNS:{HOST},IP:127.0.0.1",
        "-addext basicConstraints=critical,CA:FALSE",
    )
    return Authority(folder / "ca.pem", folder / "host.pem", folder / "host.key")


class TLSServer(RawServer):
    """The same behind a certificate."""

    def __init__(self, authority: Authority, *answers: Answer) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority.host, authority.key)
        super().__init__(*answers)

    def _converse(
        self, connection: socket.socket, stream: t.BinaryIO, number: int
    ) -> None:
        with self._context.wrap_socket(connection, server_side=True) as wrapped:
            with wrapped.makefile("rb") as inner:
                super()._converse(wrapped, inner, number)


def connect_to(port: int) -> Act:
    """What a proxy does: pass everything on, both ways. It knows one host."""

    def act(server: RawServer, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as other:
            connection.sendall(CONNECTED)
            back = threading.Thread(target=pass_on, args=(other, connection))
            back.start()
            pass_on(connection, other)
            back.join()

    return act


def pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two has hung up


@pytest.fixture
def mmolove(authority: Authority) -> t.Iterator[RawServer]:
    body = b'{"ok":true,"state":"registered"}'
    with TLSServer(authority, answer(body=body)) as server:
        yield server


@pytest.fixture
def proxy(mmolove: RawServer) -> t.Iterator[RawServer]:
    with RawServer(connect_to(mmolove.port)) as server:
        yield server


def at(server: RawServer, user: str = "") -> str:
    """A proxy's address."""
    return f"http://{user}127.0.0.1:{server.port}"


def report(timeout: float = 5, **options: t.Any) -> Outcome:
    options = {"endpoint": f"https://{HOST}/api", **options}
    client = ReferralClient(
        server_id="srv-1", secret="secret", timeout=timeout, **options
    )
    try:
        return client.registered("tok", referee_identity="7", server_event_id="reg-7")
    finally:
        client.close()


def failure(**options: t.Any) -> Outcome:
    outcome = report(**options)
    assert (outcome.status, outcome.verdict) == (0, Verdict.RETRY)
    return outcome


# -- a proxy ---------------------------------------------------------------------------


def test_events_go_through_the_proxy_and_it_reads_none_of_them(
    mmolove: RawServer, proxy: RawServer, authority: Authority
) -> None:
    outcome = report(proxy=at(proxy), ca_bundle=authority.file)
    assert outcome.ok, outcome
    [asked] = proxy.requests
    assert asked.line.startswith(f"CONNECT {HOST}:443 HTTP/1.")
    assert asked.body == b""
    names = {name.lower() for name, _ in asked.headers}
    assert names <= {"host"}
    [request] = mmolove.requests
    assert request.line == "POST /api HTTP/1.1"
    assert request.header("Proxy-Authorization") is None
    assert request.header("X-MMOLove-Signature")


def test_a_connection_through_the_proxy_is_kept(
    mmolove: RawServer, proxy: RawServer, authority: Authority
) -> None:
    client = ReferralClient(
        server_id="srv-1",
        secret="secret",
        endpoint=f"https://{HOST}/api",
        proxy=at(proxy),
        ca_bundle=authority.file,
    )
    for _ in range(3):
        assert client.qualified("tok", server_event_id="qual-7").ok
    client.close()
    assert (len(proxy.requests), len(mmolove.requests)) == (1, 3)


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        (f"anna:{PASSWORD}@", f"anna:{PASSWORD}"),
        ("anna@", "anna:"),
        ("a%40b:p%3A%2Fw%C3%A9@", "a@b:p:/wé"),
        ("anna:пароль@", "anna:пароль"),
    ],
)
def test_a_name_and_a_password_are_for_the_proxy_alone(
    mmolove: RawServer, proxy: RawServer, authority: Authority, user: str, sent: str
) -> None:
    assert report(proxy=at(proxy, user), ca_bundle=authority.file).ok
    [asked] = proxy.requests
    credentials = base64.b64encode(sent.encode()).decode()
    assert asked.header("Proxy-Authorization") == f"Basic {credentials}"
    assert mmolove.requests[0].header("Proxy-Authorization") is None


def test_an_endpoint_on_this_machine_is_reached_without_it(proxy: RawServer) -> None:
    with RawServer(answer()) as sandbox:
        assert report(endpoint=sandbox.url, proxy=at(proxy)).status == 200
    assert not proxy.requests


@pytest.mark.parametrize("name", PROXY_VARIABLES)
def test_the_environment_s_proxy_is_not_used_but_spoken_of(
    monkeypatch: pytest.MonkeyPatch, proxy: RawServer, name: str
) -> None:
    monkeypatch.setenv(name, at(proxy, f"anna:{PASSWORD}@"))
    outcome = failure(endpoint=NOBODY)
    assert not proxy.requests
    assert f"{name} is set in the environment, and is not used" in outcome.hint
    assert "set MMOLOVE_PROXY to it" in outcome.hint
    assert PASSWORD not in repr(outcome)


def test_without_a_variable_the_network_is_asked_about() -> None:
    hint = "No answer came from MMOLOVE_ENDPOINT: is the network up?"
    assert why(TimeoutError(), None, None, {}) == hint


def test_on_this_machine_the_sandbox_is_asked_about() -> None:
    assert "start it with 'flask mmolove sandbox'" in failure(endpoint=NOBODY).hint


# -- a proxy that does not -------------------------------------------------------------

WANTS_A_NAME = answer(407, b"<html>who are you?", Proxy_Authenticate="Basic")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (then_close(WANTS_A_NAME), "wants a name and a password"),
        (then_close(answer(403, b"no")), "let it allow that host"),
        (then_close(answer(502, b"")), "let it allow that host"),
        (reset, "does it run"),
        (then_close(b""), "does it run"),
        (then_close(CONNECTED), "does it run"),
        (then_close(CONNECTED + b"SSH-2.0-OpenSSH_9.2\r\n"), "does it run"),
    ],
    ids=["407", "403", "502", "reset", "nothing", "hung up", "no TLS"],
)
def test_a_proxy_that_does_not_connect_is_named(
    reply: Act, words: str, log: io.StringIO
) -> None:
    with RawServer(reply) as server:
        outcome = failure(proxy=at(server, f"anna:{PASSWORD}@"))
    assert words in outcome.hint
    assert "MMOLOVE_PROXY" in outcome.hint
    assert f"http://127.0.0.1:{server.port}" in outcome.hint
    assert PASSWORD not in repr(outcome) + log.getvalue()


def test_a_proxy_that_does_not_run_is_named() -> None:
    outcome = failure(proxy=f"http://anna:{PASSWORD}@127.0.0.1:1")
    assert "the proxy http://127.0.0.1:1 (MMOLOVE_PROXY): does it run" in outcome.hint
    assert "Connection refused" in outcome.body
    assert PASSWORD not in repr(outcome)


def test_a_proxy_s_status_says_what_it_is() -> None:
    with RawServer(then_close(WANTS_A_NAME)) as server:
        assert "407" in failure(proxy=at(server)).body


SLOW: dict[str, Act] = {
    "silence": then_hold(b""),
    "the answer by the byte": drip(CONNECTED + b" " * 200),
    "headers without end": flood(b"X-A: b\r\n", b"HTTP/1.1 200 OK\r\n"),
    "silence once connected": then_hold(CONNECTED),
    "the handshake by the byte": drip(
        CONNECTED + b"\x16\x03\x03\x40\x00\x02" + bytes(200), at_once=len(CONNECTED)
    ),
}


@pytest.mark.parametrize("reply", SLOW.values(), ids=SLOW)
def test_a_slow_proxy_keeps_the_deadline_of_one_attempt(reply: Act) -> None:
    with RawServer(reply) as server:
        started = time.monotonic()
        failure(proxy=at(server), timeout=0.3)
        assert time.monotonic() - started < 1.5


def test_the_deadline_is_one_for_the_proxy_and_mmolove_together(
    authority: Authority,
) -> None:
    def dawdle(server: RawServer, connection: socket.socket) -> None:
        server.pause(0.6)
        connect_to(silent.port)(server, connection)

    with RawServer(dawdle) as server, TLSServer(authority, then_hold(b"")) as silent:
        started = time.monotonic()
        failure(proxy=at(server), ca_bundle=authority.file, timeout=1)
        # Each of the two alone would be in time.
        assert 0.8 < time.monotonic() - started < 1.4


def test_the_deadline_is_one_for_the_proxy_and_the_handshake_together() -> None:
    def dawdle(server: RawServer, connection: socket.socket) -> None:
        server.pause(0.6)
        then_hold(CONNECTED)(server, connection)

    with RawServer(dawdle) as server:
        started = time.monotonic()
        failure(proxy=at(server), timeout=1)
        assert 0.8 < time.monotonic() - started < 1.4


def test_a_proxy_with_two_addresses_has_all_the_time_that_is_left(
    mmolove: RawServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dawdle(server: RawServer, connection: socket.socket) -> None:
        server.pause(2.2)  # more than half, which is each address's share
        connect_to(mmolove.port)(server, connection)

    with RawServer(dawdle) as server:
        really = socket.getaddrinfo

        def look_up(host: str, *args: t.Any, **kwargs: t.Any) -> list[t.Any]:
            if host == "proxy.test":
                return 2 * really("127.0.0.1", *args, **kwargs)
            return [*really(host, *args, **kwargs)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        proxy = f"http://proxy.test:{server.port}"
        assert report(proxy=proxy, ca_bundle=authority.file, timeout=4.2).ok


# -- a certificate authority -----------------------------------------------------------


def test_a_private_authority_is_trusted_where_it_is_named(
    mmolove: RawServer, authority: Authority
) -> None:
    endpoint = mmolove.url.replace("http:", "https:")
    assert report(endpoint=endpoint, ca_bundle=authority.file).ok
    outcome = failure(endpoint=endpoint)
    assert "certificate verify failed" in outcome.body
    assert "set MMOLOVE_CA_BUNDLE to the file of its certificates" in outcome.hint
    assert "environment" not in outcome.hint


@pytest.mark.parametrize("name", CA_VARIABLES)
def test_the_environment_s_authorities_are_not_trusted_but_spoken_of(
    monkeypatch: pytest.MonkeyPatch,
    mmolove: RawServer,
    authority: Authority,
    name: str,
) -> None:
    monkeypatch.setenv(name, str(authority.file))
    hint = failure(endpoint=mmolove.url.replace("http:", "https:")).hint
    assert "MMOLOVE_CA_BUNDLE" in hint
    assert f"{name} is set in the environment, and is not used." in hint


def test_a_bundle_without_the_right_authority_is_named(
    mmolove: RawServer, authority: Authority
) -> None:
    # The host's own certificate is no authority.
    import certifi

    outcome = failure(
        endpoint=mmolove.url.replace("http:", "https:"), ca_bundle=certifi.where()
    )
    assert f"{certifi.where()} (MMOLOVE_CA_BUNDLE)" in outcome.hint


def test_a_bundle_that_is_gone_is_no_more_than_a_failed_attempt(
    mmolove: RawServer, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.file.read_bytes())
    client = ReferralClient(
        server_id="srv-1",
        secret="secret",
        endpoint=mmolove.url.replace("http:", "https:"),
        ca_bundle=file,
    )
    file.unlink()
    outcome = client.qualified("tok", server_event_id="qual-7")
    client.close()
    assert (outcome.status, outcome.verdict) == (0, Verdict.RETRY)
    assert str(file) in outcome.body


# -- the settings ----------------------------------------------------------------------


def settings(folder: Path, **values: t.Any) -> Settings:
    config = {"MMOLOVE_SERVER_ID": "srv-1", "MMOLOVE_REFERRAL_SECRET": "secret"}
    config |= {f"MMOLOVE_{name}": value for name, value in values.items()}
    return Settings.from_config(config, folder)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/", "http://proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("proxy", "http://proxy:80"),
        ("anna:pass@proxy:3128", "http://proxy:3128"),
        ("HTTP://[::1]:3128", "http://[::1]:3128"),
        ("http://bücher.example:8080", "http://xn--bcher-kva.example:8080"),
    ],
)
def test_a_proxy_is_written_as_elsewhere(value: str, address: str) -> None:
    proxy = read_proxy(value)
    assert proxy is not None and proxy.address == address


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f"socks5://anna:{PASSWORD}@proxy:1080", "no proxy of socks5:// is used"),
        (f"https://anna:{PASSWORD}@proxy:3128", "no proxy of https:// is used"),
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
    client = ReferralClient.from_settings(read)
    proxy = read_proxy(f"http://anna:{PASSWORD}@proxy:3128")
    assert proxy is not None
    encoded = proxy.headers["Proxy-Authorization"].split()[1]
    shown = f"{read!r} {client!r} {proxy!r} {proxy}"
    assert PASSWORD not in shown and encoded not in shown


def test_check_goes_through_the_proxy_and_does_not_show_the_password(
    mmolove: RawServer,
    proxy: RawServer,
    authority: Authority,
    log: io.StringIO,
    tmp_path: Path,
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(
        SECRET_KEY="not a secret",
        MMOLOVE_SERVER_ID="srv-1",
        MMOLOVE_REFERRAL_SECRET="secret",
        MMOLOVE_ENDPOINT=f"https://{HOST}/api",
        MMOLOVE_PROXY=at(proxy, f"anna:{PASSWORD}@"),
        MMOLOVE_CA_BUNDLE=authority.file,
    )
    MMOLove(app)
    info = ScriptInfo(create_app=lambda: app)
    for name in ("check", "status"):
        result = CliRunner().invoke(command, [name], obj=info)
        assert result.exit_code == 0, result.output
        assert PASSWORD not in result.output + log.getvalue()
        if name == "check":
            assert f"by the proxy {at(proxy)}" in result.output
    assert len(mmolove.requests) == 2
