"""The pages of the console, by their addresses."""

from __future__ import annotations

from baton_actors.console.opening import open_posted
from baton_actors.console.page import MakePage

from .blobs import blob_bytes
from .compare import compare_file_page, compare_page, compare_with_page, pick_page
from .files import files_page
from .log import log_page
from .log import message_page as logged_page
from .message import message_page
from .run import export_page, run_page
from .runs import runs_page
from .step import step_page

OF_RUN: dict[str, MakePage] = {
    "": run_page,
    "/export": export_page,
    "/messages/{number}": message_page,
    "/steps/{step}": step_page,
    "/blobs/{sha256}": blob_bytes,
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
    "/log/{seq:int}": logged_page,
    **{f"/runs/{{run}}{path}": make for path, make in OF_RUN.items()},
    **{f"/files/{{file}}{path}": make for path, make in OF_RUN.items()},
}

OPENS: dict[str, MakePage] = {"/files": open_posted}
"""What is posted that changes nothing on the bus, by path: whoever may only read may do it, too."""
