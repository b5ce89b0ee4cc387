"""`baton show`, `log` and `export`: what the log says of a run. They write nothing."""

from __future__ import annotations

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument
from baton_actors.cli.nobody import nobody_lines, telling, up_command
from baton_actors.cli.output import output_of, print_json, print_output, state_of
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.show.costs import rehearsal_line
from baton_actors.cli.show.log_lines import log_line, log_rows
from baton_actors.cli.show.progress import Progress
from baton_actors.cli.show.run_page import run_page
from baton_actors.cli.show.step_lines import errors_of
from baton_actors.cli.show.step_page import step_page
from baton_actors.cli.show.why import look_at
from baton_actors.models.run_facts import shown_facts
from baton_actors.models.saved import saved_by_seen
from baton_bus.client.left import left_alone
from baton_bus.client.runs import RunHead, find_run, read_last
from baton_bus.client.seen import LISTEN_S, see_step
from baton_bus.client.watching import follow_run
from baton_bus.errors import BlobMissing, UnknownRun
from baton_bus.store.bus import Bus
from baton_schemas.show.export import dump
from baton_schemas.show.lines import is_rehearsed
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.show.spans import shares_of
from baton_schemas.show.step_facts import step_facts
from baton_schemas.show.timeline import timeline_of

_FETCH_MAX_BYTES = 64 * 1024 * 1024
"""Of values beside the log that are fetched to be shown: as many as one value may have; with `--json` all are."""


@command()
async def show(
    place: Place,
    run: o.Run = "",
    step: Annotated[
        str,
        typer.Argument(
            metavar="[STEP]",
            help="A step, or a branch of one (`digest-7`): what it read, was asked and put out.",
            show_default=False,
        ),
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show it as it runs, with what its steps say, until it ends.")
    ] = False,
    json: o.Json = False,
) -> int:
    """Show a run: its steps, and its output or error; or one step, with what it got and gave."""
    if step and follow:
        raise BadArgument("--follow shows a run as a whole; leave the step out")
    async with place.bus(reads=True) as bus:
        head = await _head(bus, run)
        if step:
            return await _show_step(bus, head, step, json)
        if follow:
            await _follow(place, bus, head, shows=not json)
        entries = await read_last(bus, head)
        state = state_of(head, entries)
        output, missing = None, None
        try:
            output = await output_of(bus, state.result)
        except BlobMissing as error:  # what there is of the run is shown first
            if json:
                raise
            missing = error
        plan = plan_of(state)
        left = await left_alone(bus, plan, state) if plan is not None else []
    now = datetime.now(UTC)
    rows, timeline = rows_of(state, plan, now=now), timeline_of(entries, state)
    shares = shares_of(timeline, now)
    if json:
        unplayed = [each.actor for each in left]
        print_json(shown_facts(state, rows, timeline, now, output=output, unplayed=unplayed))
        return OK
    out = console()
    out.print(run_page(state, rows, now, shares))
    if errors_of(rows):
        out.print(Text(f"  {look_at(state, rows)}", "dim"), soft_wrap=True)
    if plan is not None:
        for line in nobody_lines(left, up_command(place, state.source, plan)):
            out.print(line, soft_wrap=True)
    if output is not None:
        out.print()
        print_output(output)
    if missing is not None:
        raise missing
    return OK


async def _follow(place: Place, bus: Bus, head: RunHead, *, shows: bool) -> None:
    """Show a run as it goes, until it ends; what it waits for that nobody plays is said."""
    state = state_of(head, await read_last(bus, head))
    plan = plan_of(state)
    if plan is None or state.result is not None:
        return
    out = console(stderr=True)
    progress = Progress(bus, plan, head.run, out, shows=shows, transient=True)

    def tell(line: Text) -> None:
        if shows:
            out.print(line, soft_wrap=True)

    async with telling(bus, head.run, plan, up_command(place, state.source, plan), tell), progress.showing():
        await progress.settled(None)


async def _head(bus: Bus, run: str) -> RunHead:
    """Return the run that is meant. Raises as `find_run`, and says so where the name is that of a step."""
    try:
        return await find_run(bus, run)
    except UnknownRun as error:
        hint = await _step_hint(bus, run)
        raise (UnknownRun(run, hint) if hint else error) from None


async def _step_hint(bus: Bus, name: str) -> str:
    """Say how to see the step of the latest run that is called so; nothing where none is."""
    try:
        latest = await find_run(bus)
    except UnknownRun:
        return ""
    state = state_of(latest, await read_last(bus, latest))
    plan = plan_of(state)
    if name not in state.steps and (plan is None or name not in plan.steps):
        return ""
    return f"It is a step of the latest run: `baton show {latest.run} {name}` shows it."


async def _show_step(bus: Bus, head: RunHead, step: str, json: bool) -> int:
    """Show a step: on a terminal the beginning of what is long, as JSON all of it."""
    listen_s = LISTEN_S if head.status == "running" else 0.0
    seen = await see_step(bus, head, step, listen_s=listen_s, fetch_max_bytes=None if json else _FETCH_MAX_BYTES)
    if json:
        print_json(step_facts(seen, saved_by_seen(seen)))
    else:
        out = console()
        out.print(step_page(seen, out.width))
    return OK


@command()
async def log(
    place: Place,
    run: o.Run = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    json: o.Json = False,
) -> int:
    """Print the messages of a run, one a line."""
    out, number, rehearsed = console(), 0, False
    async with place.bus(reads=True) as bus:
        head = await find_run(bus, run)
        read = (
            follow_run(bus, head.run, head.start_seq)
            if follow
            else bus.log.read([bus.subjects.run(head.run)], head.start_seq)
        )
        async with aclosing(read) as entries:
            async for entry in entries:
                number += 1
                rehearsed = rehearsed or is_rehearsed(entry)
                if json:
                    sys.stdout.buffer.write(dump(entry))
                    sys.stdout.buffer.flush()
                elif out.is_terminal:
                    out.print(log_rows(entry, head.started_at, number))
                else:
                    out.print(log_line(entry, head.started_at, number), soft_wrap=True)
    _label(rehearsed and not json)
    return OK


@command()
async def export(
    place: Place,
    run: o.Run = "",
    json: Annotated[bool, typer.Option("--json", help="The same: it is JSON lines always.")] = False,
) -> int:
    """Write a run as JSON lines, for `replay`."""
    rehearsed = False
    async with place.bus(reads=True) as bus:
        head = await find_run(bus, run)
        async with aclosing(bus.log.read([bus.subjects.run(head.run)], head.start_seq)) as entries:
            async for entry in entries:
                rehearsed = rehearsed or is_rehearsed(entry)
                sys.stdout.buffer.write(dump(entry))
    sys.stdout.buffer.flush()
    _label(rehearsed and not json)
    return OK


def _label(rehearsed: bool) -> None:
    """Say beside what was printed that no model made it: each message that has an answer is marked, too."""
    if rehearsed:
        console(stderr=True).print(rehearsal_line(), soft_wrap=True)
