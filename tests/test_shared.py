"""The servers that the tests share end with the run, however that ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

HOLDER = """
import time
from tests.shared import Servers
print(Servers().start("postgresql")["url"], flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("postgresql")  # or it is skipped
def test_a_killed_run_leaves_no_server_behind() -> None:
    command = [sys.executable, "-c", HOLDER]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        url = make_url(run.stdout.readline())
        assert url.host is not None and url.port is not None
        socket.create_connection((url.host, url.port), 5).close()
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline:
            socket.create_connection((url.host, url.port), 5).close()
            time.sleep(0.05)
