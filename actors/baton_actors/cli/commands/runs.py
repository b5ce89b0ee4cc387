"""`baton runs`: which runs there are. The index finds them where there is one; what is shown of them is the log's."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK
from baton_actors.cli.output import print_json, state_of
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.show.runs_table import runs_table
from baton_actors.cli.show.size import size_line
from baton_actors.cli.text import plain
from baton_actors.models.run_facts import run_facts
from baton_bus.client.runs import RunHead, find_run, read_last, recent_runs
from baton_bus.client.size import log_size
from baton_bus.index.finding import Wanted
from baton_bus.index.using import Found, find_runs
from baton_bus.store.bus import Bus
from baton_schemas.run.state import RunState
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.show.spending import calls_of
from baton_schemas.show.summary import Summary, summary_of
from baton_schemas.show.times import read_since, short_time
from baton_schemas.wire.names import TOKEN


class Status(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Sort(StrEnum):
    """What comes first: the newest, the dearest, what took longest, what took most tokens."""

    STARTED = "started"
    COST = "cost"
    TIME = "time"
    TOKENS = "tokens"


@command()
async def runs(
    place: Place,
    limit: o.Limit = 20,
    flow: Annotated[str, typer.Option("--flow", metavar="NAME", help="Those of this flow.", show_default=False)] = "",
    status: Annotated[
        list[Status] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Those that stand so: running, done, failed, cancelled or expired; may be given several times.",
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="The same as --status failed.")] = False,
    waiting: Annotated[bool, typer.Option("--waiting", help="Those that wait for people.")] = False,
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Those that began then or later: 1h, 7d, or 2026-11-25 (UTC).",
            show_default=False,
        ),
    ] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="WHEN", help="Those that began before then.", show_default=False)
    ] = "",
    text: Annotated[
        str,
        typer.Option(
            "--text",
            metavar="WORDS",
            help="Those with all of these words, or words that begin so, in their input, output or error.",
            show_default=False,
        ),
    ] = "",
    sort: Annotated[Sort, typer.Option("--sort", help="What comes first.")] = Sort.STARTED,
    of: Annotated[
        str, typer.Option("--of", metavar="RUN", help="Those that steps of this run asked for.", show_default=False)
    ] = "",
    json: o.Json = False,
) -> int:
    """List the latest runs, the newest first; or those that fit.

    Runs that steps of other runs asked for are left out: --of RUN lists those of one. Where `baton index` has made an
    index, all runs are looked through at once; else as much of the log as some seconds allow.
    """
    now = datetime.now(UTC)
    statuses = [Status.FAILED] * failed + (status or [])
    wanted = Wanted(
        limit=limit,
        flow=flow,
        statuses=tuple(dict.fromkeys(each.value for each in statuses)),
        waiting=waiting,
        since=read_since(since, now) if since else None,
        until=read_since(until, now) if until else None,
        text=text,
        order=sort.value,
    )
    async with place.bus(reads=True) as bus:
        parent = (await find_run(bus, of)).run if of else ""
        heads, told = await _heads(bus, replace(wanted, parent=parent), place.index_file(bus.settings), now)
        found = [await _listed(bus, head) for head in heads]
        size = await log_size(bus)
    if json:
        print_json([run_facts(state, rows_of(state, plan_of(state))) | {"summary": row} for state, row in found])
    elif found:
        out = console()
        out.print(runs_table([row for _, row in found], now, out.width))
        out.print()
        out.print(Text(size_line(size, place.free_bytes()), "dim"), soft_wrap=not out.is_terminal)
    elif wanted.has_filter:
        print(f"no run that {parent} asked for fits" if parent else "no run fits", file=sys.stderr)
    elif of:
        print(f"no step of run {parent} has asked for a run", file=sys.stderr)
    else:
        print("no runs yet: `baton run FLOW` makes one", file=sys.stderr)
    for line in told:
        console(stderr=True).print(Text(plain(line), "dim"), soft_wrap=not sys.stderr.isatty())
    return OK


async def _heads(bus: Bus, wanted: Wanted, path: Path, now: datetime) -> tuple[list[RunHead], list[str]]:
    """Return the runs that are wanted, and what is to be said of how they were found."""
    if not wanted.has_filter and not _is_there(path):  # the quickest way to the latest
        return await recent_runs(bus, wanted.limit, parent=wanted.parent), []
    found = await find_runs(bus, wanted, path, now)
    return [row.head for row in found.rows], _said(found, now)


def _is_there(path: Path) -> bool:
    return path.exists()


def _said(found: Found, now: datetime) -> list[str]:
    said = [f"without the index: {found.why}"] if found.why else []
    if not found.all_read:
        back = f", back to {short_time(found.back_to, now)}" if found.back_to is not None else ""
        said.append(
            f"looked through the latest {found.read:,} of {found.messages:,} messages{back}. "
            "`baton index` has all of them looked through"
        )
    return said


async def _listed(bus: Bus, head: RunHead) -> tuple[RunState, Summary]:
    """Return a run and its row; of one whose id no subject of ours can have, only how it began and ended."""
    if TOKEN.match(head.run) and (entries := await read_last(bus, head)):
        state, calls = state_of(head, entries), calls_of(entries)
    else:
        state, calls = state_of(head, []), []
        state = replace(state, status=head.status, started_at=head.started_at, ended_at=head.ended_at)
    return state, summary_of(state, calls, datetime.now(UTC))
