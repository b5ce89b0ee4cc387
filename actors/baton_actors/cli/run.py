"""`baton run`: a server if none is named, the actors of one flow, one run, its progress and its output."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from baton_bus import Bus, BusError, connect
from baton_schemas.errors import nearest
from baton_schemas.inputs import check_input, encode_input
from baton_schemas.messages import Result

from ..loading import FoundFlow, find_flow
from ..steward import Steward
from ..supervisor import Supervisor
from .inputs import read_pairs
from .output import error_of, exit_code_of, output_of, print_json, print_output, run_facts
from .place import Place
from .progress import Progress
from .signals import Stop
from .view import elapsed_of, errors_of, plain, rehearsal_line, totals

_CANCEL_S = 2.0
"""Ctrl-C cancels the run first; a server that does not answer in this time must not hold the user up."""
_SETTLE_S = 2.0
"""From the result to the moment when the progress has heard it too: some milliseconds."""


async def run_flow(
    place: Place, stop: Stop, name: str, pairs: Sequence[str], run_id: str, timeout_s: float, as_json: bool
) -> int:
    """Run a flow, show its progress, print its output, and return the exit code."""
    found = find_flow(name)
    given = read_pairs(found.flow, pairs)
    check_input(found.flow, encode_input(given))  # a mistake is told before anything is started
    async with (
        place.server() as settings,
        Supervisor([found], settings, restart=False) as supervisor,
        connect(settings, name="baton run") as bus,
        Steward(bus, {found.flow.name: found.plan}).working(),
    ):
        run = await bus.submit(found.plan, given, run=run_id)
        console = Console(stderr=True, highlight=False)
        progress = Progress(bus, found.plan, run, console, shows=not as_json)
        async with progress.showing():
            result = await _result(bus, stop, supervisor, found, run, timeout_s)
            await progress.settled(_SETTLE_S)
        return await _tell(bus, progress, result, console, as_json)


async def _result(
    bus: Bus, stop: Stop, supervisor: Supervisor, found: FoundFlow, run: str, timeout_s: float
) -> Result:
    """Wait for the result; end the run when the user gives up on it."""
    waiting = asyncio.create_task(bus.result(run, flow=found.flow.name), name=f"result of {run}")
    ...
    return await waiting


async def _tell(bus: Bus, progress: Progress, result: Result, console: Console, as_json: bool) -> int:
    """Print how the run ended: the output on stdout, everything about it on stderr."""
    state, rows = progress.state, progress.rows
    output = await output_of(bus, result)
    if as_json:
        print_json(run_facts(state, rows, output))
        return exit_code_of(result)
    console.print()
    for line in errors_of(rows):
        console.print(line, soft_wrap=True)
    if state.rehearsed:
        console.print(rehearsal_line())
    return exit_code_of(result)
