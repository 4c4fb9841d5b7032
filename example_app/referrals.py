"""Everything this site does about MMOLove. The rest of it is a site like any other."""

from __future__ import annotations

from urllib.parse import urlencode
from urllib.parse import urljoin

from flask import current_app
from sqlalchemy import select

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral

from .models import db
from .models import Item
from .models import Player

MILESTONE = 20

mmolove = MMOLove()


@mmolove.reward
def grant_cape(referral: Referral) -> None:
    """Thank whoever invited this friend.

    MMOLove does not say who that was: the site wrote it down at sign-up. The call may
    come again (a crash between our commit and the outbox's), so its key is looked up.
    """
    friend = db.session.get(Player, int(referral.identity))
    if friend is None or friend.invited_by is None:
        return
    if db.session.scalar(select(Item).filter_by(key=referral.reward_key)):
        return
    friend.invited_by.items.append(
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


def share_url(invite_code: str) -> str:
    """MMOLove's own link for this player; it leads back to our sign-up."""
    endpoint: str = current_app.config["MMOLOVE_ENDPOINT"]
    server_id = current_app.config["MMOLOVE_SERVER_ID"]
    return urljoin(endpoint, f"/r/{server_id}?{urlencode({'ref': invite_code})}")
