"""`baton submit` and `baton cancel`: what a client tells the bus."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from baton_actors.agents.loading import find_flow
from baton_actors.cli.exits import FAILED, OK
from baton_actors.cli.inputs import read_input
from baton_actors.cli.output import exit_code_of, output_of, print_json, print_output, run_facts
from baton_actors.cli.place import Place
from baton_actors.cli.rows import plan_of, rows_of
from baton_actors.cli.view import why
from baton_bus import Bus
from baton_bus.client.runs import find_run, read_last
from baton_schemas.run.fold import fold


async def submit_run(place: Place, name: str, pairs: Sequence[str], run_id: str, wait: bool, as_json: bool) -> int:
    """Start a run and print its id; with `wait`, print its output instead, the id on stderr."""
    found = find_flow(name)
    given = read_input(found.flow, pairs, run_id)
    async with place.bus() as bus:
        run = await bus.submit(found.plan, given, run=run_id)
        if not wait:
            print_json({"run": run, "flow": found.flow.name}) if as_json else print(run, flush=True)
            return OK
        if not as_json:
            print(run, file=sys.stderr, flush=True)
        return await wait_for(bus, run, found.flow.name, as_json)


async def wait_for(bus: Bus, run: str, flow: str, as_json: bool) -> int:
    """Wait until a run ends, print its output or why it has none, and return the exit code."""
    result = await bus.result(run, flow=flow)
    state = fold(await read_last(bus, await find_run(bus, run)))
    output = await output_of(bus, result)
    if as_json:
        print_json(run_facts(state, rows_of(state, plan_of(state)), output))
    elif output is not None:
        print_output(output)
    else:
        print(f"baton: {why(state)}", file=sys.stderr)
    return exit_code_of(result)


async def cancel_run(place: Place, name: str, reason: str, as_json: bool) -> int:
    """End a run; one that has ended stays as it is, which is told and gives exit code 1 unless it was cancelled."""
    async with place.bus(reads=True) as bus:
        head = await find_run(bus, name)
        result = await bus.cancel(head.run, reason)
    if as_json:
        print_json({"run": head.run, "status": result.status, "reason": result.reason})
    elif result.status == "cancelled":
        print(f"{head.run} is cancelled", flush=True)
    else:
        print(f"baton: {head.run} had ended before: {result.status}", file=sys.stderr, flush=True)
    return OK if result.status == "cancelled" else FAILED
