"""The page of a server, and of a site: what their status files say, in a browser."""

from atoll.ui.serve import served
from atoll.ui.views import View, run_view, site_view

__all__ = ["View", "run_view", "served", "site_view"]
