"""The dashboard: a blueprint that a site registers if it wants it."""

from .pages import make_dashboard as make_dashboard
