"""A site with accounts and gifts of its own, whose database has the outbox as well."""

from __future__ import annotations

import contextlib
import logging
import random
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from flask import request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered

from .site import KEYS
from .site import read_diary
from .site import Site
from .site import WORK

#: Seconds for which the reward callback works on at the most, when its gift is there
#: and not committed.
GIVING = 0.1

#: The level that is the milestone.
MILESTONE = 20


class Base(DeclarativeBase):
    pass


def _same_as_name(context: t.Any) -> t.Any:
    return context.get_current_parameters()["name"]


class Account(Base):
    """An account. It has no id before it is flushed."""

    __tablename__ = "account"

    id: Mapped[str] = mapped_column(String(50), primary_key=True, default=_same_as_name)
    name: Mapped[str] = mapped_column(String(50))
    level: Mapped[int] = mapped_column(default=1)
    early: Mapped[bool]  # handed over before the commit


class Gift(Base):
    """What a referrer was given: one row for each time."""

    __tablename__ = "gift"

    id: Mapped[int] = mapped_column(primary_key=True)
    player: Mapped[str] = mapped_column(String(50))
    key: Mapped[str] = mapped_column(String(300))


@dataclass(frozen=True)
class Rows:
    """What the site's own tables say.

    :param made: The keys of the events that every account must have had.
    :param certain: Those that were to be committed together with it.
    :param gifts: The player and the reward key of each gift.
    """

    made: set[str]
    certain: set[str]
    gifts: list[tuple[str, str]]


class AccountSite(Site):
    """The site.

    :param url: The database's. Its tables are made.
    :param outages: Whether the database may be gone. What fails then is not
        acknowledged, and tried no more.
    :ivar early: The share of accounts that are handed over before the commit.
    """

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        url: str,
        *,
        outages: bool = False,
        delivery: str = "manual",
        timeout: float = 5,
        asks: bool = False,
    ) -> None:
        self.db = SQLAlchemy(model_class=Base)
        self.early = 3 / 4
        self._url = url
        super().__init__(
            folder,
            endpoint,
            delivery=delivery,
            timeout=timeout,
            asks=asks,
            expected=(DBAPIError,) if outages else (),
        )
        if outages:
            for name in ("psycopg", "sqlalchemy.pool"):
                logging.getLogger(name).disabled = True
        self._fails = contextlib.suppress(*([OperationalError] if outages else []))
        with self.app.app_context():
            self.db.create_all()
            self._warm_up()
            self.db.engine.dispose()  # connections do not live through a fork

    def sign_up(self, player: str) -> None:
        with self._fails:
            super().sign_up(player)

    def qualify(self, player: str) -> None:
        with self._fails:
            super().qualify(player)

    def empty(self) -> None:
        """Recreate the tables."""
        with self.app.app_context():
            self.db.drop_all()
            self.db.create_all()
            self.db.engine.dispose()

    def rows(self) -> Rows:
        """What the site's tables hold."""
        with self.app.app_context():
            accounts = self.db.session.scalars(select(Account)).all()
            gifts = self.db.session.scalars(select(Gift)).all()
            made = {KEYS["registered"] + each.id for each in accounts}
            certain = {KEYS["registered"] + each.id for each in accounts if each.early}
            reached = {
                KEYS["qualified"] + each.id
                for each in accounts
                if each.level == MILESTONE
            }
            given = [(gift.player, gift.key) for gift in gifts]
        # What the game alone knows is committed nowhere here.
        found = {KEYS["qualified"] + each for each in read_diary(self._folder, "L")}
        return Rows(made | reached | found, certain | reached, given)

    def close(self) -> None:
        super().close()
        with self.app.app_context():
            self.db.engine.dispose()

    def _extend(self) -> MMOLove:
        self.app.config["PROPAGATE_EXCEPTIONS"] = True
        self.app.config["SQLALCHEMY_DATABASE_URI"] = self._url
        self.app.config.pop("MMOLOVE_OUTBOX")
        self.db.init_app(self.app)
        return MMOLove(self.app, db=self.db)

    def _warm_up(self) -> None:
        """Let SQLAlchemy make before the forks what it makes once."""
        account = Account(name="nobody", early=True)
        registered(account, token="nobody's")
        self.db.session.add_all([account, Gift(player="nobody", key="none")])
        self.db.session.flush()
        account.level = MILESTONE
        self.db.session.flush()
        self.db.session.rollback()
        self.db.session.get(Account, "nobody")
        self.db.session.remove()

    @referral_register
    def _sign_up(self) -> str:
        early = random.random() < self.early
        account = Account(name=request.args["player"], early=early)
        self.db.session.add(account)
        if early:
            registered(account)
        self._work()
        self.db.session.commit()
        if not early:
            registered(account)
        time.sleep(WORK)
        return "Welcome."

    def _qualify(self, player: str) -> Referral | None:
        account = self.db.session.get(Account, player)
        if account is None:
            return None
        account.level = MILESTONE
        referral = qualify(account)
        self._work()
        self.db.session.commit()
        return referral

    def _reward(self, referral: Referral) -> None:
        super()._reward(referral)
        # Without a look whether there is one already: that is what is promised.
        gift = Gift(player=referral.identity, key=referral.reward_key)
        self.db.session.add(gift)
        self._work(random.uniform(0, GIVING))

    def _work(self, seconds: float = WORK) -> None:
        """Let a kill find a transaction that is open, and has changes."""
        self.db.session.flush()
        time.sleep(seconds)
