"""Waiting for a run that a command has started, and telling how it ended."""

from __future__ import annotations

import sys

from baton_actors.cli.nobody import telling
from baton_actors.cli.output import exit_code_of, output_of, print_json, print_output, run_facts
from baton_actors.cli.show.console import console
from baton_actors.cli.show.costs import rehearsal_line
from baton_actors.cli.show.rows import plan_of, rows_of
from baton_actors.cli.show.why import why
from baton_bus import Client
from baton_bus.client.runs import find_run, read_last
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold


async def wait_for(client: Client, run: str, flow: str, as_json: bool, *, plan: Plan, start: str) -> int:
    """Wait until a run ends, print its output or why it has none, and return the exit code.

    What it waits for that nobody plays is said meanwhile; `start` is the command that starts its actors.
    """
    bus, out = client.bus, console(stderr=True)
    async with telling(bus, run, plan, start, lambda line: out.print(line, soft_wrap=True)):
        result = await client.run(run, flow).ended()
    state = fold(await read_last(bus, await find_run(bus, run)))
    output = await output_of(bus, result)
    if state.rehearsed and not as_json:
        console(stderr=True).print(rehearsal_line(), soft_wrap=True)
    if as_json:
        print_json(run_facts(state, rows_of(state, plan_of(state)), output))
    elif output is not None:
        print_output(output)
    else:
        print(f"baton: {why(state)}", file=sys.stderr)
    return exit_code_of(result)
