"""A pytest plugin for the tests of sites that use this extension. It is available as
soon as the package is installed.

.. code-block:: python

    @pytest.fixture
    def app(mmolove_sandbox):
        return create_app(mmolove_sandbox.config)

    def test_a_friend_signs_up(client, mmolove_sandbox):
        client.get(f"/register?mmref={mmolove_sandbox.mint()}")
        client.post("/register", data={"name": "Ada"})
        assert mmolove_sandbox.reported == [("registered", "1")]

``MMOLove(app)`` reads its settings once, so they must be in ``app.config`` before it:
create the app in a function, as here. While a test uses the fixture, an app that was
created without them sends nothing to other machines and logs an error instead.
"""

from __future__ import annotations

import secrets
import typing as t
from pathlib import Path

import pytest
from flask import Flask

if t.TYPE_CHECKING:
    from .protocol.response import Outcome
    from .rewards.referral import Referral
    from .sandbox import Sandbox


class SiteSandbox:
    """A local MMOLove for one test, and what the site did with it.

    :param sandbox: The sandbox itself, with its faults, referrals and arrivals.
    :param config: The settings for ``app.config``: those of the sandbox, a
        ``SECRET_KEY``, an outbox and a database in memory of the test's own, and
        delivery in the calling thread.
    :param rewarded: The referrals whose reward was granted.
    """

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.rewarded: list[Referral] = []
        self.config: dict[str, t.Any] = {
            **sandbox.settings,
            # So that no test comes near the site's own data.
            "SECRET_KEY": secrets.token_hex(16),
            "SQLALCHEMY_DATABASE_URI": "sqlite://",
            "MMOLOVE_OUTBOX": folder / "mmolove.db",
            "MMOLOVE_DELIVERY": "inline",
        }

    def mint(self, ref: str = "demo") -> str:
        """Create a token, as a click on a player's share link does.

        :param ref: The code of the player who shared the link.
        """
        return self.sandbox.mint(ref)

    @property
    def reported(self) -> list[tuple[str, str | None]]:
        """The accepted events in order, each with its player's identity."""
        players = {r.token: r.referee_identity for r in self.sandbox.referrals}
        return [(str(e.event), players.get(str(e.token))) for e in self.sandbox.events]

    def _note(self, sender: Flask, referral: Referral, **extra: t.Any) -> None:
        self.rewarded.append(referral)


@pytest.fixture
def mmolove_sandbox(
    tmp_path_factory: pytest.TempPathFactory,
) -> t.Iterator[SiteSandbox]:
    """A local MMOLove in the background, for one test."""
    # Imported here: pytest loads every plugin at start, and before coverage starts.
    from .protocol.checks import is_local
    from .protocol.client import ReferralClient
    from .sandbox import Sandbox
    from .signals import player_rewarded

    send = ReferralClient.send

    def send_on_this_machine(client: ReferralClient, body: bytes) -> Outcome:
        if not is_local(client.endpoint):
            raise RuntimeError(
                "A test that uses mmolove_sandbox would have sent an event to "
                f"{client.endpoint}: MMOLove(app) has read its settings before "
                "mmolove_sandbox.config was in app.config."
            )
        return send(client, body)

    with Sandbox(secret=secrets.token_hex(16)) as sandbox:
        site = SiteSandbox(sandbox, tmp_path_factory.mktemp("mmolove"))
        with (
            player_rewarded.connected_to(site._note),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(ReferralClient, "send", send_on_this_machine)
            yield site
