"""Everything this site does about MMOLove. The rest of it is a site like any other."""

from __future__ import annotations

from urllib.parse import urljoin

from flask import current_app
from flask_login import current_user

from flask_mmolove import current_referrer
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral

from .models import db
from .models import find_player_by_id
from .models import Item
from .models import Player

MILESTONE = 20

mmolove = MMOLove(db=db)


@mmolove.reward
def grant_cape(referral: Referral) -> None:
    """Thank whoever invited this friend. What is added here is committed together with
    the note that the reward was given.
    """
    friend = find_player_by_id(referral.identity)
    inviter = find_player_by_id(referral.referrer)
    if friend and inviter:
        cape = Item(name="Founder's cape", key=referral.reward_key)
        db.session.add(cape)
        cape.owner, cape.friend = inviter, friend


def check_milestone(player: Player) -> None:
    """Report the milestone, with the commit that is to follow.

    A player who is past it is reported again at each level: only the first counts.
    """
    if player.level >= MILESTONE:
        qualify(player)


def share_link(player: Player) -> str:
    """The link that this player hands to friends."""
    # It is read elsewhere, so the Host header of this request has no say in it.
    public_url: str = current_app.config["PUBLIC_URL"]
    return urljoin(public_url, mmolove.invite(player, external=False))


def runs_the_game() -> bool:
    """Whether this visitor may see the operator's page: whoever joined first."""
    return bool(current_user.is_authenticated and current_user.id == 1)


def inviter() -> Player | None:
    """Whoever invited this visitor, if somebody did."""
    return find_player_by_id(current_referrer())
