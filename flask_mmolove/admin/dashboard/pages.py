"""The pages: what is, the delivery log, one event, and what a person may order."""

from __future__ import annotations

import typing as t
from functools import partial

from flask import abort
from flask import Blueprint
from flask import current_app
from flask import redirect
from flask import render_template
from flask import request
from flask import Response
from flask import url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue

from ...errors import ConfigError
from ...errors import MMOLoveError
from ...errors import OutboxError
from ...outbox import Entry
from ...outbox.entry import as_datetime
from ...protocol.client import said
from ...state import current_state
from ...state import milliseconds
from ...text import printable
from .. import actions as desk
from ..funnel import periods
from ..funnel import read_days
from ..health import count_stuck
from ..health import Health
from ..health import planned
from ..health import survey
from ..wording import ago
from ..wording import attempts
from ..wording import hint
from ..wording import many
from ..wording import STATES
from ..wording import UNREFERRED
from .forms import check_token
from .forms import FIELD
from .forms import make_token
from .forms import say
from .forms import take_word
from .pictures import draw
from .pictures import HEIGHT
from .pictures import LINES
from .pictures import WIDTH

#: Rows of the delivery log on one page.
PAGE = 50

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)

#: The views that act, when a form is sent to them.
_ACTIONS = {"retry_all", "retry_rewards", "retry", "reward"}

Access = t.Callable[[], t.Any]


def make_dashboard(access: Access | None) -> Blueprint:
    """The operator's page as a blueprint.

    :param access: Asked in each request whether this visitor may see it.
    :raises ConfigError: If there is nobody to ask.
    """
    if access is None or not callable(access):
        raise ConfigError(
            "The operator's page shows who plays and takes orders, so it needs to know "
            "who may see it: mmolove.dashboard(access=lambda: current_user.is_admin). "
            "Whoever is refused gets a 404."
        )
    pages = Blueprint(
        "mmolove", __name__, template_folder="templates", static_folder="static"
    )

    @pages.before_request
    def ask() -> None:
        # Its static files are asked for too.
        if not current_app.ensure_sync(access)():
            _deny()
        if request.method == "POST" and _view() in _ACTIONS:
            check_token()
        elif request.method not in ("GET", "HEAD", "OPTIONS"):
            abort(405)

    pages.after_request(_harden)
    pages.context_processor(_tools)
    pages.add_app_template_filter(as_datetime, "mmolove_moment")
    pages.add_app_template_filter(printable, "mmolove_text")
    # A redirect to the slash would tell whoever is refused that there is something.
    pages.get("/", strict_slashes=False)(overview)
    pages.get("/events")(events)
    pages.get("/events/<int:id>")(event)
    pages.route("/retry", methods=["GET", "POST"])(retry_all)
    pages.route("/rewards/retry", methods=["GET", "POST"])(retry_rewards)
    pages.route("/events/<int:id>/retry", methods=["GET", "POST"])(retry)
    pages.route("/events/<int:id>/reward", methods=["GET", "POST"])(reward)
    pages.register_error_handler(OutboxError, _no_outbox)
    pages.record(_match_all_methods)
    return pages


def _view() -> str:
    return (request.endpoint or "").rpartition(".")[2]


def _match_all_methods(setup: BlueprintSetupState) -> None:
    """Have ``access`` asked whatever the method is: a 405 from the routing would tell
    whoever is refused that there is something.
    """
    own = f"{setup.name_prefix}.{setup.name}.".lstrip(".")
    for rule in setup.app.url_map.iter_rules():
        if rule.endpoint.startswith(own):
            rule.methods = None


def _deny() -> t.NoReturn:
    """Answer as to a URL that is not there: with the site's own 404, and nothing of
    ours on it.
    """
    request.url_rule = request.view_args = None
    abort(404)


def overview() -> ResponseReturnValue:
    """The funnel, who brings players, and what waits for a person."""
    now = milliseconds()
    inspector = current_state().inspector
    days = read_days(inspector, now)
    return render_template(
        "mmolove/overview.html",
        periods=periods(days),
        picture=draw(days),
        lines=LINES,
        width=WIDTH,
        height=HEIGHT,
        unreferred=UNREFERRED,
        stuck=count_stuck(inspector),
        pending=inspector.count("pending"),
        referrers=inspector.best_referrers(),
    )


def events() -> ResponseReturnValue:
    """The delivery log."""
    try:
        arguments = request.args
    except UnicodeDecodeError:  # bytes that no browser sends
        abort(400)
    player = arguments.get("player", "").strip()
    state = arguments.get("state", "")
    if state and state not in STATES:
        abort(404)
    entries = current_state().inspector.page(
        state=state or None,
        player=player or None,
        before=arguments.get("before", None, int),
        limit=PAGE + 1,
    )
    more = len(entries) > PAGE
    return render_template(
        "mmolove/events.html",
        entries=entries[:PAGE],
        player=player,
        state=state,
        newest="before" not in arguments,
        before=entries[PAGE - 1].id if more else None,
    )


def event(id: int) -> ResponseReturnValue:
    """One event's story."""
    entry = _find(id)
    state = current_state()
    player = state.outbox.of(entry.identity, entry.test, state.timeout)
    others = [each for each in player.values() if each.id != entry.id]
    return render_template(
        "mmolove/event.html",
        entry=entry,
        others=others,
        next=planned(state, entry, milliseconds()),
        attempts=attempts,
    )


def retry(id: int) -> ResponseReturnValue:
    """Send one rejected event again."""
    entry = _find(id)
    if request.method != "POST":
        return render_template("mmolove/retry.html", entry=entry, count=1)
    if desk.send_again(current_state(), [id]):
        say(f"Event {id} is sent again.")
    else:
        say(f"Event {id} is not rejected any more: nothing was done.")
    return _go("event", id=id)


def retry_all() -> ResponseReturnValue:
    """Send all rejected events again."""
    if request.method != "POST":
        count = current_state().inspector.count("rejected")
        return render_template("mmolove/retry.html", entry=None, count=count)
    sent = len(desk.send_again(current_state()))
    say(f"{many(sent, 'rejected event')} {'is' if sent == 1 else 'are'} sent again.")
    return _go("events")


def retry_rewards() -> ResponseReturnValue:
    """Grant all rewards that failed."""
    if request.method != "POST":
        count = current_state().inspector.count("reward_failed")
        return render_template("mmolove/retry_rewards.html", count=count)
    try:
        count = desk.retry_rewards(current_state())
    except MMOLoveError as e:
        say(f"Nothing was done. {e}")
    else:
        be = "is" if count == 1 else "are"
        say(f"{many(count, 'failed reward')} {be} being granted now.")
    return _go("events")


def reward(id: int) -> ResponseReturnValue:
    """Settle a reward in doubt."""
    entry = _find(id)
    if request.method != "POST":
        return render_template("mmolove/reward.html", entry=entry)
    given = {"yes": True, "no": False}.get(request.form.get("given", ""))
    if given is None:
        abort(400)
    try:
        desk.settle_reward(current_state(), id, given=given)
    except MMOLoveError as e:
        say(f"Nothing was done. {e}")
    else:
        what = "is noted as given" if given else "is given now"
        say(f"The reward of event {id} {what}.")
    return _go("event", id=id)


def _find(id: int) -> Entry:
    entry = current_state().inspector.get(id)
    if entry is None:
        abort(404)
    return entry


def _go(page: str, **values: t.Any) -> Response:
    # A reload must not send the form again.
    response = redirect(url_for(f".{page}", **values), 303)
    return t.cast(Response, response)


def _no_outbox(error: OutboxError) -> ResponseReturnValue:
    # Asked once more, it would keep the visitor waiting once more.
    found = [Health("bad", "The outbox cannot be read.", str(error))]
    return render_template("mmolove/trouble.html", found=found), 503


def _tools() -> dict[str, t.Any]:
    now = milliseconds()
    return {
        "survey": partial(survey, current_state(), now),
        "word": take_word(),
        "form_token": make_token,
        "form_field": FIELD,
        "states": STATES,
        "ago": lambda moment: ago(moment, now),
        "hint": hint,
        "said": said,
        "many": many,
    }


def _harden(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if _view() != "static":
        response.headers["Cache-Control"] = "no-store"
    return response
