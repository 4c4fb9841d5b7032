from __future__ import annotations

import os
import shutil
import subprocess
import typing as t
from contextlib import ExitStack

import pytest

from flask_mmolove import ReferralClient
from flask_mmolove.protocol.failure import CA_VARIABLES
from flask_mmolove.protocol.failure import PROXY_VARIABLES
from tests.protocol.clients import Clock
from tests.protocol.clients import Reach
from tests.protocol.clients import SECRET
from tests.protocol.rawserver import RawServer
from tests.protocol.rawserver import response
from tests.protocol.tlsserver import Authority
from tests.protocol.tlsserver import connect_to
from tests.protocol.tlsserver import HOST
from tests.protocol.tlsserver import TLSServer


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, *CA_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reach(clock: Clock) -> t.Iterator[Reach]:
    """Makes clients whose connections are closed at the end."""
    with ExitStack() as stack:

        def make(url: str, **options: t.Any) -> ReferralClient:
            client = ReferralClient(
                server_id="srv-1", secret=SECRET, endpoint=url, clock=clock, **options
            )
            stack.callback(client.close)
            return client

        yield make


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


@pytest.fixture
def mmolove(authority: Authority) -> t.Iterator[RawServer]:
    body = b'{"ok":true,"state":"registered"}'
    with TLSServer(authority, response(body=body)) as server:
        yield server


@pytest.fixture
def proxy(mmolove: RawServer) -> t.Iterator[RawServer]:
    with RawServer(connect_to(mmolove.port)) as server:
        yield server
