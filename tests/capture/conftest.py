from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from flask_mmolove import MMOLove
from tests.capture.referrals import Referrals
from tests.capture.site import add_pages
from tests.conftest import MakeApp


@pytest.fixture
def make_site(make_app: MakeApp) -> MakeApp:
    def make(mmolove: MMOLove | None = None, **settings: t.Any) -> Flask:
        app = make_app(mmolove, **settings)
        add_pages(app)
        return app

    return make


@pytest.fixture
def app(make_site: MakeApp) -> Flask:
    return make_site()


@pytest.fixture
def site(make_app: MakeApp) -> Referrals:
    return Referrals(make_app)
