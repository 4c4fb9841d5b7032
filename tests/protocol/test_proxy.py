"""Events through a real proxy."""

from __future__ import annotations

import base64
import io
import socket
import time
import typing as t
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from flask_mmolove import MMOLove
from flask_mmolove import ReferralClient
from flask_mmolove.admin.cli import mmolove as command
from flask_mmolove.protocol.proxy import read_proxy
from tests.protocol.clients import at
from tests.protocol.clients import failure
from tests.protocol.clients import PASSWORD
from tests.protocol.clients import report
from tests.protocol.rawserver import Act
from tests.protocol.rawserver import drip
from tests.protocol.rawserver import flood
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import reset
from tests.protocol.rawserver import response
from tests.protocol.rawserver import then_close
from tests.protocol.rawserver import then_hold
from tests.protocol.tlsserver import Authority
from tests.protocol.tlsserver import connect_to
from tests.protocol.tlsserver import CONNECTED
from tests.protocol.tlsserver import HOST
from tests.protocol.tlsserver import TLSServer


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
    with RawServer(response()) as sandbox:
        assert report(endpoint=sandbox.url, proxy=at(proxy)).status == 200
    assert not proxy.requests


# -- a proxy that does not connect -----------------------------------------------------


WANTS_A_NAME = response(407, b"<html>who are you?", Proxy_Authenticate="Basic")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (then_close(WANTS_A_NAME), "asks for a name and a password"),
        (then_close(response(403, b"no")), "allow that host there"),
        (then_close(response(502, b"")), "allow that host there"),
        (reset, "is it running"),
        (then_close(b""), "is it running"),
        (then_close(CONNECTED), "is it running"),
        (then_close(CONNECTED + b"SSH-2.0-OpenSSH_9.2\r\n"), "is it running"),
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
    assert "the proxy http://127.0.0.1:1 (MMOLOVE_PROXY): is it running" in outcome.hint
    assert "Connection refused" in outcome.body
    assert PASSWORD not in repr(outcome)


def test_a_proxy_s_status_says_what_it_is() -> None:
    with RawServer(then_close(WANTS_A_NAME)) as server:
        assert "407" in failure(proxy=at(server)).body


SLOW: dict[str, Act] = {
    "silence": then_hold(b""),
    "the response by the byte": drip(CONNECTED + b" " * 200),
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
