"""`baton run`: a server if none is named, the actors of one flow, one run, its progress and its output."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from baton_actors.agents.loading import find_flow
from baton_actors.cli.inputs import read_input
from baton_actors.cli.output import exit_code_of, output_of, print_json, print_output, run_facts
from baton_actors.cli.place import Place, logs
from baton_actors.cli.progress import Progress
from baton_actors.cli.view import MARKS, console, elapsed_of, errors_of, plain, rehearsal_line, totals
from baton_actors.processes.signals import Stop
from baton_actors.processes.supervisor import Supervisor
from baton_actors.services.steward import Steward
from baton_bus import Bus, connect
from baton_schemas.wire.messages import Result

_CANCEL_S = 2.0
"""Ctrl-C cancels the run first; a server that does not answer in this time must not hold the user up."""
_SETTLE_S = 2.0
"""From the result to the moment when the progress has heard it too: some milliseconds."""
_GRACE_S = 1.0
"""For steps in hand when the command stops: what is not done by then goes back to the log. The user is waiting."""


async def run_flow(
    place: Place, stop: Stop, name: str, pairs: Sequence[str], run_id: str, timeout_s: float, as_json: bool
) -> int:
    """Run a flow, show its progress, print its output, and return the exit code."""
    found = find_flow(name)
    given = read_input(found.flow, pairs, run_id)
    # What a worker would warn of (retries, failures) is in the progress.
    log_settings = logs(level="error")
    out = console(stderr=True)
    async with (
        place.server() as settings,
        Supervisor([found], settings, restart=False, logs=log_settings, grace_s=_GRACE_S),
        connect(settings, name="baton run") as bus,
        Steward(bus, {found.name: found.plan}, answers_unknown=False).working(),
    ):
        run = await bus.submit(found.plan, given, run=run_id)
        progress = Progress(bus, found.plan, run, out, shows=not as_json)
        try:
            async with progress.showing():
                result = await _result(bus, found.name, run, timeout_s)
                await progress.settled(_SETTLE_S)
        except asyncio.CancelledError:
            await _give_up(bus, stop, run, out)
            raise
        output = await output_of(bus, result)
    if as_json:
        print_json(run_facts(progress.state, progress.rows, output))
    else:
        _tell(progress, result, out)
        if output is not None:
            print_output(output)
    return exit_code_of(result)


async def _result(bus: Bus, flow: str, run: str, timeout_s: float) -> Result:
    """Wait for the result; cancel the run when it takes longer than it may."""
    try:
        return await bus.result(run, flow=flow, timeout_s=timeout_s or None)
    except TimeoutError:
        return await bus.cancel(run, f"not done within {timeout_s:g} s (--timeout)")


async def _give_up(bus: Bus, stop: Stop, run: str, out: Console) -> None:
    """Say what becomes of the run when the command is stopped before its end: cancelled, or left in the log."""
    with contextlib.suppress(Exception):  # the terminal or the bus may be gone; the command ends anyway
        if stop.number in (signal.SIGTERM, signal.SIGHUP):
            # Not the user's word that the work is in vain: what is accepted is kept.
            kept = f"stopped; {run} goes on with `baton up`, or ends with `baton cancel {run}`"
            out.print(kept, soft_wrap=True)
            return
        async with asyncio.timeout(_CANCEL_S):
            await bus.cancel(run, "interrupted by Ctrl-C" if stop.number else "its workers could not go on")
        out.print(f"cancelled {run}")


def _tell(progress: Progress, result: Result, out: Console) -> None:
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
        out.print(line, soft_wrap=True)
    if out.is_terminal:
        out.print()
