"""`baton submit` and `baton cancel`: what a client tells the bus."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from baton_actors.agents.loading import find_flow
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import FAILED, OK
from baton_actors.cli.inputs import budget_from, read_input
from baton_actors.cli.nobody import up_command
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.waiting import wait_for
from baton_bus.client.runs import find_run


@command()
async def submit(
    place: Place,
    flow: o.Flow,
    pairs: o.Pairs = None,
    run_id: o.RunId = "",
    budget: o.Budget = "",
    wait: o.Wait = False,
    json: o.Json = False,
) -> int:
    """Start a run and print its id.

    It is durable once the id is there; actors elsewhere do it, now or later.
    """
    found = find_flow(flow)
    given, may_spend = read_input(found.flow, pairs or [], run_id), budget_from(budget)
    async with place.client() as client:
        run = (await client.start(found.plan, given, run_id=run_id, budget=may_spend)).id
        if not wait:
            print_json({"run": run, "flow": found.flow.name}) if json else print(run, flush=True)
            return OK
        if not json:
            print(run, file=sys.stderr, flush=True)
        start = up_command(place, found.source, found.plan)
        return await wait_for(client, run, found.name, json, plan=found.plan, start=start)


@command()
async def cancel(
    place: Place,
    run: o.RunNeeded,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the log.")] = "cancelled by a client",
    json: o.Json = False,
) -> int:
    """End a run that has not ended."""
    async with place.client(reads=True) as client:
        head = await find_run(client.bus, run)
        result = await client.run(head.run).cancel(reason)
    if json:
        print_json({"run": head.run, "status": result.status, "reason": result.reason})
    elif result.status == "cancelled":
        print(f"{head.run} is cancelled", flush=True)
    else:
        print(f"baton: {head.run} had ended before: {result.status}", file=sys.stderr, flush=True)
    return OK if result.status == "cancelled" else FAILED
