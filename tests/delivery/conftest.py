from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from flask_mmolove.testing import SiteSandbox
from tests.delivery.bench import Bench
from tests.delivery.bench import Grant

Fixture = t.Callable[..., Bench]


@pytest.fixture
def make_bench(mmolove_sandbox: SiteSandbox, tmp_path: Path) -> t.Iterator[Fixture]:
    benches: list[Bench] = []

    def make(grant: Grant | None = None) -> Bench:
        benches.append(Bench(mmolove_sandbox, tmp_path, grant))
        return benches[-1]

    yield make
    for bench in benches:
        bench.outbox.close()


@pytest.fixture
def bench(make_bench: Fixture) -> Bench:
    return make_bench(Grant())
