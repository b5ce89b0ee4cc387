"""Waiting for a run that a command has started, and telling how it ended."""

from __future__ import annotations

import asyncio
import sys

from msgspec import Raw
from rich.console import Console

from baton_actors.cli.nobody import telling
from baton_actors.cli.output import exit_code_of, output_of, print_json, print_output
from baton_actors.cli.show.console import console
from baton_actors.cli.show.costs import rehearsal_line
from baton_actors.cli.show.progress import SETTLE_S, Progress
from baton_actors.cli.show.streaming import Streaming
from baton_actors.cli.show.why import why
from baton_actors.models.run_facts import run_facts
from baton_bus import Client
from baton_bus.client.runs import find_run, read_last
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.wire.messages import Result


async def wait_for(
    client: Client, run: str, flow: str, as_json: bool, *, plan: Plan, start: str, stream: bool = False
) -> int:
    """Wait until a run ends, print its output or why it has none, and return the exit code.

    What it waits for that nobody plays is said meanwhile; `start` is the command that starts its actors. With `stream`
    the text of its last step is printed as it is written, or all that is said.
    """
    bus, out = client.bus, console(stderr=True)
    async with telling(bus, run, plan, start, lambda line: out.print(line, soft_wrap=True)):
        if stream:
            result, output, printed = await _streamed(client, run, plan, out, as_json)
        else:
            result, printed = await client.run(run, flow).ended(), False
            output = await output_of(bus, result)
    state = fold(await read_last(bus, await find_run(bus, run)))
    if state.rehearsed and not as_json:
        console(stderr=True).print(rehearsal_line(), soft_wrap=True)
    if as_json:
        print_json(run_facts(state, rows_of(state, plan_of(state)), output))
    elif output is not None:
        if not printed:
            print_output(output)
    else:
        print(f"baton: {why(state)}", file=sys.stderr)
    return exit_code_of(result)


async def _streamed(
    client: Client, run: str, plan: Plan, out: Console, as_json: bool
) -> tuple[Result, Raw | None, bool]:
    """Print what is said until a run ends; return its result, its output, and whether that is printed already."""
    streaming = Streaming(plan, out, json=as_json)
    progress = Progress(client.bus, plan, run, out, shows=False, streaming=streaming)
    try:
        async with progress.showing():
            result = await client.run(run, plan.flow.name).ended()
            await progress.settled(SETTLE_S)
            output = await output_of(client.bus, result)
            return result, output, await streaming.end(output)
    except asyncio.CancelledError:
        streaming.break_off()
        raise
