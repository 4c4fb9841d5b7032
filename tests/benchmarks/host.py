"""A host that takes every event at once, or after a while, in a process of its own:
what is measured is the sender.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socketserver
import ssl
import subprocess
import time
import typing as t
from email.utils import formatdate
from multiprocessing.connection import Connection
from pathlib import Path

_BODY = b'{"ok":true,"state":"registered","referral_id":"rfl_d3c0d7105b581c12"}'


@contextlib.contextmanager
def serve(latency: float = 0.0, cert: Path | None = None) -> t.Iterator[str]:
    """Run it, and give the URL that takes events.

    :param latency: Seconds before each answer.
    :param cert: A file with a key and its certificate, for TLS.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, latency, cert), daemon=True)
    process.start()
    try:
        scheme = "http" if cert is None else "https"
        yield f"{scheme}://127.0.0.1:{ours.recv()}/api/referral/events"
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


def _run(pipe: Connection, latency: float, cert: Path | None) -> None:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.latency = latency
        if cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        pipe.send(server.server_address[1])
        server.serve_forever()


def make_certificate(path: Path) -> None:
    """Write a key and a certificate of this machine's own, good for an hour or so."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    with path.open("a") as file:
        file.write(path.with_suffix(".crt").read_text())
