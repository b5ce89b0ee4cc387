"""The pages of the console, by their addresses."""

from __future__ import annotations

from baton_actors.console.page import MakePage

from .run import run_page
from .runs import beside_page, runs_page

PAGES: dict[str, MakePage] = {
    "/": runs_page,
    "/runs": runs_page,
    "/beside": beside_page,
    "/runs/{run}": run_page,
}
