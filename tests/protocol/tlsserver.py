"""A server behind a certificate, and a proxy that connects to it."""

from __future__ import annotations

import socket
import ssl
import threading
import typing as t
from pathlib import Path

from tests.protocol.rawserver import Act
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import Reply

#: A host that only the proxy finds.
HOST = "mmolove.test"
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Authority(t.NamedTuple):
    """A private one: its certificate, and a host's that it signed, with the key."""

    file: Path
    host: Path
    key: Path


class TLSServer(RawServer):
    """The same behind a certificate."""

    def __init__(self, authority: Authority, *replies: Reply) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority.host, authority.key)
        super().__init__(*replies)

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
