"""The pages of the console, by their addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from baton_actors.console.core import Console
from baton_actors.console.opening import open_posted
from baton_actors.console.page import MakePage

from .blobs import blob_bytes
from .compare import compare_file_page, compare_page, compare_with_page, pick_page
from .files import files_page
from .log import log_page, message_page
from .run import run_page
from .runs import runs_page
from .step import step_page

OF_RUN: dict[str, MakePage] = {
    "": run_page,
    "/steps/{step}": step_page,
}
"""Pages of a run, by what follows its own address: that of one in the log, or of one in a file."""

PAGES: dict[str, MakePage] = {
    "/": runs_page,
    "/runs": runs_page,
    "/compare": pick_page,
    "/compare/{a}": compare_with_page,
    "/compare/{a}/{b}": compare_page,
    "/files": files_page,
    "/files/{file}/compare/{b}": compare_file_page,
    "/log": log_page,
    "/log/{seq:int}": message_page,
    **{f"/runs/{{run}}{path}": make for path, make in OF_RUN.items()},
    **{f"/files/{{file}}{path}": make for path, make in OF_RUN.items()},
}

Answer = Callable[[Console, Request], Awaitable[Response]]
"""Answers with something that is no page."""

ANSWERS: dict[tuple[str, str], Answer] = {
    ("GET", "/runs/{run}/blobs/{sha256}"): blob_bytes,
    ("GET", "/files/{file}/blobs/{sha256}"): blob_bytes,
    ("POST", "/files"): open_posted,
}
"""By method and path. What is posted to these changes nothing on the bus."""
