"""Which databases can keep an outbox, and how they are connected to."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import traceback
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy import URL

from example_app import servers
from flask_mmolove import ConfigError
from flask_mmolove import OutboxError
from flask_mmolove.outbox.sql.engines import _CONNECT
from flask_mmolove.outbox.sql.store import SQLAlchemyOutbox
from tests.outbox.recording import add


class TestTrouble:
    """What the words of an error say, and what they do not."""

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("nonsense s3cret", "is no URL"),
            ("oracle://u:s3cret@host/db", "oracle"),
            ("postgres://u:s3cret@host/db", "postgres"),
            ("postgresql+asyncpg://u:s3cret@host/db", "asyncio"),
            ("mysql+oursql9://u:s3cret@host/db", "oursql9"),
            ("sqlite+pysqlite://", "in memory"),
        ],
    )
    def test_a_url_that_cannot_be(self, url: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words) as caught:
            SQLAlchemyOutbox(url)
        assert "MMOLOVE_OUTBOX" in str(caught.value)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
    def test_a_server_that_is_not_there(self, driver: str) -> None:
        port = servers.free_port()
        outbox = SQLAlchemyOutbox(f"{driver}://u:s3cret@127.0.0.1:{port}/db")
        begun = time.monotonic()
        with pytest.raises(OutboxError, match="MMOLOVE_OUTBOX") as caught:
            outbox.of("7", False)
        assert time.monotonic() - begun < 2
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        outbox.close()

    def test_the_cause_shows_nothing_that_was_to_be_written(self, url: URL) -> None:
        engine = create_engine(url)  # one that would show it
        outbox = SQLAlchemyOutbox(engine, creates=lambda: False)
        outbox.create()
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE mmolove_event RENAME TO away")
        with pytest.raises(OutboxError) as caught:
            add(outbox, "7")
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO mmolove_event")
        assert "tok-7" not in "".join(traceback.format_exception(caught.value))
        outbox.close()
        engine.dispose()


class Relay:
    """Stands before a server, and can fall silent with its connections open.

    :ivar url: The server's, by way of this.
    """

    def __init__(self, url: URL) -> None:
        self.silent = False
        self._to = (url.host or "", url.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.url = url.set(port=self._listener.getsockname()[1])

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pass_on, args=ends, daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.silent:
                    target.sendall(data)


def test_sqlite_s_lock_is_waited_for_in_turns(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'site.db'}")  # waits 5 s by itself
    outbox = SQLAlchemyOutbox(engine)
    add(outbox)
    with outbox._engine().connect() as connection:
        turn = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    assert turn is not None and turn <= 1000
    outbox.close()
    engine.dispose()


class TestSilence:
    """A machine that is gone, while connections to it are open."""

    @pytest.mark.parametrize("libpq", [None, 110022])
    def test_postgresql_s_driver_leaves_that_to_the_system(
        self, postgresql: URL, monkeypatch: pytest.MonkeyPatch, libpq: int | None
    ) -> None:
        # It would take a network that loses everything to see it at work.
        most = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1}
        if libpq is None:
            most[socket.TCP_USER_TIMEOUT] = 1500
        else:
            monkeypatch.setattr("psycopg.pq.version", lambda: libpq)
        outbox = SQLAlchemyOutbox(postgresql)
        with outbox._engine().connect() as connection:
            fd = t.cast(t.Any, connection.connection).fileno()
            with socket.socket(fileno=os.dup(fd)) as copy:
                assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                for option in (*most, socket.TCP_USER_TIMEOUT):
                    found = copy.getsockopt(socket.IPPROTO_TCP, option)
                    assert found == most.get(option, 0)
        outbox.close()

    def test_mariadb_s_waits_no_longer_for_an_answer(
        self, mariadb: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = dict.fromkeys(_CONNECT["pymysql"], 0.2)
        monkeypatch.setitem(_CONNECT, "pymysql", short)
        with ThreadPoolExecutor(1) as pool, Relay(mariadb) as relay:
            outbox = SQLAlchemyOutbox(relay.url)
            outbox.of("7", False)
            relay.silent = True
            with pytest.raises(OutboxError, match="Lost connection"):
                pool.submit(outbox.of, "7", False).result(10)
            outbox.close()

    def test_who_cannot_wait_tries_no_other_connection(
        self, mariadb: URL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = dict.fromkeys(_CONNECT["pymysql"], 0.2)
        monkeypatch.setitem(_CONNECT, "pymysql", short)
        with Relay(mariadb) as relay:
            outbox = SQLAlchemyOutbox(relay.url)
            outbox.of("7", False)
            relay.silent, made = True, len(relay._sockets)
            with pytest.raises(OutboxError, match="Lost connection"):
                outbox.of("7", False, 0.1)
            assert len(relay._sockets) == made
            outbox.close()
