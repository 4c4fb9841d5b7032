"""A view whose decorators are in the wrong order is decorated all the same.

Decorators apply from the bottom up, so under ``@referral_register`` a route has already
registered the function as it was, and every referral would be lost in silence.
"""

from __future__ import annotations

import contextlib
import inspect
import typing as t
import weakref

from flask import Flask

from ..log import logger

View = t.Callable[..., t.Any]

# On what was decorated, and not in a table beside it: the function that an app factory
# decorates is gone when the factory returns, and only its route keeps the original.
_DECORATE = "_mmolove_decorate"
_DECORATED = "_mmolove_decorated"

_MISPLACED = (
    "The view %r in %s was registered before it was decorated. It is decorated all the "
    "same, but swap the two lines: first @%s.route(...), or what stands for it, then "
    "@referral_register, next to the function."
)

#: The apps of this process that have MMOLove.
_apps: weakref.WeakSet[Flask] = weakref.WeakSet()


def mark(wrapper: View) -> None:
    """Remember that a view is decorated."""
    setattr(wrapper, _DECORATED, True)


def remember(view: View, decorate: t.Callable[[View], View]) -> None:
    """Remember how a view was decorated, for where it was registered before.

    :param decorate: Does the same to the view that was registered.
    """
    # A bound method takes no attributes; its order cannot be put right.
    with contextlib.suppress(AttributeError):
        setattr(_innermost(view), _DECORATE, decorate)


def watch(app: Flask) -> None:
    """Let the views of an app count among those that may be decorated on purpose."""
    _apps.add(app)


def put_right(app: Flask) -> None:
    """Decorate each view that was registered before it was decorated."""
    for endpoint, view, decorate in misplaced(app):
        app.view_functions[endpoint] = decorate(view)
        logger.warning(_MISPLACED, *_facts(endpoint, view))


def in_words(endpoint: str, view: View) -> str:
    """What is wrong with a view, with the lines to swap."""
    return _MISPLACED % _facts(endpoint, view)


def _facts(endpoint: str, view: View) -> tuple[str, str, str]:
    owner = endpoint.rpartition(".")[0].rpartition(".")[2] or "app"
    return endpoint, view.__module__, owner


def misplaced(app: Flask) -> list[tuple[str, View, t.Callable[[View], View]]]:
    """The views registered before they were decorated: endpoint, view, decorator.

    Where some app uses the decorated function, the plain one is meant, and left alone.
    """
    views = [view for each in [*_apps] for view in [*each.view_functions.values()]]
    used = {id(_innermost(view)) for view in views if _is_decorated(view)}
    found = []
    for endpoint, view in [*app.view_functions.items()]:
        plain = _innermost(view)
        decorate = getattr(plain, _DECORATE, None)
        if decorate and not _is_decorated(view) and id(plain) not in used:
            found.append((endpoint, view, decorate))
    return found


def decorated(app: Flask) -> list[str]:
    """The endpoints of an app's signup views."""
    return [name for name, view in app.view_functions.items() if _is_decorated(view)]


def undecorated(app: Flask) -> set[str]:
    """The endpoints of an app's other views."""
    late = {endpoint for endpoint, _, _ in misplaced(app)}
    return {*app.view_functions} - {*decorated(app)} - late


def _is_decorated(view: View) -> bool:
    # What wraps a decorated view has its attributes, if it was written as usual.
    return bool(getattr(view, _DECORATED, False))


def _innermost(view: View) -> View:
    """The function that was written, under all its decorators."""
    try:
        return t.cast(View, inspect.unwrap(view))
    except ValueError:  # it wraps itself
        return view
