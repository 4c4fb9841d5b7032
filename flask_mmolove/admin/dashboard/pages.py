"""The pages: the overview, the delivery log, one event, and the actions."""

from __future__ import annotations

import typing as t
from datetime import datetime
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

from ... import errors
from ...clock import as_datetime
from ...clock import midnight
from ...clock import milliseconds
from ...outbox.counters import DAY
from ...outbox.entry import ANSWERS_AT_MOST
from ...outbox.entry import Entry
from ...protocol.response import response_line
from ...state import current_state
from ...text import printable
from .. import actions
from .. import attempts
from .. import funnel
from .. import health
from .. import wording
from . import forms
from . import pictures
from . import refresh
from .names import Names
from .names import PlayerName

#: Rows of the delivery log on one page.
PAGE = 50

#: Events of each state that the overview lists for the owner.
_STUCK = 5

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)

#: What the delivery log is filtered by.
_FILTERS = ("player", "state", "event", "since", "until", "referrer")

#: The views that a form may be sent to.
_ACTIONS = {"retry_all", "retry_rewards", "retry", "reward", "dismiss"}

#: The views that may be loaded again by themselves: no form would be lost.
_REFRESHED = {"overview", "events", "event"}

Access = t.Callable[[], t.Any]


def make_dashboard(
    access: Access | None,
    player_name: PlayerName | None = None,
    site_name: str | None = None,
) -> Blueprint:
    """Make the dashboard's blueprint.

    :param access: Called in each request: whether this visitor may see it.
    :param player_name: Called once for a page: gives the players' names by their ids.
    :param site_name: What the site is called; its host, unless given.
    :raises ConfigError: If ``access`` is missing.
    """
    if access is None or not callable(access):
        raise errors.ConfigError(
            "The dashboard shows who plays and can change events, so it needs to know "
            "who may see it: mmolove.dashboard(access=lambda: current_user.is_admin). "
            "Everybody else gets a 404."
        )
    pages = Blueprint(
        "mmolove", __name__, template_folder="templates", static_folder="static"
    )

    @pages.before_request
    def check_access() -> None:
        # It is called for the static files too.
        if not current_app.ensure_sync(access)():
            _deny()
        if request.method == "POST" and _view() in _ACTIONS:
            forms.check_token()
        elif request.method not in ("GET", "HEAD", "OPTIONS"):
            abort(405)
        try:
            request.args  # noqa: B018
        except UnicodeDecodeError:  # bytes that no browser sends
            abort(400)

    pages.after_request(_harden)
    names = Names(player_name)

    @pages.context_processor
    def tools() -> dict[str, t.Any]:
        site = site_name or request.host
        return _tools() | {"site_name": site, "player_names": names}

    pages.add_app_template_filter(as_datetime, "mmolove_utc")
    pages.add_app_template_filter(printable, "mmolove_text")
    # A redirect to the slash would tell strangers that there is a dashboard.
    pages.get("/", strict_slashes=False)(overview)
    pages.get("/events")(events)
    pages.get("/events/<int:id>")(event)
    pages.route("/retry", methods=["GET", "POST"])(retry_all)
    pages.route("/rewards/retry", methods=["GET", "POST"])(retry_rewards)
    pages.route("/events/<int:id>/retry", methods=["GET", "POST"])(retry)
    pages.route("/events/<int:id>/reward", methods=["GET", "POST"])(reward)
    pages.route("/events/<int:id>/dismiss", methods=["GET", "POST"])(dismiss)
    pages.register_error_handler(errors.OutboxError, _no_outbox)
    pages.record(_match_all_methods)
    return pages


def _view() -> str:
    return (request.endpoint or "").rpartition(".")[2]


def _match_all_methods(setup: BlueprintSetupState) -> None:
    """Call ``access`` for each method: a 405 would tell strangers of the dashboard."""
    own = f"{setup.name_prefix}.{setup.name}.".lstrip(".")
    for rule in setup.app.url_map.iter_rules():
        if rule.endpoint.startswith(own):
            rule.methods = None


def _deny() -> t.NoReturn:
    """Answer as for an unknown URL: with the site's own 404, and nothing of ours."""
    request.url_rule = request.view_args = None
    abort(404)


def overview() -> ResponseReturnValue:
    """The funnel, the best referrers, and what waits for the owner."""
    state = current_state()
    inspector = state.inspector
    days = funnel.read_days(inspector, milliseconds())
    stuck = health.find_stuck(inspector, _STUCK)
    entries = [entry for each in stuck for entry in each.newest]
    rejected = [each.total for each in stuck if each.state == "rejected"]
    referrers = inspector.best_referrers()
    pending = inspector.count("pending", wording.MANY)
    return render_template(
        "mmolove/overview.html",
        periods=funnel.periods(days),
        picture=pictures.draw(days),
        lines=pictures.LINES,
        width=pictures.WIDTH,
        height=pictures.HEIGHT,
        unreferred=wording.unreferred,
        uncounted=wording.uncounted(pending, *rejected),
        counted=wording.counted,
        stuck=stuck,
        pending=pending,
        referrers=referrers,
        players=[e.identity for e in entries] + [r.player for r in referrers],
        summary=attempts.summary,
        is_empty=not inspector.page(limit=1) and not any(day.signed_up for day in days),
        has_invitations="mmolove_invitations" in current_app.blueprints,
        has_reward=state.callbacks.reward is not None,
    )


def events() -> ResponseReturnValue:
    """The delivery log."""
    arguments = request.args
    filters = {name: arguments.get(name, "").strip() for name in _FILTERS}
    filters = {name: value for name, value in filters.items() if value}
    wanted: dict[str, t.Any] = {**filters}
    if filters.get("state", "pending") not in wording.STATES:
        abort(404)
    if filters.get("event", "qualified") not in wording.EVENTS:
        abort(404)
    if "since" in filters:
        wanted["since"] = _midnight(filters["since"])
    if "until" in filters:
        wanted["until"] = _midnight(filters["until"]) + DAY
    before = arguments.get("before", None, int)
    entries = current_state().inspector.page(**wanted, before=before, limit=PAGE + 1)
    more = len(entries) > PAGE
    return render_template(
        "mmolove/events.html",
        entries=entries[:PAGE],
        summary=attempts.summary,
        filters=filters,
        newest="before" not in arguments,
        before=entries[PAGE - 1].id if more else None,
    )


def _midnight(day: str) -> int:
    try:
        return midnight(datetime.strptime(day, "%Y-%m-%d"))
    except ValueError:
        abort(404)


def event(id: int) -> ResponseReturnValue:
    """One event: what was sent, what came of each attempt, and what happens next."""
    entry = _find(id)
    state, now = current_state(), milliseconds()
    player = state.outbox.of(entry.identity, entry.test, state.timeout)
    others = [each for each in player.values() if each.id != entry.id]
    deliveries, rewards = attempts.of(entry)
    moment = health.planned(state, entry, now)
    return render_template(
        "mmolove/event.html",
        entry=entry,
        others=others,
        next=wording.next_step(entry, moment, now),
        moment=moment,
        attempts=wording.attempts,
        at_most=ANSWERS_AT_MOST,
        deliveries=deliveries,
        rewards=rewards,
        sent=attempts.request_of(entry, state.settings),
    )


def retry(id: int) -> ResponseReturnValue:
    """Send one rejected event again."""
    entry = _find(id)
    if request.method != "POST":
        return render_template("mmolove/retry.html", entry=entry, count=1)
    if actions.retry(current_state(), [id]):
        forms.leave_message(f"Event {id} will be sent again.")
    else:
        forms.leave_message(f"Event {id} is not rejected any more: nothing was done.")
    return _go("event", id=id)


def retry_all() -> ResponseReturnValue:
    """Send all rejected events again."""
    if request.method != "POST":
        count = current_state().inspector.count("rejected")
        return render_template("mmolove/retry.html", entry=None, count=count)
    forms.leave_message(wording.retried(len(actions.retry(current_state()))))
    return _go("events")


def retry_rewards() -> ResponseReturnValue:
    """Grant all rewards that failed."""
    if request.method != "POST":
        count = current_state().inspector.count("reward_failed")
        return render_template("mmolove/retry_rewards.html", count=count)
    try:
        count = actions.retry_rewards(current_state())
        forms.leave_message(wording.rewards_retried(count))
    except errors.MMOLoveError as e:
        forms.leave_message(f"Nothing was done. {e}")
    return _go("events")


def reward(id: int) -> ResponseReturnValue:
    """Settle a reward that failed or is unconfirmed."""
    entry = _find(id)
    if request.method != "POST":
        return render_template("mmolove/reward.html", entry=entry)
    granted = {"yes": True, "no": False}.get(request.form.get("granted", ""))
    if granted is None:
        abort(400)
    try:
        actions.settle_reward(current_state(), id, granted=granted)
    except errors.MMOLoveError as e:
        forms.leave_message(f"Nothing was done. {e}")
    else:
        forms.leave_message(wording.settled(id, granted=granted))
    return _go("event", id=id)


def dismiss(id: int) -> ResponseReturnValue:
    """Remove a signup whose token MMOLove does not know."""
    entry = _find(id)
    if request.method != "POST":
        return render_template("mmolove/dismiss.html", entry=entry)
    try:
        actions.dismiss(current_state(), id)
    except errors.ActionError as e:
        forms.leave_message(f"Nothing was done. {e}")
        return _go("event", id=id)
    forms.leave_message(f"Event {id} was dismissed.")
    return _go("overview")


def _find(id: int) -> Entry:
    entry = current_state().inspector.get(id)
    if entry is None:
        abort(404)
    return entry


def _go(page: str, **values: t.Any) -> Response:
    # A reload must not send the form again.
    response = redirect(url_for(f".{page}", **values), 303)
    return t.cast(Response, response)


def _no_outbox(error: errors.OutboxError) -> ResponseReturnValue:
    # A survey would wait for the outbox once more.
    found = [health.unreadable_outbox(error)]
    return render_template("mmolove/trouble.html", found=found), 503


def _tools() -> dict[str, t.Any]:
    settings = current_state().settings
    return {
        "server_id": settings.server_id,
        "is_test": settings.test,
        "now": milliseconds(),
        "refresh": refresh if _view() in _REFRESHED else None,
        "survey": partial(health.survey, current_state(), milliseconds()),
        "message": forms.take_message(),
        "form_token": forms.make_token,
        "form_field": forms.FIELD,
        "states": wording.STATES,
        "names": wording.EVENTS,
        "hint": wording.hint,
        "response_line": response_line,
        "plural": wording.plural,
    }


def _harden(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if _view() != "static":
        response.headers["Cache-Control"] = "no-store"
    if _view() in _REFRESHED and response.status_code in (200, 503):
        refresh.schedule(response)
    return response
