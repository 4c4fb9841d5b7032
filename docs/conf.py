"""The documentation: ``sphinx-build -n -W docs docs/_build``."""

import contextlib
import inspect
import typing as t

import blinker
import flask
from pallets_sphinx_themes import get_version

import flask_mmolove

project = "Flask-MMOLove"
author = "The Flask-MMOLove authors"
copyright = author
release, version = get_version("Flask-MMOLove")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "pallets_sphinx_themes",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
# The plugin for tests needs it, and the documentation does not.
autodoc_mock_imports = ["pytest"]

# Others document their classes under the names that they are imported by.
blinker.Signal.__module__ = "blinker"
flask.Blueprint.__module__ = flask.Response.__module__ = "flask"

# Sphinx evaluates the annotations of functions, and not the parameters of classes.
for _class in filter(inspect.isclass, vars(flask_mmolove).values()):
    if _init := vars(_class).get("__init__"):
        with contextlib.suppress(NameError):  # imported for the type checker only
            _init.__annotations__ = t.get_type_hints(_init)

# Only the names that these pages refer to, so that a build needs no network.
intersphinx_mapping = {
    "blinker": ("https://blinker.readthedocs.io/en/stable", "inventories/blinker.inv"),
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "flask": ("https://flask.palletsprojects.com", "inventories/flask.inv"),
    "sqlalchemy": ("https://docs.sqlalchemy.org/en/20", "inventories/sqlalchemy.inv"),
}

nitpick_ignore = [
    # Annotations of what only the type checker imports are shown as they are written.
    ("py:class", "Flask"),
    ("py:class", "SQLAlchemy"),
    # Type variables: what a decorator is given, it returns.
    ("py:class", "flask_mmolove.extension.F"),
    ("py:class", "flask_mmolove.extension.M"),
    ("py:class", "flask_mmolove.extension.R"),
    ("py:class", "flask_mmolove.registration.decorator.F"),
]

html_theme = "flask"
html_title = f"Flask-MMOLove {version}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
templates_path = ["_templates"]
html_sidebars = {
    "**": ["menu.html", "localtoc.html", "searchbox.html", "sourcelink.html"]
}
