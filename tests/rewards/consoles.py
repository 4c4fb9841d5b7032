"""Consoles of game servers, as small servers on this machine."""

from __future__ import annotations

import base64
import contextlib
import json
import socketserver
import struct
import threading
import typing as t
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from xml.etree import ElementTree

_LOGIN, _COMMAND = 3, 2


class Console:
    """What a console was told, and what it does.

    :ivar commands: Each command, as it arrived.
    :ivar answer: What it answers.
    :ivar drops: Whether it does what it is told and the answer is lost.
    """

    def __init__(self) -> None:
        self.commands: list[t.Any] = []
        self.answer = "done"
        self.drops = False
        self.port = 0


@contextlib.contextmanager
def _serve(server: socketserver.TCPServer, console: Console) -> t.Iterator[Console]:
    console.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield console
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rcon(password: str) -> t.ContextManager[Console]:
    """Source's remote console, as Minecraft and others speak it."""
    console = Console()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.read(4):
                (length,) = struct.unpack("<i", head)
                id, kind = struct.unpack("<ii", self.rfile.read(8))
                payload = self.rfile.read(length - 8).rstrip(b"\0").decode()
                if kind == _LOGIN:
                    self._reply(id if payload == password else -1, _COMMAND, "")
                else:
                    console.commands.append(payload)
                    if console.drops:
                        return
                    self._reply(id, 0, console.answer)

        def _reply(self, id: int, kind: int, payload: str) -> None:
            body = struct.pack("<ii", id, kind) + payload.encode() + b"\0\0"
            self.wfile.write(struct.pack("<i", len(body)) + body)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    return _serve(Server(("127.0.0.1", 0), Handler), console)


def http(read: t.Callable[[BaseHTTPRequestHandler, bytes], t.Any]) -> t.Any:
    """An HTTP server that takes what ``read`` makes of a request; 401 if None."""
    console = Console()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            command = read(self, body)
            if command is not None:
                console.commands.append(command)
            if console.drops:
                self.close_connection = True
                return
            status = 401 if command is None else 200
            if console.answer.isdigit():
                status = int(console.answer)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    return _serve(ThreadingHTTPServer(("127.0.0.1", 0), Handler), console)


def soap(user: str, password: str) -> t.ContextManager[Console]:
    """The console of a world server, behind a name and a password."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()

    def read(request: BaseHTTPRequestHandler, body: bytes) -> str | None:
        if request.headers["Authorization"] != f"Basic {pair}":
            return None
        call = ElementTree.fromstring(body).find(".//{urn:AC}executeCommand/command")
        return None if call is None else call.text

    console: t.ContextManager[Console] = http(read)
    return console


def plugin() -> t.ContextManager[Console]:
    """A plugin, or whatever takes JSON."""
    console: t.ContextManager[Console] = http(lambda request, body: json.loads(body))
    return console
