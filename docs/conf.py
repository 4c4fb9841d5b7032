"""The documentation: ``sphinx-build -W docs docs/_build``."""

from pallets_sphinx_themes import get_version
from pallets_sphinx_themes import ProjectLink

project = "Flask-MMOLove"
author = "The Flask-MMOLove authors"
copyright = author
release, version = get_version("Flask-MMOLove")

extensions = ["myst_parser", "sphinx.ext.autodoc", "pallets_sphinx_themes"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_preserve_defaults = True
exclude_patterns = ["_build"]
myst_heading_anchors = 3

html_theme = "flask"
html_title = "Flask-MMOLove"
html_sidebars = {
    "index": ["project.html", "localtoc.html", "searchbox.html"],
    "**": ["localtoc.html", "relations.html", "searchbox.html"],
}
html_context = {"project_links": [ProjectLink("MMOLove", "https://mmolove.com")]}
