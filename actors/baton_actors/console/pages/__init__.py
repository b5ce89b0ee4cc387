"""The pages of the console, by their addresses."""

from __future__ import annotations

from baton_actors.console.page import MakePage

from .queues import queue_page, queues_page
from .run import run_page
from .runs import beside_page, runs_page
from .spend import spend_page

PAGES: dict[str, MakePage] = {
    "/": runs_page,
    "/runs": runs_page,
    "/queues": queues_page,
    "/queues/{actor}": queue_page,
    "/spend": spend_page,
    "/beside": beside_page,
    "/runs/{run}": run_page,
}
