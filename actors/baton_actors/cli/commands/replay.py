"""`baton replay`: the state of a run after each of its messages, from the bus or from an exported file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument
from baton_actors.cli.keys import read_key, single_keys
from baton_actors.cli.output import print_json, run_facts
from baton_actors.cli.place import Place
from baton_actors.cli.show.rows import plan_of, rows_of
from baton_actors.cli.show.view import console, header, in_brief, log_line, run_page, steps_table, totals, waits_of
from baton_bus.client.runs import find_run, read_run
from baton_schemas.errors import BadMessage
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import RunFold, fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.export import load
from baton_schemas.show.lines import one_line
from baton_schemas.wire.names import TOKEN

_FORWARD, _BACK = frozenset({"right", "n", " ", "\r", "\n", "l", "j"}), frozenset({"left", "p", "\x7f", "h", "k"})
_HELP = "→ next   ← back   g first   G last   q quit"


@command()
def replay(
    place: Place,
    run: Annotated[str, typer.Argument(metavar="[RUN|FILE]", help="A run, or a file made by `baton export`.")] = "",
    until: Annotated[
        int | None, typer.Option("--until", min=0, metavar="N", help="The state after N messages.")
    ] = None,
    json: o.Json = False,
) -> int:
    """Step through a run, message by message.

    On a terminal keys go forward and back through the state after each message; elsewhere all are printed.
    """
    is_file = bool(run) and (Path(run).is_file() or TOKEN.match(run) is None)
    entries = _from_file(Path(run)) if is_file else asyncio.run(_from_bus(place, run))
    if until is not None and until > len(entries):
        raise BadArgument(f"the run has {len(entries)} messages: --until {until} is past its end")
    plan = plan_of(fold(entries))
    if until is not None:
        _print_after(entries[:until], plan, json)
    elif json:
        _print_steps_as_json(entries, plan)
    elif sys.stdin.isatty() and sys.stdout.isatty() and entries:
        _step_through(entries, plan)
    else:
        _print_steps(entries, plan)
    return OK


async def _from_bus(place: Place, name: str) -> list[Entry]:
    async with place.bus(reads=True) as bus:
        return await read_run(bus, await find_run(bus, name))


def _from_file(path: Path) -> list[Entry]:
    """Return the entries of an exported run. Raises `BadMessage`, naming the line."""
    with path.open("rb") as lines:
        entries = [load(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise BadMessage(f"{path} has no messages in it. Export the run again with `baton export`")
    return entries


def _print_after(entries: Sequence[Entry], plan: Plan | None, as_json: bool) -> None:
    state = fold(entries)
    if as_json:
        print_json(_facts(len(entries), entries, state, plan))
        return
    at = entries[-1].at if entries else None
    console().print(run_page(state, rows_of(state, plan, now=at), at))


def _print_steps_as_json(entries: Sequence[Entry], plan: Plan | None) -> None:
    run = RunFold()
    for number, entry in enumerate(entries, start=1):
        run.apply(entry)
        print_json(_facts(number, entries[:number], run.state, plan))


def _print_steps(entries: Sequence[Entry], plan: Plan | None) -> None:
    """Print each message and, below it, how the steps stand after it."""
    run, out = RunFold(), console()
    for number, entry in enumerate(entries, start=1):
        run.apply(entry)
        out.print(log_line(entry, entries[0].at, number), soft_wrap=True)
        out.print(Text(f"      {in_brief(rows_of(run.state, plan))}", "dim"), soft_wrap=True)


def _step_through(entries: Sequence[Entry], plan: Plan | None) -> None:
    """Show one message and the state after it; keys move. It leaves the terminal as it was."""
    fd, at, last = sys.stdin.fileno(), 1, len(entries)
    with single_keys(fd), Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(_page(entries, at, plan), refresh=True)
            match read_key(fd):
                case "q" | "\x1b" | "\x04" | "":
                    return
                case "g" | "home":
                    at = 1
                case "G" | "end":
                    at = last
                case key if key in _FORWARD:
                    at = min(at + 1, last)
                case key if key in _BACK:
                    at = max(at - 1, 1)


def _page(entries: Sequence[Entry], number: int, plan: Plan | None) -> Group:
    entry = entries[number - 1]
    state = fold(entries[:number])
    rows = rows_of(state, plan, now=entry.at)
    return Group(
        header(state, entry.at),
        Text(),
        Text.assemble((f"message {number} of {len(entries)}", "bold"), (f"   {_HELP}", "dim")),
        Text(),
        log_line(entry, entries[0].at),
        Text(f"{entry.subject}  seq {entry.seq}, {len(entry.data):,} bytes", "dim", no_wrap=True, overflow="ellipsis"),
        Text(),
        steps_table(rows),
        *waits_of(rows),
        Text(),
        Text(totals(state, rows), "dim"),
    )


def _facts(number: int, entries: Sequence[Entry], state: RunState, plan: Plan | None) -> dict[str, Any]:
    entry = entries[-1] if entries else None
    said = {"seq": entry.seq, "at": entry.at, "subject": entry.subject, "says": one_line(entry)} if entry else None
    return {"after": number, "message": said, "state": run_facts(state, rows_of(state, plan))}
