"""What is done with schedules: added, removed, or run now. Names and ids are in the form, so that twice is once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.forms import read_filled
from baton_actors.console.page import Page
from baton_actors.console.pages.schedules import new_schedule_page_of
from baton_bus.client.runs import find_run
from baton_bus.client.schedules import add_schedule, remove_schedule, run_now, schedules_of
from baton_bus.errors import BadSchedule, BusError, PayloadTooLarge, ServerTooOld, UnknownRun
from baton_schemas.errors import BadContent, BadFile, BadToken, InputError
from baton_schemas.show.times import BadTime, read_time
from baton_schemas.wire.names import check_token

from .runs import path_of, text_in

_BEGINS_S = 1.5
"""How long a task that was sent is waited for to begin a run: a steward takes it in some milliseconds."""
_LOOK_S = 0.05


async def add(console: Console, request: Request, form: FormData) -> str | Page:
    """Have a flow run at a time to come; or return the form again, with what is amiss."""
    known = await console.flows.known(request.path_params["flow"])
    when = {name: text_in(form, name) for name in ("cron", "at", "name")}
    filled = await read_filled(known.plan.flow, form)
    said = ""
    if bool(when["cron"]) == bool(when["at"]):
        said = "When? Give either a time that comes again and again, or one that comes once."
    elif not filled.mistakes:
        try:
            due = read_time(when["at"], datetime.now(UTC)) if when["at"] else None
            await add_schedule(console.client, known.name, filled.values, cron=when["cron"], due=due, name=when["name"])
        except InputError as error:
            filled.mistake(error)
        except (BadTime, BadSchedule, BadToken, BadFile, BadContent, PayloadTooLarge, ServerTooOld) as error:
            said = str(error)
        else:
            return "/schedules"
    return new_schedule_page_of(console, known, filled, when, said)


async def remove(console: Console, request: Request, form: FormData) -> str:
    """Remove a schedule; one that is gone stays so."""
    await remove_schedule(console.client, text_in(form, "flow"), text_in(form, "name"))
    return "/schedules"


async def start_now(console: Console, request: Request, form: FormData) -> str:
    """Publish what a schedule would; the id of the run was made with the form."""
    flow, name = text_in(form, "flow"), text_in(form, "name")
    run = check_token("run id", text_in(form, "run"))
    found = [each for each in await schedules_of(console.client) if (each.flow, each.name) == (flow, name)]
    if not found:
        raise ValueError(f"The schedule {name!r} of {flow!r} is not there any more.")
    await run_now(console.client, found[0], run)
    give_up_at = asyncio.get_running_loop().time() + _BEGINS_S
    while asyncio.get_running_loop().time() < give_up_at:
        try:
            return path_of((await find_run(console.bus, run)).run)
        except UnknownRun:
            await asyncio.sleep(_LOOK_S)
        except BusError:
            break
    return f"/schedules?{urlencode({'sent': run, 'flow': flow})}"
