"""Everything this site does about MMOLove. The rest of it is a site like any other."""

from __future__ import annotations

import typing as t
from urllib.parse import urljoin

from flask import current_app
from flask_login import current_user
from sqlalchemy.exc import OperationalError

from flask_mmolove import current_referrer
from flask_mmolove import MMOLove
from flask_mmolove import Referral
from flask_mmolove import RewardLater

from . import realm
from .models import db
from .models import find_names
from .models import find_player_by_id
from .models import Player

#: The level at which a friend counts.
MILESTONE = 20

#: What a player gets for the first friend, the third, and so on; and for all others.
TIERS = {1: "Founder's cape", 3: "Marsh pony", 5: "Silver lantern"}
OTHERWISE = "Healing draught"

mmolove = MMOLove(db=db)


@mmolove.milestone
def at_the_gate(friends: t.Mapping[str, Referral]) -> list[str]:
    """The friends who have reached the milestone. The game knows, and is asked."""
    return realm.those_at(MILESTONE, friends)


@mmolove.reward
def grant(referral: Referral) -> None:
    """Leave something for the referrer, who finds it at the next login."""
    if referral.referrer is None or referral.number is None:
        return
    try:
        # The game's database commits the gift, and the site's then that it was granted.
        # After a crash in between, this is called again: the key, which is unique there
        # and the same in each call, keeps the gift from coming twice.
        realm.add_reward(referral.reward_key, referral.referrer, gift(referral.number))
    except OperationalError:
        raise RewardLater("the game's database is away") from None


def gift(number: int) -> str:
    """What a player gets for this friend of theirs."""
    return TIERS.get(number, OTHERWISE)


class Friend(t.NamedTuple):
    """A friend on a player's page."""

    name: str
    level: int
    referral: Referral


def friends_of(player: Player) -> list[Friend]:
    """Whom a player brought, newest first."""
    referrals = mmolove.referrals(player)
    names = find_names(referral.identity for referral in referrals)
    levels = realm.levels_of(names)
    return [
        Friend(names[each.identity], levels.get(each.identity, 1), each)
        for each in referrals
        if each.identity in names
    ]


def share_link(player: Player) -> str:
    """The link that this player shares."""
    # The link is for other people, so it must not depend on this request's Host.
    public_url: str = current_app.config["PUBLIC_URL"]
    return urljoin(public_url, mmolove.invite(player, external=False))


def is_owner() -> bool:
    """Whether this visitor owns the site."""
    return bool(current_user.is_authenticated and current_user.is_owner)


def referrer() -> Player | None:
    """The player who referred this visitor, if any."""
    return find_player_by_id(current_referrer())
