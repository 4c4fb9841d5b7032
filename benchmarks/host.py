"""A host that takes every event at once, or after a while, in a process of its own:
what is measured is the sender.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socketserver
import time
import typing as t
from email.utils import formatdate
from multiprocessing.connection import Connection

_BODY = b'{"ok":true,"state":"registered","referral_id":"rfl_d3c0d7105b581c12"}'


@contextlib.contextmanager
def serve(latency: float = 0.0) -> t.Iterator[str]:
    """Run it, and give the URL that takes events.

    :param latency: Seconds before each answer.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, latency), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/api/referral/events"
    finally:
        process.kill()
        process.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64
    latency = 0.0


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            self.rfile.read(length)
            if self.server.latency:
                time.sleep(self.server.latency)
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Date: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (formatdate(usegmt=True).encode(), len(_BODY), _BODY)
            )


def _run(pipe: Connection, latency: float) -> None:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.latency = latency
        pipe.send(server.server_address[1])
        server.serve_forever()
