"""What the harnesses of the store share: a site of the public API in this process, and
a client that asks a server in this process. What is tested there is the store.
"""

from __future__ import annotations

import json
import logging
import time
import typing as t
from pathlib import Path

from flask import Flask
from flask import request

from flask_mmolove import MMOLove
from flask_mmolove import Outcome
from flask_mmolove import referral_register
from flask_mmolove import ReferralClient
from flask_mmolove import registered
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.errors import OutboxError
from flask_mmolove.protocol.response import read_response
from flask_mmolove.state import State

SERVER_ID = "srv-1"
SECRET = "a secret"


class Client(ReferralClient):
    """Asks no server, but answers as one: the same event a second time is a duplicate,
    and what cannot be read is a bad request.
    """

    def __init__(self) -> None:
        super().__init__(server_id=SERVER_ID, secret=SECRET)
        #: Called after each post, before its answer is known.
        self.meanwhile: t.Callable[[], None] = lambda: None
        #: How often each event was posted, by its id.
        self.posts: dict[str, int] = {}

    def send(self, body: bytes) -> Outcome:
        try:
            event_id = str(json.loads(body)["server_event_id"])
        except (ValueError, KeyError):
            return read_response(400, {}, b'{"error":"bad_request"}', 0)
        known = event_id in self.posts
        self.posts[event_id] = self.posts.get(event_id, 0) + 1
        self.meanwhile()
        answer = {"ok": True, **({"duplicate": True} if known else {})}
        return read_response(200, {}, json.dumps(answer).encode(), 0)

    @property
    def duplicates(self) -> int:
        """Posts of an event that had been posted before."""
        return sum(self.posts.values()) - len(self.posts)


class Site:
    """A site that takes signups, in a process that may be its second or third.

    :param outbox: The file of its outbox.
    :param client: What its deliveries send with.
    """

    def __init__(self, outbox: Path, client: Client) -> None:
        self.app = Flask(__name__, instance_path=str(outbox.parent))
        self.app.config.update(
            SECRET_KEY="for sessions",
            TESTING=True,
            MMOLOVE_SERVER_ID=SERVER_ID,
            MMOLOVE_REFERRAL_SECRET=SECRET,
            MMOLOVE_OUTBOX=outbox,
            MMOLOVE_DELIVERY="manual",
        )
        self.app.add_url_rule("/signup", view_func=_signup, methods=["POST"])
        MMOLove(self.app)
        self._client = client
        self._ahead = 0.0
        self.delivery = self._make_delivery()

    @property
    def state(self) -> State:
        return t.cast(State, self.app.extensions["mmolove"])

    def sign_up(self, player: str) -> int:
        """A visitor with a token makes an account; gives the response's status."""
        query = {"mmref": f"token-of-{player}", "player": player}
        with self.app.test_client() as client:
            return client.post("/signup", query_string=query).status_code

    def warm_up(self) -> None:
        """Have the delivery at work before there is anything to do."""
        self._ahead = -3600.0
        self.delivery.step()
        self._ahead = 0.0

    def drain(self, turns: int = 200) -> bool:
        """Turn the delivery as its thread does until nothing is due, and say whether
        that was reached. Rather than to wait, its clock is moved on.

        :param turns: At most so many.
        """
        for _ in range(turns):
            try:
                due = self.delivery.next_due()
                if due is None:
                    return True
                self._ahead += max(0, due - self.delivery.now()) / 1000
                self.delivery.step()
            except OutboxError:
                self._ahead += 1  # so long the thread waits
        return False

    def close(self) -> None:
        self.state.outbox.close()

    def _make_delivery(self) -> Delivery:
        state = self.state
        return Delivery(
            state.outbox,
            self._client,
            state.settings,
            state.spool,
            reward=lambda: None,
            report=lambda entry: None,
            clock=lambda: time.time() + self._ahead,
        )


@referral_register
def _signup() -> str:
    registered(request.args["player"])
    return "Welcome."


class Surprises(logging.Handler):
    """Takes the package's log, and keeps what no code had foreseen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words: list[str] = []

    def __enter__(self) -> Surprises:
        self._logger = logging.getLogger("flask_mmolove")
        self._before = self._logger.handlers, self._logger.propagate
        self._logger.handlers, self._logger.propagate = [self], False
        return self

    def __exit__(self, *exception: object) -> None:
        self._logger.handlers, self._logger.propagate = self._before

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.words.append(f"{record.getMessage()} {record.exc_info[1]!r}")
