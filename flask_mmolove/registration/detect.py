"""Ready-made answers for ``player=``: who is here now and was not before the view."""

from __future__ import annotations

import sys
import threading
import typing as t
from urllib.parse import urljoin
from urllib.parse import urlsplit

from flask import current_app
from flask import Flask
from flask import request
from flask import Response
from flask import session

from ..errors import MMOLoveError

if t.TYPE_CHECKING:
    from .inserted import Watch

#: Seconds a signup waits for the site's ``find``.
TIMEOUT = 1.0


class Detector(t.Protocol):
    """What ``player=`` takes besides a function: any object with these two methods."""

    def before(self) -> t.Any:
        """Return what there is before the view. Called only for a visitor who came with
        a token.
        """

    def after(self, response: Response, before: t.Any) -> t.Any:
        """Return the player who was not there before the view, or None.

        :param response: The view's response.
        :param before: What :meth:`before` returned.
        """


def why(detector: Detector, response: Response, before: t.Any) -> str:
    """Why an answer gave nobody, in words that follow "because".

    :param before: What :meth:`Detector.before` gave.
    """
    explain = getattr(detector, "why", None)
    if explain is None:
        return "player= gave None"
    return str(explain(response, before))


Player = t.Callable[[Response], t.Any] | Detector


def as_detector(player: Player | None) -> Detector:
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
        return t.cast(Detector, player)
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
new_login: Detector = _Login()


# The answers that take arguments are written like functions, and are used like them.


class new_row:
    """The row of a model that the request inserts and commits, for every site on
    SQLAlchemy.

    .. code-block:: python

        @referral_register(player=new_row(User))

    It makes no query, and works with any number of sessions, databases and processes.
    A row that is committed is reported, also after the view, and whatever the response
    is. With ``MMOLove(app, db=db)`` the account and its event are one transaction. A
    row that is rolled back is not reported. If one commit has several rows of the
    model, nobody is reported, and that is logged; of several commits, the first with a
    row counts. Rows of a bulk statement, such as ``session.execute(insert(User))``, are
    not seen.

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
        # SQLAlchemy is loaded where it is used only.
        from .inserted import listen

        listen(model)
        self._model = model

    def before(self) -> Watch:
        from .inserted import Watch

        watch = Watch(self._model)
        watch.begin()
        return watch

    def after(self, response: Response, before: Watch) -> t.Any:
        return before.row

    def why(self, response: Response, before: Watch) -> str:
        name = self._model.__name__
        if before.committed > 1:
            return (
                f"one commit had {before.committed} rows of {name}, so it is not clear "
                "who signed up"
            )
        if before.inserted:
            return f"the row of {name} that it inserted was not committed, or deleted"
        return f"it committed no row of {name}, unless by a bulk statement"


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
    """The id in a view's JSON response, if its status is 201 Created.

    .. code-block:: python

        @referral_register(player=new_in_json("user", "id"))

    :param path: The keys that lead to it.
    :param status: The status with which the view answers a signup, if that is not 201.
        It must not answer anything else with it, such as a login.
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
    found none before the view, and the view answers 201 Created or redirects to another
    page. A form that is shown again may have lost a race for the name, and then the
    player found is somebody else.

    It is for sites without SQLAlchemy: :class:`new_row` sees more, and needs no second
    connection.

    .. code-block:: python

        def find_id(name):
            sql = "SELECT id FROM user WHERE name = ?"
            row = get_db().execute(sql, (name,)).fetchone()
            return row and row["id"]

        @referral_register(player=new_by_field("username", find_id))

    :param field: The field's name.
    :param find: Takes what the visitor wrote there, and returns the player, or None. It
        is called before the view and after it, in a thread and an app context of its
        own, without the request. So it sees what was committed, and does not touch the
        view's database session. If it takes more than a second, nobody is reported.
    :param status: The status with which the view answers a signup, if that is neither.
        It must not answer a refused form with it; otherwise call :func:`registered` in
        the view.
    """

    def __init__(
        self, field: str, find: t.Callable[[str], t.Any], *, status: int | None = None
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
        if not _read_field(self._field):
            sent = "JSON body" if request.is_json else "form"
            return f"the {sent} has nothing in {self._field!r}"
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
        # Only this detector needs it, and it imports slower than the rest of this file.
        from concurrent.futures import Future

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
        thread.join(TIMEOUT)
        if not found.done():
            raise MMOLoveError(f"find gave no answer within {TIMEOUT:g} s.")
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
