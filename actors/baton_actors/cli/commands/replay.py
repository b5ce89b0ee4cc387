"""`baton replay`: the state of a run after each of its messages, from the bus or from an exported file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from baton_actors.cli import completing
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument
from baton_actors.cli.exported import names_file, read_exported
from baton_actors.cli.keys import read_key, single_keys
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.show.costs import rehearsal_line
from baton_actors.cli.show.log_lines import log_line
from baton_actors.cli.show.run_page import header, run_page, totals
from baton_actors.cli.show.step_lines import waits_of
from baton_actors.cli.show.stepping import Stepping
from baton_actors.cli.show.steps_table import in_brief, steps_table
from baton_actors.cli.show.values import brought_lines, brought_table
from baton_actors.models.run_facts import run_facts
from baton_bus.client.runs import find_run, read_run
from baton_bus.client.seen import fetch_small
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import RunFold, fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.brought import Brought, blobs_named, brought_by
from baton_schemas.show.given import Fetched
from baton_schemas.show.lines import one_line
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.show.step_facts import brought_facts
from baton_schemas.show.unfolding import room_for

_INDENT = " " * 6
_FETCH_MAX_BYTES = 1024 * 1024
"""Of one value beside the log that is fetched to be shown among messages; `baton show RUN STEP` fetches larger ones."""
_LINES_BESIDE = 16
"""Lines of the screen beside the table of steps, when somebody steps through a run."""
_STEPS_A_MESSAGE = 200
"""Steps, branches and children that are looked at for each message, on the whole: ten thousand take no hour."""
_SEARCHED_MAX = 10_000
"""Bytes of a message that a search looks at."""


@command()
def replay(
    place: Place,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE", help="A run, or a file made by `baton export`.", autocompletion=completing.runs
        ),
    ] = "",
    until: Annotated[
        int | None, typer.Option("--until", min=0, metavar="N", help="The state after N messages.")
    ] = None,
    json: o.Json = False,
) -> int:
    """Step through a run, message by message.

    On a terminal keys go forward and back through the state after each message; elsewhere all are printed.
    """
    log = _Log(read_exported(Path(run)), {}) if names_file(run) else asyncio.run(_from_bus(place, run))
    entries = log.entries
    if until is not None and until > len(entries):
        raise BadArgument(f"the run has {len(entries)} messages: --until {until} is past its end")
    plan = plan_of(fold(entries))
    if until is not None:
        _print_after(log, until, plan, json)
    elif json:
        _print_steps_as_json(log, plan)
    elif sys.stdin.isatty() and sys.stdout.isatty() and entries:
        _step_through(log, plan)
    else:
        _print_steps(log, plan)
    return OK


class _Log(NamedTuple):
    """The messages of a run, and what is kept beside the log and was fetched."""

    entries: Sequence[Entry]
    fetched: Fetched

    def brought(self, plan: Plan | None, number: int) -> list[Brought]:
        """Return what a message brought, by its number from 1; nothing before the first."""
        return brought_by(plan, self.entries, number, self.fetched) if number else []


async def _from_bus(place: Place, name: str) -> _Log:
    async with place.bus(reads=True) as bus:
        entries = await read_run(bus, await find_run(bus, name))
        blobs = {blob.sha256: blob for entry in entries for blob in blobs_named(entry.message)}
        return _Log(entries, await fetch_small(bus, blobs.values(), _FETCH_MAX_BYTES))


def _print_after(log: _Log, number: int, plan: Plan | None, as_json: bool) -> None:
    entries, out = log.entries[:number], console()
    state = fold(entries)
    if as_json:
        print_json(_facts(log, number, state, plan))
        return
    at = entries[-1].at if entries else None
    out.print(run_page(state, rows_of(state, plan, now=at), at))
    if brought := log.brought(plan, number):
        out.print()
        out.print(log_line(entries[-1], entries[0].at, number), soft_wrap=True)
        out.print(brought_table(brought, out.width))


def _print_steps_as_json(log: _Log, plan: Plan | None) -> None:
    run = RunFold()
    for number, entry in enumerate(log.entries, start=1):
        run.apply(entry)
        print_json(_facts(log, number, run.state, plan))


def _print_steps(log: _Log, plan: Plan | None) -> None:
    """Print each message and, below it, the values that it brought and how the steps stand after it.

    Of a run with very many steps that is said after some of the messages only: it takes time in proportion to them.
    """
    run, out, silent = RunFold(), console(), 0
    for number, entry in enumerate(log.entries, start=1):
        run.apply(entry)
        out.print(log_line(entry, log.entries[0].at, number), soft_wrap=True)
        for line in brought_lines(log.brought(plan, number), max(out.width, 80) - len(_INDENT)):
            out.print(Text.assemble(_INDENT, line), soft_wrap=True)
        silent += 1
        if silent * _STEPS_A_MESSAGE >= run.count or number == len(log.entries):
            silent = 0
            out.print(Text(f"{_INDENT}{in_brief(rows_of(run.state, plan))}", "dim"), soft_wrap=True)
    if run.state.rehearsed:
        console(stderr=True).print(rehearsal_line(), soft_wrap=True)


def _step_through(log: _Log, plan: Plan | None) -> None:
    """Show one message and the state after it; keys move. It leaves the terminal as it was."""
    fd, stepping = sys.stdin.fileno(), Stepping([_searched(entry) for entry in log.entries])
    with single_keys(fd), Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(_page(log, stepping.at, plan, live.console.size, stepping.line), refresh=True)
            if not stepping.press(read_key(fd)):
                return


def _searched(entry: Entry) -> str:
    """Return what a search looks at: a message as it is shown, and as it is."""
    return f"{one_line(entry)} {entry.subject} {entry.data[:_SEARCHED_MAX].decode(errors='replace')}"


def _page(log: _Log, number: int, plan: Plan | None, size: ConsoleDimensions, line: str) -> Group:
    entries = log.entries
    entry, state = entries[number - 1], fold(entries[:number])
    steps = len(plan.order) if plan is not None else 0
    rows = rows_of(state, plan, now=entry.at, children_max=room_for(size.height - _LINES_BESIDE - steps))
    return Group(
        header(state, entry.at),
        Text(),
        Text(f"message {number} of {len(entries)}", "bold"),
        Text(line, "dim", no_wrap=True, overflow="ellipsis"),
        Text(),
        log_line(entry, entries[0].at),
        Text(f"{entry.subject}  seq {entry.seq}, {len(entry.data):,} bytes", "dim", no_wrap=True, overflow="ellipsis"),
        Text(),
        steps_table(rows),
        *waits_of(rows),
        Text(),
        Text(totals(state, rows), "dim"),
        *([rehearsal_line()] if state.rehearsed else []),
        Text(),
        brought_table(log.brought(plan, number), size.width),
    )


def _facts(log: _Log, number: int, state: RunState, plan: Plan | None) -> dict[str, Any]:
    entry = log.entries[number - 1] if number else None
    said = {"seq": entry.seq, "at": entry.at, "subject": entry.subject, "says": one_line(entry)} if entry else None
    brought = [brought_facts(each) for each in log.brought(plan, number)]
    return {
        "after": number,
        "message": said,
        "brought": brought,
        "state": run_facts(state, rows_of(state, plan)),
    }
