"""A signup in the making, from before its view runs until its response leaves."""

from __future__ import annotations

import contextlib
import typing as t
from uuid import UUID

from flask import Flask
from flask import request
from flask import request_tearing_down
from flask import Response
from werkzeug.exceptions import HTTPException

from ..capture.token import current_mmref
from ..capture.token import forget
from ..capture.token import invitation_of
from ..errors import IdentityError
from ..log import log_failure
from ..log import logger
from ..log import shielded
from ..orm import is_uncommitted
from ..orm import kept_token
from ..outbox.report import Report
from ..protocol.wire import as_token
from ..recording.pending import PendingReport
from ..state import current_state
from ..state import State
from . import detect
from .hold import recall

_ENVIRON = "flask_mmolove.signup"

FAILED = "A signup could not be reported to MMOLove."

FindToken = t.Callable[[], "str | None"]

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Signup:
    """A view at work, or a player who was named elsewhere.

    :param visitor: The token that its visitor carried before.
    """

    def __init__(self, state: State, visitor: str | None) -> None:
        self.state = state
        self.visitor = visitor
        #: Tells who is new; None if it could not look before the view.
        self.detector: detect.Detector | None = None
        #: What it saw then.
        self.before: t.Any = None
        #: Whether the view raised.
        self.failed = False
        #: Whether the response is on its way.
        self.is_finished = False
        #: Who was handed over last.
        self.referee: t.Any = None
        #: The reports of those who were referred.
        self.reports: list[PendingReport] = []
        # The last row that was handed over.
        self._row: t.Any = None
        # The response of a view in which nobody was found.
        self._unnamed: Response | None = None

    def begin(self) -> None:
        """Be the one of this request, until that ends."""
        request.environ[_ENVIRON] = self
        # A function for the end of each request would cost every page of the site.
        request_tearing_down.connect(self.end, self.state.app)

    def look(self, detector: detect.Detector) -> None:
        """See who is there before the view runs."""
        self.before = detector.before()
        self.detector = detector
        if isinstance(detector, detect.new_row):
            self.before.listener = self

    def hand_over(
        self, player: t.Any, token: str | None, held: str | int | UUID | None = None
    ) -> None:
        """Keep a player until the signup is recorded. The same one replaces itself."""
        if self.reports and self.reports[-1].player is player:
            self.reports.pop().withdraw()
        self.referee = player
        token = token or self.visitor or kept_token(player)
        if report := _make_report(self.state, player, token, held):
            self.reports.append(self.state.recorder.prepare(report, player))

    def joins(self, session: Session) -> bool:
        """Whether what is handed over before a session commits is committed with it."""
        return self.state.recorder.joins(session)

    def hand_over_row(self, row: t.Any) -> None:
        """A row that the request inserts is the new player, unless the view names
        another. It can still be read without a query.
        """
        if self.referee is None or self._is_row(self.referee):
            self._row = row
            self.hand_over(row, self.visitor)

    def record_row(self) -> None:
        """Record a row that is committed, if the view has no answer to wait for."""
        if self.is_finished and self._is_row(self.referee):
            for report in self.reports[-1:]:
                report.submit()
                report.settle()

    def _is_row(self, player: t.Any) -> bool:
        return self._row is not None and player is self._row

    def submit(self) -> None:
        """Record who was handed over, now or with the site's commit."""
        for report in self.reports:
            report.submit()

    def conclude(self, response: Response) -> Response:
        """The token of a player who is recorded is used up."""
        for report in self.reports:
            self._conclude(report, response)
        return response

    def _conclude(self, report: PendingReport, response: Response) -> None:
        with shielded(FAILED):
            is_own = self.visitor is not None and report.report.token == self.visitor
            if report.settle() and is_own:
                forget(response)

    def finish(self, response: Response) -> Response:
        """The view is done: report the referee, if there is one."""
        with shielded(FAILED):
            self.is_finished = True
            if response.status_code < 400:
                if self.referee is None and self.visitor is not None:
                    self._look_for_referee(response)
            for report in self.reports:
                self._finish(report, response)
        return response

    def _look_for_referee(self, response: Response) -> None:
        if self.detector is None:
            return
        player = self.detector.after(response, self.before)
        if player is not None:
            self.hand_over(player, self.visitor)
        elif request.method == "POST":
            self._unnamed = response

    def end(self, app: Flask, **extra: t.Any) -> None:
        """The request ends. So what it commits by hooks of its own counts, and a row
        that a view committed before the server got its exception.
        """
        if request.environ.get(_ENVIRON) is not self:
            return  # the end of another request, at the same time
        request_tearing_down.disconnect(self.end, app)
        with shielded(FAILED):
            if not self.is_finished:
                self.is_finished = True
                self.record_row()
            if self._unnamed is not None:
                self._count(self._unnamed)

    def _count(self, response: Response) -> None:
        """Count what became of a view in which nobody was found."""
        views, endpoint = self.state.views, str(request.endpoint)
        if self.referee is not None:
            views.named(endpoint)
        elif self.detector is not None:
            reason = detect.why(self.detector, response, self.before)
            views.nobody(endpoint, response.status_code, reason)

    def _finish(self, report: PendingReport, response: Response) -> None:
        if reason := self._why_dropped(report, response):
            _warn_of_dropped(report, reason)
            return
        # What fails is seldom committed, and that is no fault of the site's.
        report.is_awaited = response.status_code < 400
        views, endpoint = self.state.views, str(request.endpoint)
        try:
            report.submit()
            self._conclude(report, response)
            if response.status_code < 400 or report.is_recorded:
                views.named(endpoint)
        except IdentityError as e:
            log_failure(FAILED, e)
            views.failed(endpoint, "the player that it named has no identity")
        except Exception as e:
            log_failure(FAILED, e)

    def _why_dropped(self, report: PendingReport, response: Response) -> str | None:
        """Why a player who was named is not reported, if so."""
        if report.is_recorded or report.follows_commit:
            return None
        if report.is_undone:
            return "its row was rolled back or deleted"
        if self.failed and is_uncommitted(report.player):
            return "the view raised before its row was committed"
        if response.status_code >= 400 and not self._is_row(report.player):
            return f"the answer was {response.status_code}"
        return None


def _warn_of_dropped(report: PendingReport, reason: str) -> None:
    logger.warning(
        "The view %r named player %s, who was not reported: %s. If the account "
        "was made all the same, use @referral_register(player=new_row(User)) or "
        "MMOLove(app, db=db), which go by the commit, or answer without an error.",
        request.endpoint,
        report.report.identity or "?",
        reason,
    )


def begin(detector: detect.Detector, find_token: FindToken | None) -> Signup | None:
    """A view with :func:`referral_register` is about to run. None if MMOLove is off."""
    signup = None
    with shielded("A visitor's token could not be read."):
        state = current_state()
        if state.settings.enabled:
            state.watchdog.look_out()
            signup = Signup(state, current_mmref())
            signup.begin()
            # A body that cannot be read is for the view to refuse.
            with contextlib.suppress(HTTPException):
                if find_token is not None and (token := as_token(find_token())):
                    signup.visitor = token
    if signup is not None and signup.visitor is not None:
        with (
            shielded("Who was there before a signup is not known."),
            contextlib.suppress(HTTPException),
        ):
            signup.look(detector)
    return signup


def current_signup() -> Signup | None:
    """The signup whose view runs in this request."""
    signup = t.cast("Signup | None", request.environ.get(_ENVIRON))
    return None if signup is None or signup.is_finished else signup


def report_player(
    player: t.Any, token: str | None, held: str | int | UUID | None
) -> Signup | None:
    """Report a player who was named outside a signup view. None if MMOLove is off."""
    state = current_state()
    if not state.settings.enabled:
        return None
    signup = Signup(state, current_mmref())
    signup.hand_over(player, token, held)
    signup.submit()
    return signup


def _make_report(
    state: State, player: t.Any, token: str | None, held: str | int | UUID | None
) -> Report | None:
    if held is not None:
        report = recall(state, held)
    elif token := as_token(token):
        report = state.recorder.report("", invitation_of(token), "registered")
    else:
        report = None
    # Now, for later the site may have closed the session its object lives in; but a
    # row that is not flushed yet has its id only then.
    with contextlib.suppress(IdentityError):
        return report and report._replace(identity=state.recorder.identify(player))
    return report
