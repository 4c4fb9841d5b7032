"""Servers that misbehave, over real sockets of this machine."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import typing as t

OK = b'{"ok":true}'

#: What is done with a connection before it is closed.
Act = t.Callable[["RawServer", socket.socket], None]

#: Or bytes to send, after which it is kept.
Reply = bytes | Act


class Request(t.NamedTuple):
    """What arrived. ``connection`` counts from 0."""

    connection: int
    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        assert len(values) < 2
        return values[0] if values else None


class RawServer:
    """Answers each request on loopback with the next of its responses; the last one is
    repeated. All that it does ends when it is closed.
    """

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        self.connections = 0
        self.hung_up = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/referral/events"

    def pause(self, seconds: float) -> bool:
        """Wait, and say whether the server is to go on."""
        return not self._closing.wait(seconds)

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._serve, args=(connection, self.connections)
            )
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream:
            with contextlib.suppress(OSError):
                self._converse(connection, stream, number)
            with self._lock:
                self._open.discard(connection)
        self.hung_up.set()

    def _converse(
        self, connection: socket.socket, stream: t.BinaryIO, number: int
    ) -> None:
        while line := stream.readline().decode("latin-1").strip():
            headers = []
            while head := stream.readline().decode("latin-1").strip():
                name, _, value = head.partition(":")
                headers.append((name, value.strip()))
            request = Request(number, line, headers, b"")
            length = int(request.header("Content-Length") or 0)
            request = request._replace(body=stream.read(length))
            with self._lock:
                self.requests.append(request)
                reply = self.replies.pop(0)
                if not self.replies:
                    self.replies.append(reply)
            if not isinstance(reply, bytes):
                reply(self, connection)
                return
            connection.sendall(reply)


class Chatterbox(RawServer):
    """Does not wait for a request."""

    def _converse(
        self, connection: socket.socket, stream: t.BinaryIO, number: int
    ) -> None:
        for reply in self.replies:
            assert not isinstance(reply, bytes)
            reply(self, connection)


def response(status: int = 200, body: bytes = OK, **headers: str) -> bytes:
    """A well-formed response. In the names of headers ``_`` stands for ``-``."""
    fields = {"Content_Length": str(len(body)), **headers}
    head = [f"HTTP/1.1 {status} Words"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


def json_response(**fields: t.Any) -> bytes:
    return response(body=json.dumps(fields).encode())


def chunked(body: bytes) -> bytes:
    chunks = [body[i : i + 7] for i in range(0, len(body), 7)]
    return response(body=b"", Transfer_Encoding="chunked").replace(
        b"Content-Length: 0\r\n", b""
    ) + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in [*chunks, b""])


def then_close(data: bytes) -> Act:
    def act(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(data)

    return act


def then_hold(data: bytes) -> Act:
    def act(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(data)
        server.pause(60)

    return act


def drip(data: bytes, *, at_once: int = 0) -> Act:
    """A byte every 50 ms, so that no single read takes long."""

    def act(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(data[:at_once])
        for byte in data[at_once:]:
            connection.sendall(bytes([byte]))
            if not server.pause(0.05):
                return

    return act


def reset(server: RawServer, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def flood(data: bytes, start: bytes = b"") -> Act:
    """The same again and again, as long as anybody listens."""

    def act(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(start)
        while server.pause(0.001):
            connection.sendall(data)

    return act
