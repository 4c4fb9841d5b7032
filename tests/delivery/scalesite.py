"""A site whose accounts and outbox share a database, for web servers and workers in
processes of their own. The settings come from the environment.

.. code-block:: sh

    waitress-serve scalesite:app
    flask --app scalesite mmolove deliver --forever
"""

from __future__ import annotations

import os

from flask import Flask
from flask import request
from flask_sqlalchemy import SQLAlchemy

from flask_mmolove import MMOLove
from flask_mmolove import qualify
from flask_mmolove import Referral
from flask_mmolove import referral_register
from flask_mmolove import registered
from flask_mmolove.delivery import thread
from tests.sites import Base
from tests.sites import Gift
from tests.sites import Player

# Nobody wakes a worker of another process, and a test has not half a minute.
thread.IDLE = 0.1  # type: ignore[attr-defined]

app = Flask(__name__, instance_path=os.environ["SCALESITE_FOLDER"])
app.config.from_prefixed_env()
db = SQLAlchemy(app, model_class=Base)
mmolove = MMOLove(app, db=db)


@app.get("/")
def home() -> str:
    return "welcome"


@app.post("/register")
@referral_register
def register() -> dict[str, int]:
    player = Player(name=request.form["name"])
    db.session.add(player)
    registered(player)
    db.session.commit()
    return {"id": player.id}


@app.post("/won/<int:id>")
def win(id: int) -> str:
    player = db.get_or_404(Player, id)
    player.level = 20
    qualify(player)
    db.session.commit()
    return "won"


@mmolove.reward
def grant(referral: Referral) -> None:
    db.session.add(Gift(key=f"{referral.reward_key} {os.getpid()}"))
