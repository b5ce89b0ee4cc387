"""The pages of the console, by their addresses."""

from __future__ import annotations

from baton_actors.console.page import MakePage

from .answer import answer_page
from .attention import attention_page
from .find import find_page
from .flows import flow_page, flows_page
from .fork import allow_page, cancel_page, fork_page, retry_page
from .many import cancel_all_page, retry_all_page
from .queues import queue_page, queues_page
from .run import run_page
from .runs import beside_page, chosen_page, runs_page
from .schedules import forget_schedule_page, new_schedule_page, schedules_page
from .send import send_page
from .server import server_page
from .spend import spend_page

PAGES: dict[str, MakePage] = {
    "/": runs_page,
    "/runs": runs_page,
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
    "/runs/{run}": run_page,
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
