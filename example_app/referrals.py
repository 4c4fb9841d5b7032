"""Everything this site does about MMOLove. The rest of it is a site like any other."""

from __future__ import annotations

from urllib.parse import urljoin

from flask import current_app
from sqlalchemy import select

from flask_mmolove import current_referrer
from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral

from .models import db
from .models import find_player_by_id
from .models import Item
from .models import Player

MILESTONE = 20

mmolove = MMOLove()


@mmolove.reward
def grant_cape(referral: Referral) -> None:
    """Thank whoever invited this friend.

    The call may come again (a crash between our commit and the outbox's), so its key
    is looked up.
    """
    friend = find_player_by_id(referral.identity)
    inviter = find_player_by_id(referral.referrer)
    if friend is None or inviter is None:
        return
    if db.session.scalar(select(Item).filter_by(key=referral.reward_key)):
        return
    inviter.items.append(
        Item(name="Founder's cape", key=referral.reward_key, friend=friend)
    )
    db.session.commit()


def check_milestone(player: Player) -> None:
    """Report the milestone. Call it after the commit that reached it.

    A player who is past it is reported again at each level: only the first report
    counts, and should the process have died before that one, the next one mends it.
    """
    if player.level >= MILESTONE:
        qualify(player)


def share_link(player: Player) -> str:
    """The link that this player hands to friends."""
    # It is read elsewhere, so the Host header of this request has no say in it.
    public_url: str = current_app.config["PUBLIC_URL"]
    return urljoin(public_url, mmolove.invite(player, external=False))


def inviter() -> Player | None:
    """Whoever invited this visitor, if somebody did."""
    return find_player_by_id(current_referrer())
