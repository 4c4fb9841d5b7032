"""One POST over requests, and nothing that requests would do besides.

The adapter is used without a :class:`requests.Session`, which would read ``~/.netrc``,
proxies and certificates from the environment, keep cookies and follow redirects; a
signed event needs none of that. What is added is a deadline: requests limits each read
only, so a server that drips a byte at a time could hold an attempt for ever.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import typing as t

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from .checks import is_local
from .proxy import Proxy
from .wire import request_headers
from .wire import SIGNATURE_HEADER

#: Bytes of a response that are read; MMOLove's have about a hundred.
RESPONSE_LIMIT = 64 * 1024

#: What :meth:`Transport.post` raises when no complete response came.
FAILURES = (requests.RequestException, HTTPError, OSError)


class Transport:
    """Sends signed bodies to one address over connections that are kept.

    :param endpoint: The URL to send to.
    :param timeout: Seconds for a whole attempt. The look-up of the host's name is not
        included: the system's resolver has no deadline.
    :param connections: How many are kept open at once.
    :param proxy: The proxy to use, unless the endpoint is on this machine.
    :param ca_bundle: A file of certificates to trust instead of those that come with
        requests.
    """

    def __init__(
        self,
        endpoint: str,
        timeout: float,
        connections: int,
        *,
        proxy: Proxy | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        self._timeout = timeout
        #: The proxy that is used, if any.
        self.proxy = None if is_local(endpoint) else proxy
        self._verify = ca_bundle or True
        self._adapter = _Adapter(self.proxy, connections)
        self._request = requests.Request(
            "POST",
            endpoint,
            headers=request_headers(),
        ).prepare()

    def post(
        self, body: bytes, signature: str
    ) -> tuple[int, t.Mapping[str, str], bytes]:
        """Send a body and return the response's status, headers and first 64 KiB.

        :raises FAILURES: If no complete response came in time.
        """
        request = self._request.copy()
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        request.headers[SIGNATURE_HEADER] = signature
        response = self._adapter.send(
            request,
            stream=True,
            timeout=t.cast(t.Any, _Deadline(self._timeout)),
            verify=self._verify,
            proxies=self.proxy and {"https": self.proxy.address},
        )
        try:
            content = response.raw.read(RESPONSE_LIMIT, decode_content=False)
            if response.raw.read(1, decode_content=False):
                response.raw.close()  # longer than the limit: do not read on
        except BaseException:
            response.raw.close()
            raise
        return response.status_code, response.headers, content

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()


class _Deadline(Timeout):
    """One deadline for the whole attempt: urllib3 starts anew behind a proxy."""

    def __init__(self, seconds: float) -> None:
        super().__init__(total=seconds)
        self._end = time.monotonic() + seconds

    def clone(self) -> Timeout:
        return self

    def start_connect(self) -> float:
        return time.monotonic()

    @property
    def connect_timeout(self) -> float:
        return _until(self._end)

    @property
    def read_timeout(self) -> float:
        return _until(self._end)


def _until(end: float) -> float:
    """Seconds that are left, but never 0, which would mean not to wait at all."""
    return max(end - time.monotonic(), 0.001)


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a deadline, however many reads that takes."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        # urllib3 has just set this to what is left of the whole attempt's time.
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any, /) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the response took longer than the timeout")
        self._sock.settimeout(left)
        return t.cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_DeadlineReader(raw, sock))


class _Connection(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connect(self, super()._new_conn)


class _TLSConnection(HTTPSConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connect(self, super()._new_conn)

    def _tunnel(self) -> None:
        end = time.monotonic() + (self.sock.gettimeout() or 0.0)
        super()._tunnel()
        self.sock.settimeout(_until(end))  # the handshake comes next


def _connect(
    connection: HTTPConnection, connect: t.Callable[[], socket.socket]
) -> socket.socket:
    """Try a host's addresses in turn; urllib3 would give each the whole timeout."""
    name, timeout = connection._dns_host, connection.timeout
    deadline = time.monotonic() + (timeout or 0.0)
    failure: HTTPError | None = None
    try:
        found = socket.getaddrinfo(name, connection.port, type=socket.SOCK_STREAM)
        for left, (*_, address) in zip(range(len(found), 0, -1), found, strict=True):
            connection._dns_host = str(address[0])
            # An equal share, so that a dead address leaves time for the others.
            connection.timeout = max((deadline - time.monotonic()) / left, 0.001)
            try:
                sock = connect()
                sock.settimeout(_until(deadline))
                return sock
            except HTTPError as e:
                failure = e
    finally:
        connection._dns_host, connection.timeout = name, timeout
    raise failure or OSError(f"no address for {name}")


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS = {"http": _Pool, "https": _TLSPool}


class _Adapter(HTTPAdapter):
    def __init__(self, proxy: Proxy | None, connections: int) -> None:
        self._proxy = proxy
        super().__init__(pool_connections=1, pool_maxsize=connections)

    def init_poolmanager(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: t.Any) -> t.Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        # Not in the URL, which an error may quote.
        return self._proxy.headers if self._proxy else {}
