"""What is to come: flows that the broker has run at a time, once or again and again."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.forms import Filled, form_fields, prefilled
from baton_actors.console.known_flows import KnownFlow
from baton_actors.console.page import LISTS, Given, Page, wants_json
from baton_bus.client.schedules import schedules_of, task_of
from baton_bus.index import file as files
from baton_bus.index.finding import named
from baton_bus.store.timers import KEPT_S, Firing, Scheduled
from baton_schemas.show.cron import cron_in_words, next_times
from baton_schemas.show.excerpt import in_words
from baton_schemas.wire.names import sortable_id

_NEXT = 5
_LAST = 5
_SHOWN = 100
"""Schedules on one page: for each its last runs are a question."""
_EVERY_S = 5.0
_DIGITS_MAX = 9
_WIDE = 120
_EXAMPLES = (
    ("0 0 6 * * *", "each day at 6:00:00 UTC"),
    ("0 */15 * * * *", "every quarter of an hour"),
    ("0 30 8 * * mon-fri", "8:30:00 UTC on working days"),
    ("@every 90m", "every 90 minutes from now on"),
)


class LastRun(Struct, frozen=True, kw_only=True):
    """A run that a schedule began."""

    run: str
    at: datetime
    status: str
    """Empty where it is not known: the index has no such run."""


class ScheduleRow(Struct, frozen=True, kw_only=True):
    """A schedule."""

    name: str
    flow: str
    cron: str
    """Empty for one that comes once."""
    words: str
    next_at: datetime | None
    next_times: list[datetime]
    last_at: datetime | None
    last_runs: list[LastRun]
    input: str
    """In a few words."""
    run: str
    """The id of the run that it is to begin when somebody has it run now."""


async def schedules_page(console: Console, request: Request) -> Page:
    """Return what is scheduled, what comes next first."""
    given = Given(request.query_params)
    found = await schedules_of(console.client)
    start = int(given["from"]) if given["from"].isdecimal() and len(given["from"]) < _DIGITS_MAX else 0
    start = start if start < len(found) else 0
    shown = found[start:] if wants_json(request) else found[start : start + _SHOWN]
    firings = await asyncio.gather(*(console.bus.timers.firings(each, _LAST) for each in shown))
    now = datetime.fromtimestamp(console.bus.now_s(), UTC)
    rows = [_row(console, each, last, now) for each, last in zip(shown, firings, strict=True)]
    return Page(
        template="schedules.html",
        title="Schedules",
        here="schedules",
        facts={
            "rows": rows,
            "count": len(found),
            "first": start + 1,
            "before": max(start - _SHOWN, 0),
            "after": start + _SHOWN if start + _SHOWN < len(found) else 0,
            "sent": given["sent"],
            "sent_flow": given["flow"],
            "flows": [each.name for each in console.flows.here()[0]],
            "now": now,
            "kept_days": int(KEPT_S / 86_400),
        },
        json=[_facts(each, row) for each, row in zip(shown, rows, strict=True)],
        command="baton schedules",
        sources=(LISTS,),
        every_s=_EVERY_S,
    )


async def new_schedule_page(console: Console, request: Request) -> Page:
    """Show the form of a new schedule of a flow."""
    given = dict(request.query_params)
    known = await console.flows.known(request.path_params["flow"])
    when = {name: given.get(name, "") for name in ("cron", "at", "name")}
    return new_schedule_page_of(console, known, prefilled(known.plan.flow.input, given), when)


def new_schedule_page_of(
    console: Console, known: KnownFlow, filled: Filled, when: Mapping[str, str], said: str = ""
) -> Page:
    """Return the form with what was filled in and what is amiss."""
    flow = known.plan.flow
    pairs = [f"{name}={shlex.quote(filled.text(name))}" for name in flow.input if filled.text(name)]
    options = [f"--{name} {shlex.quote(value)}" for name, value in when.items() if value] or ["--cron …"]
    return Page(
        template="new_schedule.html",
        title=f"Schedule {known.name}",
        here="schedules",
        facts={
            "flow": known.name,
            "fields": form_fields(flow.input),
            "filled": filled,
            "when": when,
            "said": said,
            "examples": _EXAMPLES,
        },
        json={"flow": known.name, "input": form_fields(flow.input), "mistakes": filled.mistakes},
        command=" ".join(["baton schedule", known.source or known.name, *pairs, *options]),
        status=422 if filled.mistakes or said else 200,
    )


async def forget_schedule_page(console: Console, request: Request) -> Page:
    """Ask whether to remove a schedule."""
    flow, name = request.path_params["flow"], request.path_params["name"]
    return Page(
        template="forget_schedule.html",
        title=f"Remove the schedule {name} of {flow}?",
        here="schedules",
        facts={"flow": flow, "name": name},
        command=f"baton unschedule {flow}/{name}",
    )


def _row(console: Console, each: Scheduled, firings: tuple[Firing, ...], now: datetime) -> ScheduleRow:
    if each.cron:
        times = next_times(each.cron, now, _NEXT, each.next_at)
    else:
        times = [each.next_at] if each.next_at is not None else []
    task = task_of(each)
    return ScheduleRow(
        name=each.name,
        flow=each.flow,
        cron=each.cron,
        words=cron_in_words(each.cron) if each.cron else "once",
        next_at=each.next_at or next(iter(times), None),
        next_times=times,
        last_at=each.last_at,
        last_runs=[_last(console, firing) for firing in firings],
        input=in_words(task.input, _WIDE) if task is not None else "no task of Baton's",
        run=sortable_id(),
    )


def _last(console: Console, firing: Firing) -> LastRun:
    database = console.index.database
    status = ""
    if database is not None:
        with files.told(console.index.path):
            status = next((row.summary.status for row in named(database, firing.run, 1)), "")
    return LastRun(run=firing.run, at=firing.at, status=status)


def _facts(each: Scheduled, row: ScheduleRow) -> dict[str, Any]:
    """Return what `baton schedules --json` says, and more."""
    task = task_of(each)
    return {
        "name": each.name,
        "flow": each.flow,
        "cron": each.cron,
        "next_at": each.next_at,
        "last_at": each.last_at,
        "input": list(task.input) if task is not None else [],
        "words": row.words,
        "next_times": row.next_times,
        "last_runs": row.last_runs,
    }
