"""Work of earlier runs that a command will do besides its own, as it plays their actors: said before it begins."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from rich.text import Text

from baton_actors.cli.text import plain
from baton_bus import BusError
from baton_bus.client.runs import RunHead, recent_runs
from baton_bus.store.bus import Bus
from baton_bus.store.players import players
from baton_schemas.flow.graph import Plan
from baton_schemas.show.times import short_time

_RUNS_MAX = 100
"""Runs that are counted one by one; where more wait, that there are more says enough."""
_NAMED_MAX = 3
_LOOK_S = 2.0
"""For finding them in a long log: the user waits for his own run."""


async def earlier_lines(bus: Bus, plan: Plan) -> list[Text]:
    """Return what is to be said of queued work of earlier runs of a flow: nothing where there is none. Never fails.

    What others are doing just now is no such work. Where nothing is queued, that takes two requests per actor.
    """
    if not any(each.waiting and each.played != "somebody" for each in await players(bus, plan.actors())):
        return []
    try:
        async with asyncio.timeout(_LOOK_S):
            found = await recent_runs(bus, _RUNS_MAX, flow=plan.flow.name, status="running", children=True)
    except (BusError, TimeoutError):
        return [Text(plain(f"work of earlier runs of {plan.flow.name} is queued, and is done too"), "yellow")]
    return _lines(found, plan.flow.name, datetime.fromtimestamp(bus.now_s(), UTC)) if found else []


def _lines(found: list[RunHead], flow: str, now: datetime) -> list[Text]:
    count = f"{len(found)} earlier run{'s' if len(found) > 1 else ''}"
    if len(found) >= _RUNS_MAX:
        count = f"{_RUNS_MAX} earlier runs or more"
    them = ("has", "goes") if len(found) == 1 else ("have", "go")
    lines = [Text(plain(f"{count} of {flow} {them[0]} not ended, and {them[1]} on beside this one:"), "yellow")]
    lines += [Text(plain(f"  {_head(head, now)}"), "dim") for head in found[:_NAMED_MAX]]
    if len(found) > _NAMED_MAX:
        lines.append(Text("  …   baton runs has the others", "dim"))
    return lines


def _head(head: RunHead, now: datetime) -> str:
    return f"{head.run}  {short_time(head.started_at, now)}   baton cancel {head.run}"
