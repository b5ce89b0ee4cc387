"""The pages of the console, by their addresses."""

from __future__ import annotations

from baton_actors.console.page import MakePage

from .branches import branches_page
from .message import message_page
from .run import export_page, run_page
from .runs import runs_page

PAGES: dict[str, MakePage] = {
    "/": runs_page,
    "/runs": runs_page,
    "/runs/{run}": run_page,
    "/runs/{run}/export": export_page,
    "/runs/{run}/messages/{number}": message_page,
    "/runs/{run}/steps/{step}": branches_page,
}
