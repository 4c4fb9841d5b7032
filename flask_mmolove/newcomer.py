"""Who is new: ready-made answers for ``player=``. Each looks before the view and after
it, and gives the player only if it was not there before.
"""

from __future__ import annotations

import sys
import threading
import typing as t
from concurrent.futures import Future
from urllib.parse import urljoin
from urllib.parse import urlsplit

from flask import current_app
from flask import Flask
from flask import has_request_context
from flask import request
from flask import Response
from flask import session

from .errors import MMOLoveError
from .log import logger

#: Seconds a signup waits for the site's ``find``.
PATIENCE = 1.0


# Where the rows stand that a request inserts, by who asks for them.
_ROWS = "flask_mmolove.rows"


class Newcomer(t.Protocol):
    """What ``player=`` takes besides a function of the response."""

    def before(self) -> t.Any:
        """What there is before the view runs. Asked only for a visitor with a token."""

    def after(self, response: Response, before: t.Any) -> t.Any:
        """The player who was not there before, or None.

        :param before: What :meth:`before` gave.
        """


def why(newcomer: Newcomer, response: Response, before: t.Any) -> str:
    """Why an answer gave nobody, in words that follow "because".

    :param before: What :meth:`Newcomer.before` gave.
    """
    explain = getattr(newcomer, "why", None)
    if explain is None:
        return "player= gave None"
    return str(explain(response, before))


Player = t.Callable[[Response], t.Any] | Newcomer


def as_newcomer(player: Player | None) -> Newcomer:
    """What the decorator goes by.

    :param player: Its ``player=``; Flask-Login's user, unless given.
    :raises TypeError: If it is neither a function nor an answer.
    """
    if player is None:
        return new_login
    if isinstance(player, type):
        name = player.__name__
        answer = f"{name}(...)" if hasattr(player, "before") else f"new_row({name})"
        raise TypeError(f"player= must not be a class: write player={answer}.")
    if callable(getattr(player, "before", None)):
        return t.cast(Newcomer, player)
    if callable(player):
        return _Plain(player)
    raise TypeError(
        f"player= must be a function that takes the response, not {player!r}."
    )


class _Plain:
    def __init__(self, find: t.Callable[[Response], t.Any]) -> None:
        self._find = find

    def before(self) -> None:
        return None

    def after(self, response: Response, before: None) -> t.Any:
        return current_app.ensure_sync(self._find)(response)


class _Login:
    """The user whom the view logs in with Flask-Login, if it was another before."""

    def before(self) -> t.Any:
        if _has_flask_login():
            from flask_login import COOKIE_NAME
            from flask_login import current_user

            name = current_app.config.get("REMEMBER_COOKIE_NAME", COOKIE_NAME)
            if name in request.cookies:
                # Who is only remembered comes into the session when first asked for.
                current_user._get_current_object()
        return self._id()

    def after(self, response: Response, before: t.Any) -> t.Any:
        if self._id() in (None, before):
            return None
        from flask_login import current_user

        return current_user

    def why(self, response: Response, before: t.Any) -> str:
        if not _has_flask_login():
            return "without player=, it is Flask-Login's user, and this site has none"
        if self._id() is None:
            return "it logged nobody in with Flask-Login's login_user()"
        return "whom it left logged in was logged in before"

    def _id(self) -> t.Any:
        """The user's id in this session, without loading it from the database."""
        return session.get("_user_id") if _has_flask_login() else None


def _has_flask_login() -> bool:
    return "flask_login" in sys.modules and hasattr(current_app, "login_manager")


#: See :class:`_Login`.
new_login: Newcomer = _Login()


# The answers that take arguments are written like functions, and are used like them.


class new_row:
    """The row of a model that the request inserts and commits, for every site on
    SQLAlchemy.

    .. code-block:: python

        @referral_register(player=new_row(User))

    Nothing is asked of the database for it, and it works with any number of sessions,
    databases and processes. A row that is rolled back is nobody. Where a request
    commits several rows of the model, nobody is reported, and the log says so. What a
    bulk statement inserts, such as ``session.execute(insert(User))``, is not seen.

    :param model: The mapped class of the accounts; rows of its subclasses count too.
    :raises TypeError: If SQLAlchemy knows no such model.
    """

    def __init__(self, model: type[t.Any]) -> None:
        sqlalchemy = sys.modules.get("sqlalchemy")
        known = sqlalchemy and sqlalchemy.inspect(model, raiseerr=False)
        if not isinstance(model, type) or known is None:
            raise TypeError(
                f"new_row() takes a model of SQLAlchemy, as in new_row(User), not "
                f"{model!r}."
            )
        self._model = model
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        event.listen(model, "after_insert", self._inserted, propagate=True)
        if not event.contains(Session, "after_commit", _after_commit):
            event.listen(Session, "after_commit", _after_commit)

    def before(self) -> list[Inserted]:
        """The rows of this request, as they come."""
        rows: list[Inserted] = []
        request.environ.setdefault(_ROWS, {})[self] = rows
        return rows

    def after(self, response: Response, before: list[Inserted]) -> t.Any:
        players = [each.row for each in before if each.is_there]
        if len(players) > 1:
            logger.warning(
                "A request of %r made %d rows of %s, so it is not clear who signed up, "
                "and nobody was reported. Name the player with registered(player).",
                request.endpoint,
                len(players),
                self._model.__name__,
            )
        return players[0] if len(players) == 1 else None

    def why(self, response: Response, before: list[Inserted]) -> str:
        return f"it committed no row of {self._model.__name__}"

    def _inserted(self, mapper: object, connection: object, row: t.Any) -> None:
        if not has_request_context():
            return
        rows = request.environ.get(_ROWS, {}).get(self)
        if rows is not None:
            from sqlalchemy.orm import object_session

            rows.append(Inserted(row, object_session(row)))


class Inserted:
    """A row that a request inserted, and whether that is committed."""

    def __init__(self, row: t.Any, session: t.Any) -> None:
        self.row = row
        self.session = session
        self.is_committed = False

    @property
    def is_there(self) -> bool:
        """Whether it was committed, and not deleted since."""
        # One that was rolled back, perhaps with a savepoint, is transient again.
        state = sys.modules["sqlalchemy"].inspect(self.row)
        return self.is_committed and not (state.transient or state.was_deleted)


def _after_commit(session: t.Any) -> None:
    # The end of a savepoint is no commit.
    if not has_request_context() or session.in_nested_transaction():
        return
    for rows in request.environ.get(_ROWS, {}).values():
        for each in rows:
            if each.session is session:
                each.is_committed = True


class new_in_session:
    """The id that the view puts into the session, if it was not that one before.

    .. code-block:: python

        @referral_register(player=new_in_session("user_id"))

    :param key: Its key in the session.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def before(self) -> t.Any:
        return session.get(self._key)

    def after(self, response: Response, before: t.Any) -> t.Any:
        found = session.get(self._key)
        return None if found == before else found

    def why(self, response: Response, before: t.Any) -> str:
        if self._key in session:
            return f"session[{self._key!r}] is what it was before"
        return f"there is no {self._key!r} in the session"


class new_in_json:
    """The id in a view's JSON answer, if the answer says that it was made: 201 Created.

    .. code-block:: python

        @referral_register(player=new_in_json("user", "id"))

    :param path: The keys that lead to it.
    :param status: What the view answers to a signup, where that is not 201. A view that
        answers the same for an account that was there already tells nobody who is new.
    """

    def __init__(self, *path: str, status: int = 201) -> None:
        self._path = path
        self._status = status

    def before(self) -> None:
        return None

    def after(self, response: Response, before: None) -> t.Any:
        # A stream would have to be read to its end, and then it is none.
        if response.status_code != self._status or not response.is_sequence:
            return None
        found = response.get_json(silent=True)
        for key in self._path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def why(self, response: Response, before: None) -> str:
        if response.status_code != self._status:
            return f"its status is not {self._status}; see status= of new_in_json"
        path = "".join(f"[{key!r}]" for key in self._path)
        return f"its JSON has nothing at {path}"


class new_by_field:
    """The player whom the site finds by a field of the form or of the JSON body, if it
    found none before and the view answers as one does that has made an account: 201
    Created, or a redirect to another page. A form that is shown again may have lost a
    race for the name, and the player found then is somebody else's friend.

    .. code-block:: python

        def find_id(name):
            return db.session.scalar(select(User.id).filter_by(name=name))

        @referral_register(player=new_by_field("username", find_id))

    :param field: The field's name.
    :param find: Takes what the visitor wrote there, and gives the player, or None. It
        is called in a thread and an app context of its own, without the request: so it
        sees what was committed, and leaves the view's own database session alone. If it
        takes more than a second, nobody is reported.
    :param status: What the view answers to a signup, where that is neither. A view that
        answers the same to a form it refuses tells nobody who is new: name the player
        with :func:`registered` there.
    """

    def __init__(
        self,
        field: str,
        find: t.Callable[[str], t.Any],
        *,
        status: int | None = None,
    ) -> None:
        self._field = field
        self._find = find
        self._status = status

    def before(self) -> bool:
        return self._look() is not None

    def after(self, response: Response, before: bool) -> t.Any:
        if before or not self._is_success(response):
            return None
        return self._look()

    def why(self, response: Response, before: bool) -> str:
        if not request.form:
            return "what was sent is no form, which new_by_field reads"
        if self._field not in request.form:
            return f"the form has no field {self._field!r}"
        if before:
            return "find() gave somebody before the view as well"
        if not self._is_success(response):
            return "it answered as to a refused form; see status= of new_by_field"
        return "find() gave nobody"

    def _is_success(self, response: Response) -> bool:
        if self._status is not None:
            return response.status_code == self._status
        return response.status_code == 201 or _leads_elsewhere(response)

    def _look(self) -> t.Any:
        value = _read_field(self._field)
        if not value:
            return None
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        found: Future[t.Any] = Future()

        def look() -> None:
            try:
                with app.app_context():
                    player = app.ensure_sync(self._find)(value)
            except Exception as e:
                found.set_exception(e)
            else:
                found.set_result(player)

        # The teardown of a context in the view's thread would end the view's session,
        # where that belongs to the thread.
        thread = threading.Thread(target=look, name="flask-mmolove-find", daemon=True)
        thread.start()
        thread.join(PATIENCE)
        if not found.done():
            raise MMOLoveError(f"find gave no answer within {PATIENCE:g} s.")
        return found.result()


def _read_field(name: str) -> str | None:
    """What the visitor wrote into a field, however it was sent."""
    if not request.is_json:
        return request.form.get(name)
    body = request.get_json(silent=True)
    value = body.get(name) if isinstance(body, dict) else None
    return value if isinstance(value, str) else None


def _leads_elsewhere(response: Response) -> bool:
    """Whether it is a redirect, and not one back to the form."""
    if not 300 <= response.status_code < 400 or not response.location:
        return False
    there = urlsplit(urljoin(request.url, response.location))
    here = urlsplit(request.url)
    return (there.netloc, there.path) != (here.netloc, here.path)
