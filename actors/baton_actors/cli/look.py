"""`baton runs`, `show`, `log` and `export`: what the log says of runs. They write nothing."""

from __future__ import annotations

import sys
from contextlib import aclosing
from datetime import UTC, datetime

from baton_actors.cli.exits import OK
from baton_actors.cli.output import output_of, print_json, print_output, run_facts
from baton_actors.cli.place import Place
from baton_actors.cli.rows import plan_of, rows_of
from baton_actors.cli.view import console, log_line, run_page, runs_table
from baton_bus.client.runs import find_run, read_last, recent_runs
from baton_schemas.run.fold import fold
from baton_schemas.show.export import dump


async def list_runs(place: Place, limit: int, as_json: bool) -> int:
    """Print the latest runs, the newest first."""
    async with place.bus(reads=True) as bus:
        states = [fold(await read_last(bus, head)) for head in await recent_runs(bus, limit)]
    if as_json:
        print_json([run_facts(state, rows_of(state, plan_of(state))) for state in states])
    elif states:
        console().print(runs_table(states, datetime.now(UTC)))
    else:
        print("no runs yet: `baton run FLOW` makes one", file=sys.stderr)
    return OK


async def show_run(place: Place, name: str, as_json: bool) -> int:
    """Print how a run stands, and its output if it is done."""
    async with place.bus(reads=True) as bus:
        state = fold(await read_last(bus, await find_run(bus, name)))
        output = await output_of(bus, state.result)
    rows = rows_of(state, plan_of(state), now=datetime.now(UTC))
    if as_json:
        print_json(run_facts(state, rows, output))
        return OK
    out = console()
    out.print(run_page(state, rows, datetime.now(UTC)))
    if output is not None:
        out.print()
        print_output(output)
    return OK


async def print_log(place: Place, name: str, follow: bool, as_json: bool) -> int:
    """Print the messages of a run as they are in the log, and with `follow` those that come, up to its result."""
    out, number = console(), 0
    async with place.bus(reads=True) as bus:
        head = await find_run(bus, name)
        read = (
            bus.watch(head.run, start_seq=head.start_seq)
            if follow
            else bus.log.read([bus.subjects.run(head.run)], head.start_seq)
        )
        async with aclosing(read) as entries:
            async for entry in entries:
                number += 1
                if as_json:
                    sys.stdout.buffer.write(dump(entry))
                    sys.stdout.buffer.flush()
                else:
                    out.print(log_line(entry, head.started_at, number), soft_wrap=True)
    return OK


async def export_run(place: Place, name: str) -> int:
    """Write every message of a run as JSON lines."""
    async with place.bus(reads=True) as bus:
        head = await find_run(bus, name)
        async with aclosing(bus.log.read([bus.subjects.run(head.run)], head.start_seq)) as entries:
            async for entry in entries:
                sys.stdout.buffer.write(dump(entry))
    sys.stdout.buffer.flush()
    return OK
