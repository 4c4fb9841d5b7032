"""Runs the harness of the doors briefly, and shows that it can fail."""

from __future__ import annotations

import typing as t

import pytest
from flask import Blueprint
from flask import Flask

from flask_mmolove import MMOLove
from flask_mmolove.admin.dashboard import forms
from flask_mmolove.admin.dashboard import pages
from tests.reliability.doors import DEPTHS
from tests.reliability.doors import knock
from tests.reliability.doorsite import DoorSite
from tests.reliability.doorsite import read_text
from tests.reliability.test_engines import run
from tests.reliability.visitor import DOORS

pytestmark = pytest.mark.slow


def test_8000_strangers_break_nothing_and_many_come_in() -> None:
    report = run("doors", "--requests", "8000")
    figures = report["figures"]
    assert (figures["requests"], figures["failures"]) == (8000, 0)
    assert all(figures[name] for name in DEPTHS)
    assert {row["door"] for row in report["rows"]} == {*DOORS}
    assert all(row["requests"] > 100 and not row["5xx"] for row in report["rows"])


class TestItCanFail:
    """Each with a bug put in."""

    def test_a_view_that_raises_and_one_that_repeats_what_it_is_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hold(site: DoorSite) -> bytes:
            return str(read_text("key")).encode("latin-1")

        monkeypatch.setattr(DoorSite, "_hold", hold)
        result = knock(1, range(4000))
        assert result.failures["hold: foreign markup came back as it was"]
        assert result.failures["hold: logged UnicodeEncodeError"]
        assert "'PATH_INFO': '/hold'" in result.examples["hold: a status of a failure"]

    def test_a_form_without_its_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forms, "check_token", lambda: None)
        result = knock(1, range(4000))
        assert result.failures["dashboard: the store was changed"]

    def test_a_form_that_head_sends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        call = Flask.wsgi_app

        def act(app: Flask, environ: dict[str, t.Any], start: t.Any) -> t.Any:
            if environ["REQUEST_METHOD"] == "HEAD":
                environ = {**environ, "REQUEST_METHOD": "POST"}
            return call(app, environ, start)

        monkeypatch.setattr(Flask, "wsgi_app", act)
        result = knock(1, range(4000))
        assert result.failures["dashboard: the store was changed"]
        shown = result.examples["dashboard: the store was changed"]
        assert "'REQUEST_METHOD': 'HEAD'" in shown

    def test_pages_for_everybody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def open_to_all(mmolove: MMOLove, access: t.Any) -> Blueprint:
            return pages.make_dashboard(lambda: True)

        monkeypatch.setattr(MMOLove, "dashboard", open_to_all)
        result = knock(1, range(300))
        assert result.failures["dashboard: refused otherwise than an unknown URL"]
