"""The pages: ``site`` is for everyone, ``play`` for players who are logged in."""

from __future__ import annotations

import re

from flask import Blueprint
from flask import flash
from flask import redirect
from flask import render_template
from flask import request
from flask import url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_login import login_user
from flask_login import logout_user
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import OperationalError

from flask_mmolove import referral_register
from flask_mmolove import registered

from . import realm
from .forms import DeleteForm
from .forms import JoinForm
from .forms import LoginForm
from .models import db
from .models import find_player
from .models import Player
from .referrals import friends_of
from .referrals import gift
from .referrals import MILESTONE
from .referrals import mmolove
from .referrals import OTHERWISE
from .referrals import referrer
from .referrals import share_link
from .referrals import TIERS

site = Blueprint("site", __name__)
play = Blueprint("play", __name__)


# -- for everyone ----------------------------------------------------------------------


@site.get("/")
def home() -> str:
    return render_template("home.html")


@site.get("/join")
def join_form() -> ResponseReturnValue:
    """Where MMOLove's share links lead, with a token that Flask-MMOLove captures."""
    if current_user.is_authenticated:
        flash(
            f"You are logged in as {current_user.name}. "
            "To join as somebody else, use a private window."
        )
        return redirect(url_for("play.character"))
    return render_template("join.html", form=JoinForm(), referrer=referrer())


@site.post("/join")
@referral_register
def join() -> ResponseReturnValue:
    form = JoinForm()
    if form.validate_on_submit() and (player := create_player(form)):
        log_in(player)
        flash(f"Welcome to Lanternmoor, {player.name}.")
        return redirect(url_for("play.character"))
    return render_template("join.html", form=form, referrer=referrer()), 422


def create_player(form: JoinForm) -> Player | None:
    """The new player; ``None``, with an error in the form, if the name is taken."""
    player = Player(name=form.name.data)
    player.set_password(form.password.data)
    db.session.add(player)
    registered(player)  # committed with the player, or not at all
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        form.name.errors = [f"{form.name.data} is taken. Choose another name."]
        return None
    return player


@site.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    form = LoginForm()
    if not form.validate_on_submit():
        return render_template("login.html", form=form), 422 if form.errors else 200
    player = find_player(form.name.data)
    if player is None or not player.check_password(form.password.data):
        form.password.errors = ["This name and password do not belong together."]
        return render_template("login.html", form=form), 422
    log_in(player)
    return redirect(safe_next() or url_for("play.character"))


def log_in(player: Player) -> None:
    """Log a player in here, and into the game."""
    login_user(player)
    try:
        realm.log_in(player.id)
    except OperationalError:
        flash("The game is away. Log in again when it is back.")


def safe_next() -> str | None:
    """Where a visitor wanted to go before the login, if that is on this site."""
    path = request.args.get("next", "")
    # Browsers take "//host" and "/\\host" for another site, and drop tabs before that.
    return path if re.fullmatch(r"/(?![/\\])[!-~]*", path) else None


# -- for players -----------------------------------------------------------------------


@play.before_request
def login_wall() -> ResponseReturnValue | None:
    if current_user.is_authenticated:
        return None
    flash("Log in first.")
    wanted = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("site.login", next=wanted))


@play.get("/character")
def character() -> str:
    return render_template(
        "character.html",
        character=realm.character(current_user.id),
        milestone=MILESTONE,
    )


@play.get("/friends")
def friends() -> str:
    return render_template(
        "friends.html",
        link=share_link(current_user),
        friends=friends_of(current_user),
        gift=gift,
        tiers=TIERS,
        otherwise=OTHERWISE,
        milestone=MILESTONE,
    )


@play.route("/character/delete", methods=["GET", "POST"])
def delete() -> ResponseReturnValue:
    form = DeleteForm()
    if not form.validate_on_submit():
        return render_template("delete.html", form=form), 422 if form.errors else 200
    player = find_player(current_user.name)
    if player is None or not player.check_password(form.password.data):
        form.password.errors = ["This is not your password."]
        return render_template("delete.html", form=form), 422
    id = player.id
    realm.forget(id)
    logout_user()
    db.session.delete(player)
    db.session.commit()
    mmolove.forget(id)
    flash("Your account is gone. The moor will miss you.")
    return redirect(url_for("site.home"))


@play.post("/logout")
def logout() -> ResponseReturnValue:
    logout_user()
    return redirect(url_for("site.home"))
