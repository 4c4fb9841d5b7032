"""Where a server listens."""

from __future__ import annotations

import os
import socket


def listen(host: str, port: int, option: str) -> socket.socket:
    """Take a port.

    :param option: The option that names another one.
    :raises SystemExit: If something else has it.
    """
    try:
        return socket.create_server((host, port))
    except OSError as e:
        words = os.strerror(e.errno or 0)
        raise SystemExit(f"Port {port}: {words}. Try another {option}.") from None
