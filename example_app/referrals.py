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
    """Give the referrer a cape. It is committed together with the record that the
    reward was granted.
    """
    friend = find_player_by_id(referral.identity)
    owner = find_player_by_id(referral.referrer)
    if friend and owner:
        cape = Item(name="Founder's cape", key=referral.reward_key)
        db.session.add(cape)
        cape.owner, cape.friend = owner, friend


def check_milestone(player: Player) -> None:
    """Report the milestone with the commit that follows.

    A player who is past it is reported again at each level: only the first counts.
    """
    if player.level >= MILESTONE:
        qualify(player)


def share_link(player: Player) -> str:
    """The link that this player shares."""
    # The link is for other people, so it must not depend on this request's Host.
    public_url: str = current_app.config["PUBLIC_URL"]
    return urljoin(public_url, mmolove.invite(player, external=False))


def runs_the_game() -> bool:
    """Whether this visitor may see the dashboard: whoever joined first may."""
    return bool(current_user.is_authenticated and current_user.id == 1)


def referrer() -> Player | None:
    """The player who referred this visitor, if any."""
    return find_player_by_id(current_referrer())
