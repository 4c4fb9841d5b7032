"""Database servers that all workers of a test run share.

The process that was started as ``pytest`` starts a server when a test first asks for
it, and ends it with the run. A killed run leaves none behind: a server ends with a pipe
of which only that process holds the other end.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import typing as t
from multiprocessing.connection import Client
from multiprocessing.connection import Listener
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy import URL

from example_app.servers import Missing

ROOT = Path(__file__).parent.parent

Answer = dict[str, str]
Ask = t.Callable[[str], Answer]


class Servers:
    """The servers of a run, in the process that started it."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._answers: dict[str, Answer] = {}
        self._address: t.Any = None

    def start(self, name: str) -> Answer:
        """The server's URL, or what is missing."""
        if name not in self._answers:
            process = subprocess.Popen(
                (sys.executable, "-m", "example_app.servers", name),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl+C ends the tests, and they end it
            )
            self._stack.enter_context(process)  # closes the pipe and waits
            assert process.stdout is not None
            self._answers[name] = json.loads(process.stdout.readline())
        return self._answers[name]

    def listen(self) -> t.Any:
        """Answer workers from now on. Gives the address for :func:`ask`."""
        if self._address is None:
            listener = self._stack.enter_context(Listener())
            thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
            thread.start()
            self._stack.callback(thread.join)
            self._stack.callback(ask, listener.address, "")
            self._address = listener.address
        return self._address

    def _serve(self, listener: Listener) -> None:
        name = " "
        while name:
            with listener.accept() as connection:
                name = connection.recv()
                connection.send(self.start(name) if name else {})

    def close(self) -> None:
        self._stack.close()


def ask(address: t.Any, name: str) -> Answer:
    """What :meth:`Servers.start` gives in the process that started the run."""
    with Client(address) as connection:
        connection.send(name)
        answer: Answer = connection.recv()
    return answer


def find(name: str, ask: Ask) -> URL:
    """The URL of a server.

    :raises Missing: If it is not installed.
    """
    answer = ask(name)
    if "missing" in answer:
        raise Missing(answer["missing"])
    return make_url(answer["url"])
