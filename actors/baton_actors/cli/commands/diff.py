"""`baton diff`: where two runs part. It writes nothing."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from baton_actors.cli import completing
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument
from baton_actors.cli.exported import names_file, read_exported
from baton_actors.cli.output import print_json, state_of
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.show.diff_page import STEPS_SHOWN, diff_page
from baton_bus.client.runs import find_run, read_last
from baton_bus.client.seen import fetch_small
from baton_bus.store.bus import Bus
from baton_schemas.show.compared import Run
from baton_schemas.show.differ import Difference, differ
from baton_schemas.show.differ_words import prompts_of
from baton_schemas.wire.outcomes import Blob

_FETCH_MAX_BYTES = 1024 * 1024
"""Of one value beside the log that is fetched to be compared word by word; larger ones are told apart by their hash."""

_Either = typer.Argument(
    metavar="RUN|FILE",
    help="An id, or its start or end; or a file made by `baton export`.",
    autocompletion=completing.runs,
)
_Other = typer.Argument(
    metavar="RUN|FILE",
    help="The later one; without it the first is compared with the run that it goes on from.",
    show_default=False,
    autocompletion=completing.runs,
)


@command()
async def diff(
    place: Place,
    before: Annotated[str, _Either],
    after: Annotated[str, _Other] = "",
    json: o.Json = False,
) -> int:
    """Say where two runs part: input, flow, and the first step that differs.

    Of that step it shows what it read, was asked and put out in both; then all steps that differ, and what both cost.
    One run alone is compared with the one that it goes on from.
    """
    async with AsyncExitStack() as stack:
        needs_bus = not (names_file(before) and names_file(after))  # the run before a file's is on the bus
        bus = await stack.enter_async_context(place.bus(reads=True)) if needs_bus else None
        old = await _read(bus, before)
        if after:
            new = await _read(bus, after)
        else:
            old, new = await _read(bus, _origin(old)), old
        found = differ(old, new)
        if bus is not None and (found.steps or found.input):
            # What is kept beside the log is told apart by its hash, and is fetched where it is shown.
            old, new = await _with_values(bus, old, found), await _with_values(bus, new, found)
            found = differ(old, new)
    prompts = prompts_of(old, new, found.first)
    if json:
        facts = msgspec.to_builtins(found, builtin_types=(msgspec.Raw,), str_keys=True)
        print_json(facts | {"first": found.first.step if found.first else None, "prompts": prompts})
    else:
        out = console()
        out.print(diff_page(found, prompts, out.width))
    return OK


def _origin(run: Run) -> str:
    """Return the run that one goes on from. Raises `BadArgument` for one that goes on from none."""
    if not run.state.forked_from:
        raise BadArgument(f"run {run.state.run} goes on from no other: name two runs, `baton diff RUN RUN`")
    return run.state.forked_from


async def _read(bus: Bus | None, name: str) -> Run:
    if bus is None or names_file(name):
        return Run(read_exported(Path(name)))
    head = await find_run(bus, name)
    entries = await read_last(bus, head)
    return Run(entries, state_of(head, entries))


async def _with_values(bus: Bus, run: Run, found: Difference) -> Run:
    """Return a run with what is kept beside the log of its input and of the first steps that differ."""
    blobs: list[Blob] = list(run.state.input_blobs.values())
    for each in found.steps[:STEPS_SHOWN]:
        blobs += run.wanted(each.step)
    fetched = await fetch_small(bus, {blob.sha256: blob for blob in blobs}.values(), _FETCH_MAX_BYTES)
    return Run(run.entries, run.state, fetched)
