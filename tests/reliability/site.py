"""A Flask site on the public API, with a diary of what it attempted and was told."""

from __future__ import annotations

import gc
import logging
import os
import time
import typing as t
from pathlib import Path

from flask import Flask
from flask import request

import flask_mmolove.protocol.transport  # noqa: F401  loaded once, before the forks
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import registered
from flask_mmolove.capture.referrer import remember
from flask_mmolove.delivery.daemon import PAUSE
from flask_mmolove.delivery.step import Delivery
from flask_mmolove.rewards.milestone import MilestoneAsker
from flask_mmolove.sandbox import tokens
from flask_mmolove.state import State

from .server import SECRET
from .server import SERVER_ID

#: The customary beginnings of ``server_event_id``.
KEYS = {"registered": "reg-", "qualified": "qual-"}

#: The file of the outbox, in the site's folder; where it is no database's.
OUTBOX = "outbox.db"

#: Whose link every friend came by.
REFERRER = "anna"

#: Milliseconds of a lease, so that much is taken over within a run.
LEASE = 1_500

#: Seconds that a view and the game work on, after what matters here was done.
WORK = 0.003


class Diary:
    """Lines that a process wrote before it was killed are there, whole and in order:
    each is one ``write`` to a file opened for appending.

    ``A key``
        The site begins to record an event.
    ``K key``
        It was told that the event is recorded.
    ``L player``
        The game's own record: the player has reached the milestone.
    ``R player key``
        The game was asked to reward a player's referrer, under this key.
    ``X words``
        The package logged an exception that it had not foreseen.
    ``F point``
        A process kills itself at this point.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "diary"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, *words: str) -> None:
        os.write(self._file, (" ".join(words) + "\n").encode())

    def close(self) -> None:
        os.close(self._file)


def read_diary(folder: Path, letter: str) -> list[str]:
    """What the diary in a folder says after a letter, in order."""
    lines = (folder / "diary").read_text().splitlines()
    return [line[2:] for line in lines if line[:2] == f"{letter} "]


class Site:
    """The site. Made before the forks, as a server with ``--preload`` does, and used
    after them.

    :param folder: For the outbox, and the diary.
    :param endpoint: Where MMOLove stands.
    :param database: The URL of a database, for the outbox.
    :param delivery: ``MMOLOVE_DELIVERY``.
    :param timeout: ``MMOLOVE_TIMEOUT``.
    :param at_most_once: How the reward callback is registered.
    :param asks: Whether the site finds milestones by ``@mmolove.milestone``.
    :param expected: Exceptions that may be logged, for something of theirs was killed.
    """

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        *,
        database: str | None = None,
        delivery: str = "manual",
        timeout: float = 5,
        at_most_once: bool = False,
        asks: bool = False,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        self.diary = Diary(folder)
        self._folder = folder
        self._asks = asks
        self.app = Flask(__name__, instance_path=str(folder))
        self.app.config.update(
            SECRET_KEY="for sessions",
            MMOLOVE_SERVER_ID=SERVER_ID,
            MMOLOVE_REFERRAL_SECRET=SECRET,
            MMOLOVE_ENDPOINT=endpoint,
            MMOLOVE_OUTBOX=database or folder / OUTBOX,
            MMOLOVE_DELIVERY=delivery,
            MMOLOVE_TIMEOUT=timeout,
            MMOLOVE_CONCURRENCY=2,
        )
        self.app.add_url_rule("/signup", view_func=self._sign_up, methods=["POST"])
        hasten_leases()
        mmolove = self._extend()
        mmolove.reward(at_most_once=at_most_once)(self._reward)
        if asks:
            mmolove.milestone(self._reached)
            # A round every second and a half.
            self._hasten(200)
        _listen(self.diary, expected)

    @property
    def state(self) -> State:
        return t.cast(State, self.app.extensions["mmolove"])

    def sign_up(self, player: str) -> None:
        """A visitor with a token makes an account."""
        token = tokens.mint(SERVER_ID, "friend", time.time())
        query = {"mmref": token, "player": player}
        self.diary.note("A", KEYS["registered"] + player)
        client = self.app.test_client()
        status = client.post("/signup", query_string=query).status_code
        if status != 200:
            raise RuntimeError(f"A signup failed with status {status}.")
        self.diary.note("K", KEYS["registered"] + player)

    def qualify(self, player: str) -> None:
        """A player has reached the milestone."""
        if self._asks:
            for letter in "AK":
                self.diary.note(letter, KEYS["qualified"] + player)
            self.diary.note("L", player)
            return
        self.diary.note("A", KEYS["qualified"] + player)
        with self.app.app_context():
            referral = self._qualify(player)
        if referral is not None:
            self.diary.note("K", KEYS["qualified"] + player)

    def drain(self, turns: int = 100_000) -> None:
        """Deliver until nothing is left to do. The delivery's clock stands still but
        where it would wait: there it is moved on. Pauses are not drawn by lot, so that
        the same is done each time.

        :param turns: At most so many.
        """
        if self._asks:
            self._hasten(1, ahead=86_400)
            self.state.asker.ask()
        delivery = self.state.make_delivery()
        clock = _Clock()
        delivery._clock = clock.time
        delivery._uniform = max
        for _ in range(turns):
            due = delivery.next_due()
            if due is None:
                return
            clock.reach(due)
            if not delivery.step():
                # As a worker does: what is in flight may be all that the host bears.
                clock.reach(delivery.now() + int(PAUSE * 1000))
        self.diary.note("X", "the drain did not come to an end")

    def close(self) -> None:
        """Let go of the files."""
        self.diary.close()
        self.state.outbox.close()

    def _extend(self) -> MMOLove:
        return MMOLove(self.app)

    def _hasten(self, times: float, ahead: float = 0) -> None:
        """Let time pass faster for the rounds of the milestone callback."""
        asker, start = t.cast(MilestoneAsker, self.state.asker), time.time()
        asker._clock = lambda: start + ahead + (time.time() - start) * times

    def _reached(self, friends: t.Mapping[str, Referral]) -> list[str]:
        return [player for player in read_diary(self._folder, "L") if player in friends]

    def _sign_up(self) -> str:
        remember(request.args["mmref"], REFERRER)
        registered(request.args["player"])
        time.sleep(WORK)
        return "Welcome."

    def _qualify(self, player: str) -> Referral | None:
        return qualify(player)

    def _reward(self, referral: Referral) -> None:
        self.diary.note("R", referral.identity, referral.reward_key)
        time.sleep(WORK)


def hasten_leases(milliseconds: int = LEASE) -> None:
    """Let the leases of this process and its children be short."""
    defaults = t.cast("dict[str, t.Any]", Delivery.__init__.__kwdefaults__)
    defaults["lease"] = milliseconds


def warm_up() -> None:
    """Load before the forks what Flask loads at the first request, and let the children
    share its memory.
    """
    app = Flask(__name__)
    app.secret_key = "for sessions"
    app.test_client().post("/")
    gc.freeze()


class _Clock:
    """Unix time that stands still until it is moved on."""

    def __init__(self) -> None:
        self._now = time.time()

    def time(self) -> float:
        return self._now

    def reach(self, moment: int) -> None:
        """Move on to a moment in milliseconds, if it is still to come."""
        self._now = max(self._now, (moment + 1) / 1000)


def _listen(diary: Diary, expected: tuple[type[Exception], ...]) -> None:
    """Note what no code of the package expected; warnings of trouble are expected."""
    logger = logging.getLogger("flask_mmolove")
    logger.handlers = [_Handler(diary, expected)]
    logger.propagate = False


class _Handler(logging.Handler):
    def __init__(self, diary: Diary, expected: tuple[type[Exception], ...]) -> None:
        super().__init__(logging.ERROR)
        self._diary = diary
        self._expected = expected

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, self._expected):
            return
        if error is not None or record.levelno >= logging.CRITICAL:
            self._diary.note("X", f"{record.getMessage()} {error!r}".replace("\n", " "))
