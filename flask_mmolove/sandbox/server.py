"""The sandbox, served on this machine."""

from __future__ import annotations

import os
import socket
import threading
import time
import typing as t
from contextlib import suppress
from urllib.parse import urlencode

from flask import Flask
from werkzeug.serving import ThreadedWSGIServer
from werkzeug.serving import WSGIRequestHandler

from .app import create_sandbox
from .app import EVENTS_PATH
from .faults import Faults
from .faults import NO_FAULTS
from .ledger import Arrival
from .ledger import Referral
from .service import Service


class Sandbox:
    """A local MMOLove, served on loopback by a thread of its own::

        with Sandbox() as sandbox:
            app.config.update(sandbox.settings)
            ...
            assert [e.event for e in sandbox.events] == ["registered"]

    The other parameters are those of ``create_sandbox()``.

    :param port: The port to serve on; any free one, unless given. It stays the same, so
        :meth:`stop` and :meth:`start` make an outage.
    """

    def __init__(
        self,
        *,
        server_id: str = "demo-server",
        secret: str | None = "demo-secret",
        registration_url: str = "http://127.0.0.1:5000/register",
        path: str | os.PathLike[str] | None = None,
        faults: Faults = NO_FAULTS,
        now: t.Callable[[], float] = time.time,
        host_names: t.Collection[str] = (),
        port: int = 0,
    ) -> None:
        self.app = create_sandbox(
            server_id=server_id,
            secret=secret,
            registration_url=registration_url,
            path=path,
            faults=faults,
            now=now,
            host_names=host_names,
        )
        self.server_id = server_id
        self._secret = secret
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start serving, unless it does already.

        :raises OSError: If the port is in use, or needs rights that we lack.
        """
        if self._server is not None:
            return
        # Werkzeug would exit the process if it could not bind the port itself.
        with socket.create_server(("127.0.0.1", self._port)) as bound:
            self._server = _Server(bound, self.app)
        self._port = self._server.port
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.01},
            name="mmolove-sandbox",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, as in an outage, after running requests. The ledger is kept."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server = self._thread = None

    def close(self) -> None:
        """Stop for good, and close the ledger."""
        self.stop()
        self.service.ledger.close()

    @property
    def service(self) -> Service:
        """The servers, the ledger and the clock behind it."""
        service: Service = self.app.extensions["mmolove_sandbox"]
        return service

    @property
    def faults(self) -> Faults:
        """What goes wrong; may be replaced while it runs."""
        return self.service.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.service.faults = faults

    @property
    def url(self) -> str:
        """The URL it is served at, without a slash at the end."""
        if not self._port:
            raise RuntimeError("A sandbox has no address before it is started.")
        return f"http://127.0.0.1:{self._port}"

    @property
    def endpoint(self) -> str:
        """The URL to send events to."""
        return f"{self.url}{EVENTS_PATH}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings for a site's ``app.config``."""
        return {
            "MMOLOVE_SERVER_ID": self.server_id,
            "MMOLOVE_REFERRAL_SECRET": self._secret or "",
            "MMOLOVE_ENDPOINT": self.endpoint,
        }

    def share_link(self, ref: str = "demo") -> str:
        """The link that the player with this code shares."""
        return f"{self.url}/r/{self.server_id}?{urlencode({'ref': ref})}"

    def mint(self, ref: str = "demo") -> str:
        """Create a token, as a click on :meth:`share_link` does."""
        return self.service.mint(ref)

    @property
    def events(self) -> list[Arrival]:
        """The accepted events, oldest first, without duplicates and dry runs."""
        return [row for row in self.arrivals if row.outcome == "accepted"]

    @property
    def arrivals(self) -> list[Arrival]:
        """Every request to the endpoint, oldest first."""
        return self.service.arrivals

    @property
    def referrals(self) -> list[Referral]:
        """Every referral, oldest first."""
        return self.service.referrals


class _Handler(WSGIRequestHandler):
    # Werkzeug closes each connection: it does not know where an unread body ends.
    protocol_version = "HTTP/1.1"

    def send_response(self, code: int, message: str | None = None) -> None:
        # Without a Date: the app sends one, by its own clock.
        self.send_response_only(code, message)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the page shows it."""


class _Server(ThreadedWSGIServer):
    """Waits for its responses when it closes, but not for idle connections."""

    daemon_threads = False

    def __init__(self, bound: socket.socket, app: Flask) -> None:
        self._stopping: threading.Event = app.extensions["mmolove_sandbox"].stopping
        self._open: set[socket.socket] = set()
        host, port = bound.getsockname()
        super().__init__(host, port, app, _Handler, fd=bound.fileno())
        # Werkzeug has closed the socket that it made before it took ours.
        self._stopping.clear()

    def process_request(self, request: t.Any, client_address: t.Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: t.Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        self._stopping.set()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        super().server_close()
