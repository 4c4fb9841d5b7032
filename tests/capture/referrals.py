"""A site whose players refer each other, and the way through MMOLove and back."""

from __future__ import annotations

import typing as t
from urllib.parse import urlsplit

import requests
from flask import session
from flask.testing import FlaskClient

from flask_mmolove import invitations
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from tests.conftest import MakeApp


class Referrals:
    """A site whose players invite each other."""

    def __init__(self, make_app: MakeApp, **settings: t.Any) -> None:
        self.mmolove = MMOLove()
        self.app = make_app(self.mmolove, **settings)
        self.app.register_blueprint(invitations)
        self.given: list[Referral] = []
        self.mmolove.reward(self.given.append)

        @self.app.post("/join/<id>")
        @referral_register
        def join(id: str) -> str:
            session.clear()
            registered(id)
            return "welcome"

        @self.app.post("/late/<id>")
        def late(id: str) -> str:
            self.mmolove.hold(id)
            return self.mmolove.seal() or ""

        @self.app.get("/activate/<id>")
        def activate(id: str) -> str:
            registered(id, held=id)
            return "welcome"

        @self.app.get("/callback/<id>/<path:state>")
        def callback(id: str, state: str) -> str:
            registered(id, token=self.mmolove.unseal(state))
            return "welcome"

    def link(self, player: str) -> str:
        with self.app.test_request_context():
            return self.mmolove.invite(player, external=False)

    def browser(self) -> FlaskClient:
        return self.app.test_client()

    def qualify(self, player: str) -> Referral:
        with self.app.app_context():
            referral = qualify(player)
        assert referral is not None
        return referral


def follow(client: FlaskClient, link: str) -> str:
    """Follow a link through MMOLove and back, and give the token."""
    answer = requests.get(client.get(link).location, allow_redirects=False, timeout=5)
    assert answer.status_code == 302
    query = urlsplit(answer.headers["Location"]).query
    client.get(f"/?{query}")
    return query.removeprefix("mmref=")


def cookie_names(client: FlaskClient) -> set[str]:
    """The cookies that a browser holds."""
    known = ("session", "mmref", "mmolove_ref", "mmolove_referrer")
    return {name for name in known if client.get_cookie(name) is not None}
