"""`baton schedule`, `schedules` and `unschedule`: runs that the broker asks for at a time to come."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from baton_actors.agents.loading import find_flow
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument, CommandError
from baton_actors.cli.inputs import read_input
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.text import plain
from baton_bus.client.schedules import add_schedule, task_of
from baton_bus.errors import BusUnavailable, PayloadTooLarge
from baton_bus.store.timers import Scheduled
from baton_schemas.errors import nearest
from baton_schemas.show.times import read_time, short_time
from baton_schemas.wire.names import check_token

_NAME_MIN = 24
"""Columns that the name of a schedule keeps, as `unschedule` needs it; longer ones are whole in --json."""


class InputTooLarge(CommandError):
    """The input of a schedule does not fit into the message that waits at the broker."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        """Both in bytes."""
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(
            f"the input has {size_bytes:,} bytes, and a schedule holds at most {limit_bytes:,} (the server's "
            "max_payload). Have a handler fetch what is large, and schedule where it is to be found"
        )


class NoSuchSchedule(CommandError):
    """No task is to come under this name, or several are."""

    def __init__(self, name: str, known: Iterable[str], flows: Sequence[str] = ()) -> None:
        """`flows` are those that have a schedule of this name, if there are several."""
        self.name, self.flows = name, tuple(flows)
        if flows:
            ways = ", ".join(f"{flow}/{name}" for flow in flows)
            super().__init__(f"{len(flows)} flows have a schedule {name!r}. Say which: {ways}")
        else:
            super().__init__(f"there is no schedule {name!r}. {nearest(name, known) or '`baton schedules` lists them'}")


@command()
async def schedule(
    place: Place,
    flow: o.Flow,
    pairs: o.Pairs = None,
    cron: Annotated[
        str,
        typer.Option("--cron", metavar="CRON", help="Again and again: '0 0 6 * * *' is each day at 6:00:00 UTC."),
    ] = "",
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="Once: 2026-11-25T06:00 (local; UTC with a Z), or +10m.")
    ] = "",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Replaces the flow's schedule of that name.")
    ] = "",
    json: o.Json = False,
) -> int:
    """Run a flow at a time to come.

    Either --cron or --at. The broker keeps the time; what came due while it was down comes once when it is up.
    """
    if bool(cron) == bool(at):
        raise BadArgument("when? Give either --cron '0 0 6 * * *' or --at TIME")
    found = find_flow(flow)
    given = read_input(found.flow, pairs or [], "")
    now = datetime.now(UTC)
    due = read_time(at, now) if at else None
    if name:
        check_token("schedule", name)
    async with place.client() as client:
        try:
            name = await add_schedule(client, found.name, given, cron=cron, due=due, name=name)
        except PayloadTooLarge as error:
            raise InputTooLarge(error.size_bytes, error.limit_bytes) from error
    if json:
        print_json({"name": name, "flow": found.name, "cron": cron, "next_at": due})
        return OK
    print(name, flush=True)
    when = f"{found.name} at {short_time(due, now)}" if due else f"{found.name} at {cron} (UTC)"
    out = console(stderr=True)
    out.print(Text(f"runs {when}, if `baton up {flow}` is running then"), soft_wrap=True)
    out.print(Text(f"  baton schedules   baton unschedule {name}", "dim"), soft_wrap=True)
    return OK


@command()
async def schedules(place: Place, json: o.Json = False) -> int:
    """List what is scheduled."""
    async with place.bus(reads=True) as bus:
        found = await bus.timers.list()
    never = datetime.max.replace(tzinfo=UTC)
    found = tuple(sorted(found, key=lambda each: each.next_at or never))
    if json:
        print_json([_facts(each) for each in found])
    elif found:
        console().print(schedules_table(found, datetime.now(UTC)))
    else:
        print("nothing is scheduled: `baton schedule FLOW --cron …` or `--at …` does it", file=sys.stderr)
    return OK


@command()
async def unschedule(
    place: Place,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `baton schedules` has it, or FLOW/NAME.")],
    json: o.Json = False,
) -> int:
    """Remove a schedule."""
    async with place.bus(reads=True) as bus:
        there = await bus.timers.list()
        found = [each for each in there if name in (each.name, f"{each.flow}/{each.name}")]
        if len(found) != 1:
            raise NoSuchSchedule(name, {each.name for each in there}, [each.flow for each in found])
        (old,) = found
        if not await bus.timers.cancel("task", old.flow, old.name):
            raise BusUnavailable("remove the schedule", bus.settings.request_timeout_s)
    if json:
        print_json(_facts(old))
    else:
        print(f"{old.name} is unscheduled: {old.flow} does not run for it any more", flush=True)
    return OK


def schedules_table(schedules: Sequence[Scheduled], now: datetime) -> Table:
    """Return schedules, one a line; it fits 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    have_come = any(each.last_at for each in schedules)
    # Times keep their room, and names as far as there is some: rich narrows columns that may wrap, and the texts of the
    # others do not.
    for heading in ("name", "flow", "cron (UTC)", "next", *(["last"] if have_come else []), "input"):
        least = min(max(len(each.name) for each in schedules), _NAME_MIN) if heading == "name" else None
        text = Text(heading, no_wrap=True, overflow="ellipsis")
        table.add_column(text, no_wrap=heading in ("next", "last"), min_width=least)
    for each in schedules:
        times = [short_time(at, now) if at else "" for at in (each.next_at, each.last_at)]
        cells = [each.name, each.flow, each.cron or "once", *times[: 1 + have_come], ", ".join(_keys(each))]
        table.add_row(*(Text(plain(cell), no_wrap=True, overflow="ellipsis") for cell in cells))
    return table


def _facts(schedule: Scheduled) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "flow": schedule.flow,
        "cron": schedule.cron,
        "next_at": schedule.next_at,
        "last_at": schedule.last_at,
        "input": _keys(schedule),
    }


def _keys(schedule: Scheduled) -> list[str]:
    """Return which inputs a schedule gives; none when its body is not ours."""
    task = task_of(schedule)
    return list(task.input) if task is not None else []
