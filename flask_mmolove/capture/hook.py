"""Step 1, capture: a visitor comes with ``?mmref=`` and may sign up days later."""

from __future__ import annotations

import os
import sys
import typing as t
import weakref
from time import monotonic

import flask.globals
from flask import after_this_request
from flask import Flask
from flask import request
from flask import Response
from flask import session
from flask.sessions import SecureCookieSessionInterface

from .. import signals
from ..errors import OutboxError
from ..log import log_failure
from ..log import logger
from ..log import shielded
from ..log import Throttle
from ..protocol.wire import TOKEN_LIMIT
from ..state import State
from . import referrer
from . import token as tokens
from . import visit
from .arrivals import Arrivals
from .cookies import keep_private

# A token that the visitor still carries although it is used.
_USED = "flask_mmolove.used"

# Seconds before an outbox that could not be read is asked again.
_PAUSE = 60

# Bytes of a cookie, its name and attributes included, that every browser stores.
_COOKIE_LIMIT = 4093

# What to look for in the query and in the Cookie header, as the server received them.
_ASSIGNED = f"{visit.MMREF}="

# The variable behind ``flask.request``, for it costs half as much as the proxy. From
# Flask 3.2 on a request is in the app's context.
_context: t.Any = getattr(flask.globals, "_cv_request", flask.globals._cv_app)


class Capture:
    """The request hooks of one app.

    :param prepare: Called once in each process, by its first request.
    """

    def __init__(self, state: State, prepare: t.Callable[[], None]) -> None:
        self._state = state
        self._arrivals = Arrivals(state.outbox)
        self._arrivals.has_thread = state.engine.attend(self._arrivals.flush)
        self._prepare = prepare
        self._is_started = False
        # The cookie that a token is kept in.
        self._cookie_name = tokens.COOKIE.name
        self._junk = Throttle(600)
        self._ask_again_at = 0.0
        _captures.add(self)

    def make_hook(self) -> t.Callable[[], None]:
        """The hook before each request: it never raises and never answers."""

        # Nearly every request has no token, and is let go after a look at its query and
        # its Cookie header. Reading ``session`` would already mark the response as
        # varying. Each page pays for this, so it is a function, for which Flask needs
        # less time than for a method; a ``try`` costs nothing.
        def before_request() -> None:
            try:
                environ = _context.get().request.environ
                query = environ.get("QUERY_STRING", "")
                cookie = environ.get("HTTP_COOKIE", "")
                if (
                    not self._is_started
                    or _ASSIGNED in query
                    or _ASSIGNED in cookie
                    or self._cookie_name in cookie
                ):
                    self._handle(query, cookie)
            except Exception as e:
                log_failure("Something in Flask-MMOLove failed before a view.", e)

        return before_request

    def restart(self) -> None:
        """This is another process, and its next request is the first."""
        self._is_started = False

    def _handle(self, query: str, cookie: str) -> None:
        if not self._is_started:
            self._get_ready()
        if self._cookie_name in cookie:
            self._drop_used()
        if _ASSIGNED in query:
            self._take_from_query()
        elif _ASSIGNED in cookie:
            self._take_from_cookie()
        if not _is_uwsgi_master():
            self._state.engine.start()
            self._is_started = True
        self._state.watchdog.look_out()

    def _get_ready(self) -> None:
        with shielded("The first request's preparations failed."):
            if not self._state.settings.cookie_days:
                app = self._state.app
                self._cookie_name = app.session_interface.get_cookie_name(app)
            self._prepare()

    def _drop_used(self) -> None:
        """Remove a token whose account was reported without a response of ours that
        could have removed it: by a socket, or a background job.
        """
        if visit.is_static() or monotonic() < self._ask_again_at:
            return
        state = self._state
        # With a cookie the session is left alone: reading it would add ``Vary``.
        kept = tokens.read_cookie()
        token = kept.token if kept else None
        if not state.settings.cookie_days:
            token = tokens.stored_token()
        # Once a minute is enough, and as soon as this process has reported one.
        if token is None or not state.looked.passes(token):
            return
        try:
            if not state.outbox.is_used(token, state.recorder.read_timeout):
                return
        except OutboxError:
            # Pages must not wait for an outbox that is unavailable.
            self._ask_again_at = monotonic() + _PAUSE
            return
        state.looked.forget(token)  # its link may be followed again
        # This request still has it, so that a second account with it is noticed.
        request.environ[_USED] = token

        @after_this_request
        def forget_used(response: Response) -> Response:
            if session.get(visit.MMREF) == token:
                del session[visit.MMREF]
            return tokens.delete_cookies(response)

    def _take_from_query(self) -> None:
        values = visit.query_values()
        token = visit.first_token(values)
        if token is None:
            self._warn_of_junk(values)
            self._take_from_cookie()
        elif not visit.is_static():
            is_new = self._is_new(token)
            if is_new or referrer.is_returning():
                self._capture(token, is_new)

    def _capture(self, token: str, is_new: bool) -> None:
        if not visit.is_visit():
            after_this_request(_forbid_caching)
            return
        by = referrer.take_referrer()
        referrer.remember(token, by)
        if not tokens.may_store():
            request.environ[tokens.ENVIRON] = token
        elif is_new:
            self._keep(token)
            self._arrivals.note(by)

    def _take_from_cookie(self) -> None:
        token = visit.first_token(request.cookies.getlist(visit.MMREF))
        if token is None or visit.is_static() or not visit.is_visit():
            return
        if tokens.stored_token() is not None:
            return
        if tokens.may_store():
            self._keep(token, lasting=False)
        else:
            request.environ[tokens.ENVIRON] = token

    def _warn_of_junk(self, values: list[str]) -> None:
        if any(values) and self._junk.passes():
            logger.warning(
                "A ?%s= of %d characters was ignored: a token has 1 to %d visible "
                "ASCII characters.",
                visit.MMREF,
                max(map(len, values)),
                TOKEN_LIMIT,
            )

    def _is_new(self, token: str) -> bool:
        used = request.environ.get(_USED)
        if used is not None:
            return bool(token != used)
        stored = tokens.stored_token()
        if self._state.settings.attribution == "first-touch":
            return stored is None
        return stored != token

    def _keep(self, token: str, *, lasting: bool = True) -> None:
        """Keep a token until the visitor signs up.

        :param lasting: Whether it outlives the browser's session.
        """
        request.environ[tokens.ENVIRON] = token
        app = self._state.app
        if app.session_interface.is_null_session(session):
            if self._state.once.passes("session"):
                logger.error(
                    "A token cannot be kept, because the site has no session: set "
                    "app.config['SECRET_KEY']. This is logged once."
                )
            return
        if self._state.settings.cookie_days and app.secret_key:
            self._keep_in_cookie(token, lasting)
        else:
            session[visit.MMREF] = token
            after_this_request(keep_private)
        self._state.notify(signals.referral_captured, token=token)

    def _keep_in_cookie(self, token: str, lasting: bool) -> None:
        session.pop(visit.MMREF, None)  # an older token there would come first
        invitation = tokens.invitation_of(token)

        @after_this_request
        def keep(response: Response) -> Response:
            tokens.set_cookie(response, invitation, lasting=lasting)
            return response

    def after_request(self, response: Response) -> Response:
        """The hook of a site without a cookie of ours: drop a token that makes the
        session's cookie too large: browsers would drop it, and log the player out.
        """
        with shielded("Whether a session has room for a token is not known."):
            # Reading the session marks the response as varying.
            if not request.cookies and tokens.ENVIRON not in request.environ:
                return response
            may_have_grown = session.modified and visit.MMREF in session
            if may_have_grown and _is_too_large(self._state.app):
                request.environ.setdefault(tokens.ENVIRON, session.pop(visit.MMREF))
                if self._state.once.passes("room"):
                    logger.warning(
                        "A visitor's token was dropped from the session, whose cookie "
                        "would be longer than the %d bytes that browsers accept. Put "
                        "less into the session, or give the token a cookie of its own: "
                        "set MMOLOVE_COOKIE_DAYS to 90. This is logged once.",
                        _COOKIE_LIMIT,
                    )
        return response


class _Trial(Response):
    max_cookie_size = 0  # Werkzeug must not warn of a cookie that is never sent.


def _is_too_large(app: Flask) -> bool:
    """Whether browsers would drop the cookie that the session goes into."""
    interface = app.session_interface
    if not isinstance(interface, SecureCookieSessionInterface):
        return False  # the session is on the server
    trial = _Trial()
    interface.save_session(app, t.cast(t.Any, session), trial)
    cookies = trial.headers.getlist("Set-Cookie")
    return any(len(each) > _COOKIE_LIMIT for each in cookies)


def _forbid_caching(response: Response) -> Response:
    """Have a page that was only embedded requested again when it is visited."""
    response.cache_control.no_store = True
    return response


def _is_uwsgi_master() -> bool:
    """Whether uWSGI has yet to fork, for a site that calls itself at import. It forks
    without Python, so a child would not learn that it is one, and would wait for ever
    for what a thread was just importing.
    """
    worker_id = getattr(sys.modules.get("uwsgi"), "worker_id", None)
    return worker_id is not None and worker_id() == 0


# Those of all apps.
_captures: weakref.WeakSet[Capture] = weakref.WeakSet()


def _after_fork() -> None:
    # Threads do not live through a fork.
    for capture in [*_captures]:
        capture.restart()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
