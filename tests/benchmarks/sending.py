"""How quickly events leave, beside a bare loop of posts and beside what the way there
allows.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import typing as t
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

import requests
from requests import adapters

from flask_mmolove.delivery.senders import Senders
from flask_mmolove.outbox.report import make_event

from . import host
from .clock import in_turns
from .clock import ratios
from .instructions import count
from .probes import BATCH
from .probes import make_delivery
from .probes import TOKEN
from .row import Row

_REPEATS = 7
_BATCHES = 8

#: Seconds to a host that is far away, and back.
_AWAY = 0.05


def measure_work() -> t.Iterator[Row]:
    """Claim, sign, post and settle, in instructions."""
    ours, bare = (
        count(name, turns=(3, 15)) / BATCH for name in ("delivered", "posted")
    )
    yield Row(
        "delivering an event, all of it",
        "a bare Session.post",
        [ours / bare],
        0.6,
        note=f"{ours / 1e3:,.0f} k and {bare / 1e3:,.0f} k instructions",
    )


def measure_rate() -> t.Iterator[Row]:
    """The same on the clock, with a server that answers at once."""
    events = BATCH * _BATCHES * (_REPEATS + 1)
    with (
        host.serve() as endpoint,
        make_delivery(endpoint, events) as delivery,
        requests.Session() as session,
    ):
        body = make_event("registered", "7", TOKEN, "srv", 10**12, False).encode()

        def post() -> None:
            for _ in range(BATCH):
                session.post(endpoint, data=body, timeout=10)

        posts, ours = in_turns(_REPEATS, _BATCHES, post, lambda: delivery.step())
    rates = [BATCH / statistics.median(all) for all in (ours, posts)]
    yield Row(
        "events a second, one by one",
        "a bare Session.post loop",
        ratios(posts, ours),
        1.4,
        is_least=True,
        note=f"{rates[0]:,.0f}/s and {rates[1]:,.0f}/s",
    )


def measure_tls() -> t.Iterator[Row]:
    """Over TLS on this machine, beside a connection for each post."""
    with tempfile.TemporaryDirectory() as folder:
        cert, trusted = Path(folder, "host.pem"), Path(folder, "trusted.pem")
        host.make_certificate(cert)
        known = Path(adapters.DEFAULT_CA_BUNDLE_PATH).read_text()
        trusted.write_text(known + cert.with_suffix(".crt").read_text())
        with (
            mock.patch.object(adapters, "DEFAULT_CA_BUNDLE_PATH", str(trusted)),
            host.serve(cert=cert) as endpoint,
            make_delivery(endpoint, BATCH * 2 * (_REPEATS + 1)) as delivery,
        ):
            body = make_event("registered", "7", TOKEN, "srv", 10**12, False).encode()
            post = partial(
                requests.post, endpoint, data=body, timeout=10, verify=str(trusted)
            )
            posts, ours = in_turns(_REPEATS, 2, post, delivery.step)
    rates = [1 / statistics.median(posts), BATCH / statistics.median(ours)]
    yield Row(
        "events a second over TLS",
        "requests.post each time",
        [BATCH * post / our for post, our in zip(posts, ours, strict=True)],
        30,
        is_least=True,
        note=f"{rates[1]:,.0f}/s and {rates[0]:.0f}/s",
    )


def measure_far() -> t.Iterator[Row]:
    """With a server 50 ms away, beside what so many attempts in flight allow, and
    beside as many threads that do nothing but post.
    """
    for concurrency, wanted in ((8, 0.9), (32, 0.85)):
        batch = concurrency * 8
        with (
            host.serve(latency=_AWAY) as endpoint,
            make_delivery(endpoint, batch * (_REPEATS + 1), concurrency) as delivery,
            _posting(endpoint, concurrency) as post,
        ):
            step = partial(delivery.step, Senders(concurrency).run)
            posts, ours = in_turns(_REPEATS, 1, partial(post, batch), step)
        limit = batch * _AWAY / concurrency
        rates = [batch / statistics.median(all) for all in (ours, posts)]
        name = f"events a second, 50 ms away, {concurrency} in flight"
        yield Row(
            name,
            f"{concurrency / _AWAY:.0f}/s, the limit of the way",
            [limit / each for each in ours],
            wanted,
            is_least=True,
            note=f"{rates[0]:,.0f}/s",
        )
        yield Row(
            name,
            f"{concurrency} threads that only post",
            ratios(posts, ours),
            0.9,
            is_least=True,
            note=f"{rates[0]:,.0f}/s and {rates[1]:,.0f}/s",
        )


@contextlib.contextmanager
def _posting(endpoint: str, threads: int) -> t.Iterator[t.Callable[[int], None]]:
    """Threads that post so many events when called, each over its own connection."""
    body = make_event("registered", "7", TOKEN, "srv", 10**12, False).encode()
    with ThreadPoolExecutor(threads) as pool, requests.Session() as session:
        session.mount("http://", adapters.HTTPAdapter(pool_maxsize=threads))

        def post_one(_: int) -> None:
            session.post(endpoint, data=body, timeout=10)

        def post(count: int) -> None:
            list(pool.map(post_one, range(count)))

        yield post
