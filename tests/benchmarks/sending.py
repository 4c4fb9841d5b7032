"""How quickly events leave, beside a bare loop of posts and beside what the way there
allows.
"""

from __future__ import annotations

import statistics
import tempfile
import typing as t
from functools import partial
from pathlib import Path
from unittest import mock

import requests
from requests import adapters

from flask_mmolove.delivery.senders import Senders
from flask_mmolove.outbox.entry import make_event

from . import host
from .clock import in_turns
from .clock import ratios
from .clock import seconds
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
    """With a server 50 ms away, beside what so many attempts in flight allow."""
    for concurrency, wanted in ((8, 0.9), (32, 0.85)):
        events = concurrency * 8 * 6
        with (
            host.serve(latency=_AWAY) as endpoint,
            make_delivery(endpoint, events, concurrency) as delivery,
        ):
            senders = Senders(concurrency)
            step = partial(delivery.step, senders.run)
            step()  # connects
            rates = [concurrency * 8 / seconds(step) for _ in range(5)]
        limit = concurrency / _AWAY
        yield Row(
            f"events a second, 50 ms away, {concurrency} in flight",
            f"{limit:.0f}/s, the limit of the way",
            [rate / limit for rate in rates],
            wanted,
            is_least=True,
            note=f"{statistics.median(rates):,.0f}/s",
        )
