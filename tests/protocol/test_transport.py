"""One POST against servers that misbehave, over real sockets."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
import typing as t
from pathlib import Path

import pytest

from flask_mmolove import sign_referral_body
from flask_mmolove.protocol.transport import FAILURES
from flask_mmolove.protocol.transport import RESPONSE_LIMIT
from flask_mmolove.protocol.transport import Transport
from tests.protocol.rawserver import Chatterbox
from tests.protocol.rawserver import chunked
from tests.protocol.rawserver import drip
from tests.protocol.rawserver import flood
from tests.protocol.rawserver import OK
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import Reply
from tests.protocol.rawserver import reset
from tests.protocol.rawserver import response
from tests.protocol.rawserver import then_close
from tests.protocol.rawserver import then_hold

BODY = b'{"event":"registered"}'
SIGNATURE = sign_referral_body(BODY, "secret", timestamp=1733500000)


@contextlib.contextmanager
def talking_to(url: str, timeout: float = 5) -> t.Iterator[Transport]:
    transport = Transport(url, timeout, 2)
    try:
        yield transport
    finally:
        transport.close()


# -- what is sent --------------------------------------------------------------------


def test_the_bytes_arrive_as_they_are_and_with_nothing_that_was_not_asked_for() -> None:
    with RawServer(response()) as server, talking_to(server.url) as transport:
        status, _, content = transport.post(BODY, SIGNATURE)
    assert (status, content) == (200, OK)
    [request] = server.requests
    assert request.line == "POST /api/referral/events HTTP/1.1"
    assert request.body == BODY
    headers = {name.lower(): value for name, value in request.headers}
    assert headers.pop("user-agent").startswith("Flask-MMOLove/")
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "x-mmolove-signature": SIGNATURE,
    }


def test_the_query_of_an_endpoint_is_kept() -> None:
    with RawServer(response()) as server:
        with talking_to(f"{server.url}?v=2&w=%C3%A4#x") as transport:
            transport.post(BODY, SIGNATURE)
    assert server.requests[0].line == "POST /api/referral/events?v=2&w=%C3%A4 HTTP/1.1"


def test_netrc_and_the_proxies_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login anna password will-o-the-wisp\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with RawServer(response(502)) as proxy, RawServer(response()) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with talking_to(server.url) as transport:
            assert transport.post(BODY, SIGNATURE)[0] == 200
    assert proxy.connections == 0
    assert server.requests[0].header("Authorization") is None


def test_a_cookie_is_not_sent_back() -> None:
    with RawServer(response(Set_Cookie="a=b; Path=/")) as server:
        with talking_to(server.url) as transport:
            transport.post(BODY, SIGNATURE)
            transport.post(BODY, SIGNATURE)
    assert [request.header("Cookie") for request in server.requests] == [None, None]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_never_followed(status: int) -> None:
    with RawServer(response()) as other, RawServer() as server:
        server.replies.append(response(status, b"", Location=other.url))
        with talking_to(server.url) as transport:
            assert transport.post(BODY, SIGNATURE)[0] == status
    assert other.connections == 0
    assert len(server.requests) == 1


# -- connections ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        response(),
        response(503, b"<h1>Trouble</h1>"),
        response(body=b"x" * RESPONSE_LIMIT),
        chunked(OK),
    ],
    ids=["200", "503", "as long as may be", "chunked"],
)
def test_a_connection_is_kept_for_the_next_attempt(reply: bytes) -> None:
    with RawServer(reply) as server, talking_to(server.url) as transport:
        contents = [transport.post(BODY, SIGNATURE)[2] for _ in range(3)]
    assert len(set(contents)) == 1
    assert [request.connection for request in server.requests] == [0, 0, 0]


def test_a_connection_that_the_server_gave_up_is_replaced_without_a_failure() -> None:
    with RawServer(then_close(response())) as server:
        with talking_to(server.url) as transport:
            for _ in range(2):
                assert transport.post(BODY, SIGNATURE)[2] == OK
                assert server.hung_up.wait(5)
                server.hung_up.clear()
    assert [request.connection for request in server.requests] == [0, 1]


def test_bytes_after_a_response_do_not_become_the_next_response() -> None:
    forged = response(body=b'{"ok":true,"state":"qualified"}')
    with RawServer(response() + forged, response(503)) as server:
        with talking_to(server.url) as transport:
            assert transport.post(BODY, SIGNATURE)[0] == 200
            try:
                status = transport.post(BODY, SIGNATURE)[0]
            except FAILURES:
                return
    assert status == 503


def test_a_failed_attempt_is_not_repeated_by_itself() -> None:
    with RawServer(reset) as server, talking_to(server.url) as transport:
        with pytest.raises(FAILURES):
            transport.post(BODY, SIGNATURE)
    assert len(server.requests) == 1


# -- responses that are too much -------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        response(body=b'{"ok":true}' + b" " * 10_000_000),
        chunked(b'{"ok":true}' + b" " * 200_000),
    ],
    ids=["10 MB", "chunked"],
)
def test_no_more_is_read_than_is_wanted(reply: bytes) -> None:
    with RawServer(then_close(reply), response()) as server:
        with talking_to(server.url) as transport:
            assert len(transport.post(BODY, SIGNATURE)[2]) == RESPONSE_LIMIT
            assert transport.post(BODY, SIGNATURE)[2] == OK
    assert [request.connection for request in server.requests] == [0, 1]


def test_an_endless_response_ends_for_us() -> None:
    head = response(body=b"").replace(b"Content-Length: 0", b"Connection: close")
    with RawServer(flood(b" " * 65536, head)) as server:
        with talking_to(server.url) as transport:
            assert len(transport.post(BODY, SIGNATURE)[2]) == RESPONSE_LIMIT


def test_a_compressed_response_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    reply = then_close(response(body=bomb, Content_Encoding="gzip"))
    with RawServer(reply) as server, talking_to(server.url) as transport:
        content = transport.post(BODY, SIGNATURE)[2]
    assert content == bomb[:RESPONSE_LIMIT]


# -- no response -----------------------------------------------------------------------

NO_RESPONSE: dict[str, Reply] = {
    "reset": reset,
    "closed without a word": then_close(b""),
    "closed in the status line": then_close(b"HTTP/1.1 20"),
    "closed in the body": then_close(response(Content_Length="500")),
    "closed in a chunk": then_close(chunked(OK)[:-12]),
    "no HTTP": then_close(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a bad chunk": then_close(chunked(OK).replace(b"\r\n7\r\n", b"\r\nzz\r\n")),
    "two lengths": then_close(response(Content_Length="5, 6")),
    "a line without end": then_close(b"HTTP/1.1 200 " + b"x" * 100_000),
    "headers without end": flood(b"X-A: b\r\n", b"HTTP/1.1 200 OK\r\n"),
}


@pytest.mark.parametrize("reply", NO_RESPONSE.values(), ids=NO_RESPONSE)
def test_half_an_response_is_none(reply: Reply) -> None:
    with RawServer(reply) as server, talking_to(server.url) as transport:
        with pytest.raises(FAILURES):
            transport.post(BODY, SIGNATURE)


def test_a_refused_connection_is_a_failure() -> None:
    with RawServer(response()) as server:
        url = server.url
    with talking_to(url) as transport, pytest.raises(FAILURES):
        transport.post(BODY, SIGNATURE)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://127.0.0.1:1/"])
def test_a_port_where_nobody_listens_is_a_failure(url: str) -> None:
    with talking_to(url) as transport, pytest.raises(FAILURES):
        transport.post(BODY, SIGNATURE)


def test_a_host_that_speaks_no_tls_is_a_failure() -> None:
    with Chatterbox(then_close(response())) as server:
        with talking_to(server.url.replace("http:", "https:")) as transport:
            with pytest.raises(FAILURES):
                transport.post(BODY, SIGNATURE)


# -- the deadline --------------------------------------------------------------------

# Each would take several seconds if only single reads were limited.
SLOW: dict[str, Reply] = {
    "silence": then_hold(b""),
    "half a head": then_hold(response()[:20]),
    "half a body": then_hold(response(Content_Length="500")),
    "headers by the byte": drip(response(X_Padding="x" * 200)),
    "body by the byte": drip(response(body=b" " * 200), at_once=60),
    "chunks by the byte": drip(chunked(b" " * 200), at_once=60),
    "continue without end": flood(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("reply", SLOW.values(), ids=SLOW)
def test_the_timeout_is_one_for_the_whole_attempt(reply: Reply) -> None:
    with RawServer(reply) as server, talking_to(server.url, 0.2) as transport:
        started = time.monotonic()
        with pytest.raises(FAILURES):
            transport.post(BODY, SIGNATURE)
        assert time.monotonic() - started < 2


def test_the_last_read_is_given_only_what_is_left() -> None:
    def falter(server: RawServer, connection: socket.socket) -> None:
        drip(b"HTTP/1.1 200 OK\r")(server, connection)  # 0.8 s
        server.pause(60)

    with RawServer(falter) as server, talking_to(server.url, 1) as transport:
        started = time.monotonic()
        with pytest.raises(FAILURES):
            transport.post(BODY, SIGNATURE)
        assert time.monotonic() - started < 1.5


def test_the_timeout_is_one_for_the_tls_handshake_too() -> None:
    with Chatterbox(drip(b"\x16\x03\x03\x40\x00\x02" + bytes(200))) as server:
        with talking_to(server.url.replace("http:", "https:"), 0.2) as transport:
            started = time.monotonic()
            with pytest.raises(FAILURES):
                transport.post(BODY, SIGNATURE)
            assert time.monotonic() - started < 2


def test_the_timeout_begins_anew_with_each_attempt_on_a_kept_connection() -> None:
    # Together the responses take longer than the timeout of one attempt.
    slow = drip(b" " * 20 + OK)
    with RawServer(response(), response(), slow) as server:
        with talking_to(server.url, 0.4) as transport:
            transport.post(BODY, SIGNATURE)
            assert server.pause(0.3)
            assert transport.post(BODY, SIGNATURE)[0] == 200
            started = time.monotonic()
            with pytest.raises(FAILURES):
                transport.post(BODY, SIGNATURE)
            assert time.monotonic() - started > 0.2
    assert server.connections == 1


@contextlib.contextmanager
def silent_port(host: str = "127.0.0.1", wanted: int = 0) -> t.Iterator[int]:
    """A port whose queue is full, so that connecting to it takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, wanted))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(20):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield port


def test_a_host_that_does_not_take_the_connection_is_a_failure_in_time() -> None:
    with silent_port() as port:
        with talking_to(f"http://127.0.0.1:{port}/", 0.3) as transport:
            started = time.monotonic()
            with pytest.raises(FAILURES):
                transport.post(BODY, SIGNATURE)
            assert time.monotonic() - started < 2


def test_a_host_with_several_addresses_has_one_timeout_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with silent_port() as port:
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))

        def look_up(host: str, *args: object, **kwargs: object) -> list[t.Any]:
            return [address] * (6 if host == "mmolove.test" else 1)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with talking_to(f"http://mmolove.test:{port}/", 0.2) as transport:
            started = time.monotonic()
            with pytest.raises(FAILURES):
                transport.post(BODY, SIGNATURE)
            assert time.monotonic() - started < 0.9


def test_a_dead_address_does_not_take_the_time_of_one_that_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As with a route for IPv6 that leads nowhere: it would fail at every attempt.
    with RawServer(response()) as server:
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, server.port))
            for host in ("127.0.0.2", "127.0.0.1")
        ]

        def look_up(host: str, *args: object, **kwargs: object) -> list[t.Any]:
            return [a for a in addresses if host in ("mmolove.test", a[4][0])]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with silent_port("127.0.0.2", server.port):
            url = f"http://mmolove.test:{server.port}/"
            with talking_to(url, 1) as transport:
                assert transport.post(BODY, SIGNATURE)[0] == 200
