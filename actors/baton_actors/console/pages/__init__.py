"""The pages of the console, by their addresses."""

from __future__ import annotations

from baton_actors.console.opening import open_posted
from baton_actors.console.page import MakePage

from .answer import answer_page
from .attention import attention_page
from .blobs import blob_bytes
from .compare import compare_file_page, compare_page, compare_with_page, pick_page
from .export import export_page
from .files import files_page
from .find import find_page
from .flows import flow_page, flows_page
from .fork import allow_page, cancel_page, fork_page, retry_page
from .log import log_page
from .log import message_page as logged_page
from .many import cancel_all_page, retry_all_page
from .message import message_page
from .queues import queue_page, queues_page
from .run import run_page
from .runs import beside_page, chosen_page, runs_page
from .schedules import forget_schedule_page, new_schedule_page, schedules_page
from .send import send_page
from .server import server_page
from .spend import spend_page
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
    "/queues": queues_page,
    "/queues/{actor}": queue_page,
    "/spend": spend_page,
    "/schedules": schedules_page,
    "/schedules/{flow}/new": new_schedule_page,
    "/schedules/{flow}/{name}/remove": forget_schedule_page,
    "/server": server_page,
    "/find": find_page,
    "/beside": beside_page,
    "/chosen": chosen_page,
    "/runs/{run}/retry": retry_page,
    "/runs/{run}/fork": fork_page,
    "/runs/{run}/cancel": cancel_page,
    "/runs/{run}/allow": allow_page,
    "/runs/{run}/answer": answer_page,
    "/acts/cancel": cancel_all_page,
    "/acts/retry": retry_all_page,
    "/attention": attention_page,
    "/flows": flows_page,
    "/flows/{flow}": flow_page,
    "/flows/{flow}/send": send_page,
}

OPENS: dict[str, MakePage] = {"/files": open_posted}
"""What is posted that changes nothing on the bus, by path: whoever may only read may do it, too."""
