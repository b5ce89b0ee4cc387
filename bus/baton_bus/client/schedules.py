"""Schedules: tasks that the broker publishes at a time to come, once or again and again; what commands and pages do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from baton_bus.errors import BusUnavailable
from baton_bus.store.timers import Scheduled
from baton_schemas.errors import BadMessage
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import Task
from baton_schemas.wire.names import check_token

from .client import Client
from .run import Run

_NEVER = datetime.max.replace(tzinfo=UTC)


async def add_schedule(
    client: Client,
    flow: str,
    given: Mapping[str, Any],
    *,
    cron: str = "",
    due: datetime | None = None,
    name: str = "",
) -> str:
    """Have a task come at a time (`due`), or again and again (`cron`); return its name.

    A `name` replaces the flow's schedule of that name. Without one it follows from what is scheduled: the same schedule
    twice is one, and another beside it is another. Raises `BadToken`, `BadSchedule`, `ServerTooOld`, and as
    `Client.encoded`; `PayloadTooLarge` when the input does not fit into the message that waits at the broker.
    """
    if name:
        check_token("schedule", name)
    body = encode(Task(input=await client.encoded(given)))
    name = name or hashlib.sha256(f"{flow} {due or cron} ".encode() + body).hexdigest()[:8]
    if due is not None:
        await client.bus.timers.once(flow, name, due.timestamp(), body)
    else:
        await client.bus.timers.repeat(flow, name, cron, body)
    return name


async def schedules_of(client: Client) -> list[Scheduled]:
    """Return what is scheduled, what comes next first. Raises `BusUnavailable`."""
    return sorted(await client.bus.timers.list(), key=lambda each: each.next_at or _NEVER)


async def remove_schedule(client: Client, flow: str, name: str) -> None:
    """Remove a schedule; one that is not there is removed. Raises `BusUnavailable`, `NotAllowed`."""
    if not await client.bus.timers.cancel("task", check_token("flow", flow), check_token("schedule", name)):
        there = await client.bus.timers.list()
        if any((each.flow, each.name) == (flow, name) for each in there):
            raise BusUnavailable("remove the schedule", client.bus.settings.request_timeout_s)


async def run_now(client: Client, schedule: Scheduled, run_id: str) -> Run:
    """Publish what a schedule would, now; twice with the same id is one run. The steward of its flow makes a run of it.

    Raises `BadMessage` for one whose body is none of ours, and as `Client.start`.
    """
    task = task_of(schedule)
    if task is None:
        raise BadMessage("it holds no task of Baton's", f"the schedule {schedule.name!r}")
    return await client.start(schedule.flow, task.input, run_id=run_id, budget=task.budget)


def task_of(schedule: Scheduled) -> Task | None:
    """Return the task that a schedule holds; None when its body is not ours."""
    try:
        task = decode(schedule.body)
    except BadMessage:
        return None
    return task if isinstance(task, Task) else None
