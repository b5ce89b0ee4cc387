"""`baton run`: a server if none is named, the actors of one flow, one run, its progress and its output."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from baton_bus import Bus, connect
from baton_schemas.inputs import check_input, encode_input
from baton_schemas.messages import Result

from ..loading import find_flow
from ..steward import Steward
from ..supervisor import Supervisor
from .inputs import read_pairs
from .output import exit_code_of, output_of, print_json, print_output, run_facts
from .place import Place, logs
from .progress import Progress
from .signals import Stop
from .view import MARKS, elapsed_of, errors_of, plain, rehearsal_line, totals

_CANCEL_S = 2.0
"""Ctrl-C cancels the run first; a server that does not answer in this time must not hold the user up."""
_SETTLE_S = 2.0
"""From the result to the moment when the progress has heard it too: some milliseconds."""
_GRACE_S = 3.0
"""For steps in hand when the command stops. The run is over or given up by then: nobody waits for them."""


async def run_flow(
    place: Place, stop: Stop, name: str, pairs: Sequence[str], run_id: str, timeout_s: float, as_json: bool
) -> int:
    """Run a flow, show its progress, print its output, and return the exit code."""
    found = find_flow(name)
    given = read_pairs(found.flow, pairs)
    check_input(found.flow, encode_input(given))  # a mistake is told before anything is started
    # What a worker would warn of (retries, failures) is in the progress.
    log_settings = logs(level="error")
    console = Console(stderr=True, highlight=False)
    async with (
        place.server() as settings,
        Supervisor([found], settings, restart=False, logs=log_settings, grace_s=_GRACE_S),
        connect(settings, name="baton run") as bus,
        Steward(bus, {found.name: found.plan}, answers_unknown=False).working(),
    ):
        run = await bus.submit(found.plan, given, run=run_id)
        progress = Progress(bus, found.plan, run, console, shows=not as_json)
        async with progress.showing():
            result = await _result(bus, stop, found.name, run, timeout_s, console)
            await progress.settled(_SETTLE_S)
        output = await output_of(bus, result)
    if as_json:
        print_json(run_facts(progress.state, progress.rows, output))
    else:
        _tell(progress, result, console)
        if output is not None:
            print_output(output)
    return exit_code_of(result)


async def _result(bus: Bus, stop: Stop, flow: str, run: str, timeout_s: float, console: Console) -> Result:
    """Wait for the result. The run is cancelled when the user or the time says so, or no worker can do it."""
    try:
        return await bus.result(run, flow=flow, timeout_s=timeout_s or None)
    except TimeoutError:
        return await bus.cancel(run, f"not done within {timeout_s:g} s (--timeout)")
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):  # the terminal or the bus may be gone; the command ends anyway
            if stop.number in (signal.SIGTERM, signal.SIGHUP):
                # Not the user's word that the work is in vain: what is accepted is kept.
                console.print(f"stopped; {run} goes on with `baton up`, or ends with `baton cancel {run}`")
            else:
                async with asyncio.timeout(_CANCEL_S):
                    await bus.cancel(run, "interrupted by Ctrl-C" if stop.number else "its workers could not go on")
                console.print(f"cancelled {run}")
        raise


def _tell(progress: Progress, result: Result, console: Console) -> None:
    """Say on stderr how the run ended, and where to look closer."""
    state, rows = progress.state, progress.rows
    mark, style = MARKS[result.status]
    ended = Text.assemble((f"{mark} {result.status}", style), f" in {elapsed_of(state)} · ", totals(state, rows))
    lines = errors_of(rows)
    if result.reason:
        lines.append(Text(plain(result.reason), style))
    if state.rehearsed:
        lines.append(rehearsal_line())
    lines += [ended, Text(f"  baton show {state.run}", style="dim")]
    for line in lines:
        console.print(line, soft_wrap=True)
    if console.is_terminal:
        console.print()
