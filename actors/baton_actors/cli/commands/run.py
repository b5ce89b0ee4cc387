"""`baton run`: a server if none is named, the actors of one flow, one run, its progress and its output."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Annotated, Any

import typer
from msgspec import Raw
from rich.console import Console
from rich.text import Text

from baton_actors.agents.loading import FoundFlow, find_flow, with_nested
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.earlier import earlier_lines
from baton_actors.cli.exits import BadArgument
from baton_actors.cli.inputs import budget_from, read_input
from baton_actors.cli.output import exit_code_of, output_of, print_json, print_output
from baton_actors.cli.place import Place, logs
from baton_actors.cli.reloading import telling_of_changes
from baton_actors.cli.show.console import MARKS, console
from baton_actors.cli.show.costs import rehearsal_line
from baton_actors.cli.show.lost import Lost
from baton_actors.cli.show.progress import SETTLE_S, Progress
from baton_actors.cli.show.run_page import elapsed_of, totals
from baton_actors.cli.show.said import begin_line, death_teller, teller
from baton_actors.cli.show.step_lines import errors_of
from baton_actors.cli.show.streaming import Streaming
from baton_actors.cli.show.why import look_at
from baton_actors.cli.text import plain
from baton_actors.models.run_facts import run_facts
from baton_actors.processes.forks import begin_imports
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.signals import Stop
from baton_actors.processes.supervisor import Death, Supervisor, preload_of
from baton_actors.services.steward import Steward
from baton_bus import Client, Run, Settings, connect
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Result

_CANCEL_S = 2.0
"""Ctrl-C cancels the run first; a server that does not answer in this time must not hold the user up."""
_SLOW_S = 1.9
"""A worker that imports the SDK takes less, and nobody is to wait for more than two seconds without a word."""
_GRACE_S = 1.0
"""For steps in hand when the command stops: what is not done by then goes back to the log. The user is waiting."""


@command()
async def run(
    place: Place,
    stop: Stop,
    flow: o.Flow,
    pairs: o.Pairs = None,
    run_id: o.RunId = "",
    budget: o.Budget = "",
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", metavar="S", min=0, help="Cancel the run after so many seconds.", show_default=False),
    ] = 0,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="All actors in this process, one step at a time: breakpoint() stops."),
    ] = False,
    stream: o.Stream = False,
    json: o.Json = False,
) -> int:
    """Run a flow and print its output.

    Starts what is needed here and stops it again. The output goes to stdout, progress to stderr, and what handlers
    print too. Exit codes: 0 done, 1 the run failed, 2 bad usage, input or flow, 3 no server, 4 cancelled or expired.
    """
    if stream and debug:
        raise BadArgument("--stream and --debug exclude each other: in front of a debugger, stdout is the handlers'")
    found = find_flow(flow)
    given, may_spend = read_input(found.flow, pairs or [], run_id), budget_from(budget)
    if not debug:
        begin_imports(preload_of(with_nested([found])))
    # What a worker would warn of (retries, failures) is in the progress.
    log_settings = logs(level="error")
    out = console(stderr=True)
    lost = Lost()
    async with (
        place.server() as settings,
        connect(settings, name="baton run") as client,
        _told_of_earlier_work(client, found.plan, out),  # before workers are there that do it
        _debugging(client, found, log_settings, stop, out)
        if debug
        else _workers(found, settings, log_settings, lost, out) as supervisor,
        _told_of_slow_starts(supervisor, out),
        Steward(client.engine, {found.name: found.plan}, answers_unknown=False).working(),
        telling_of_changes([found], "this run goes on with the code that they have", partial(_print, out)),
    ):
        run = await _start(client.start(found.plan, given, run_id=run_id, budget=may_spend), stop, out)
        ended = await _follow(client, found.plan, run, supervisor, lost, stop, out, timeout_s, json=json, stream=stream)
        if not debug:  # before the workers and the server stop: nobody has to wait for that to read an answer
            return _say(*ended, out, json=json)
    return _say(*ended, out, json=json)  # stdout was the handlers' until now


async def playing(
    client: Client, found: FoundFlow, plan: Plan, run: Run, stop: Stop, *, json: bool, stream: bool = False
) -> int:
    """Play the actors of a flow here until a run ends that is in the log already, as `baton run` does.

    `plan` is the version of the flow that the run has. Prints its output, and returns the exit code.
    """
    out = console(stderr=True)
    log_settings, lost = logs(level="error"), Lost()
    async with (
        _workers(found, client.bus.settings, log_settings, lost, out) as supervisor,
        _told_of_slow_starts(supervisor, out),
    ):
        ended = await _follow(client, plan, run, supervisor, lost, stop, out, 0, json=json, stream=stream)
        return _say(*ended, out, json=json)


@contextlib.asynccontextmanager
async def _told_of_earlier_work(client: Client, plan: Plan, out: Console) -> AsyncIterator[None]:
    """Say what is queued for the actors that are about to be played here."""
    for line in await earlier_lines(client.bus, plan):
        _print(out, line)
    yield


@contextlib.asynccontextmanager
async def _told_of_slow_starts(supervisor: Supervisor | None, out: Console) -> AsyncIterator[None]:
    """Say to whoever looks on which actors have not begun to take work, as handlers may be slow to import."""

    async def tell() -> None:
        await asyncio.sleep(_SLOW_S)
        if supervisor is not None and supervisor.starting and out.is_terminal:
            _print(out, Text(f"· waits for {', '.join(supervisor.starting)}: still starting", "dim"))

    teller = asyncio.create_task(tell(), name="slow starts")
    try:
        yield
    finally:
        teller.cancel()
        await asyncio.gather(teller, return_exceptions=True)


def _print(out: Console, line: Text) -> None:
    out.print(line, soft_wrap=not out.is_terminal)


async def _follow(
    client: Client,
    plan: Plan,
    run: Run,
    supervisor: Supervisor | None,
    lost: Lost,
    stop: Stop,
    out: Console,
    timeout_s: float,
    *,
    json: bool,
    stream: bool = False,
) -> tuple[Progress, Result, Raw | None, bool]:
    """Show a run until it ends; return its progress, its result, its output, and whether that is printed already.

    Without `supervisor` its actors are played in this process, for a debugger.
    """
    lost.run = run.id
    streaming = Streaming(plan, out, json=json) if stream else None
    progress = Progress(
        client.bus,
        plan,
        run.id,
        out,
        shows=not json,
        live=supervisor is not None,
        lost=lost,
        streaming=streaming,
    )
    printed = False
    try:
        async with progress.showing():
            if supervisor is not None:
                supervisor.leave_if_failed()
            result = await _result(run, timeout_s)
            await progress.settled(SETTLE_S)
            output = await output_of(client.bus, result)
            if streaming is not None:
                printed = await streaming.end(output)
    except asyncio.CancelledError:
        if streaming is not None:
            streaming.break_off()
        await _give_up(run, stop, out)
        raise
    return progress, result, output, printed


def _say(progress: Progress, result: Result, output: Raw | None, printed: bool, out: Console, *, json: bool) -> int:
    """Print how a run ended, and its output unless it is `printed`; return the exit code."""
    if json:
        print_json(run_facts(progress.state, progress.rows, output))
    else:
        _tell(progress, result, out, printed=printed)
        if output is not None and not printed:
            print_output(output)
    return exit_code_of(result)


async def _start(starting: Coroutine[Any, Any, Run], stop: Stop, out: Console) -> Run:
    """Start the run. What stops the command meanwhile (a worker that cannot start, Ctrl-C) leaves no run behind."""
    task = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):  # it could not be started, or not soon: there is nothing to give up
            async with asyncio.timeout(_CANCEL_S):
                await _give_up(await task, stop, out)
        raise


def _workers(found: FoundFlow, settings: Settings, logs: LogSettings, lost: Lost, out: Console) -> Supervisor:
    """Return the flow's workers, each a process of its own; what they print, and how they die, is shown on `out`."""
    tell_death = death_teller(out, settings.lease_s, lambda: lost.run)

    def on_death(death: Death) -> None:
        lost.add(death.held, settings.lease_s)
        tell_death(death)

    return Supervisor(
        with_nested([found]),
        settings,
        restart=False,
        logs=logs,
        grace_s=_GRACE_S,
        on_printed=teller(out, lambda: lost.run),
        on_death=on_death,
    )


def _debugging(
    client: Client, found: FoundFlow, logs: LogSettings, stop: Stop, out: Console
) -> contextlib.AbstractAsyncContextManager[None]:
    """Return what plays all actors of the flow in this process."""
    from baton_actors.processes.debugging import debugging

    timed = [name for name in found.plan.joins if found.plan.join_policy(name).deadline_s is not None]
    if timed or found.flow.deadline_s is not None:
        out.print("deadlines of the flow go on while you are at the prompt; attempts have no time limit", style="dim")
    return debugging(
        client.engine,
        found,
        logs,
        on_begin=lambda task: out.print(begin_line(task), soft_wrap=True),
        quits=lambda: stop.ask(signal.SIGINT),
        grace_s=_GRACE_S,
    )


async def _result(run: Run, timeout_s: float) -> Result:
    """Wait for the result; cancel the run when it takes longer than it may."""
    try:
        return await run.ended(timeout_s or None)
    except TimeoutError:
        return await run.cancel(f"not done within {timeout_s:g} s (--timeout)")


async def _give_up(run: Run, stop: Stop, out: Console) -> None:
    """Say what becomes of the run when the command is stopped before its end: cancelled, or left in the log."""
    with contextlib.suppress(Exception):  # the terminal or the bus may be gone; the command ends anyway
        if stop.number in (signal.SIGTERM, signal.SIGHUP):
            # Not the user's word that the work is in vain: what is accepted is kept.
            kept = f"stopped; {run.id} goes on with `baton up`, or ends with `baton cancel {run.id}`"
            out.print(kept, soft_wrap=True)
            return
        async with asyncio.timeout(_CANCEL_S):
            await run.cancel("interrupted by Ctrl-C" if stop.number else "its workers could not go on")
        out.print(f"cancelled {run.id}")


def _tell(progress: Progress, result: Result, out: Console, *, printed: bool) -> None:
    """Say on stderr how the run ended, and where to look closer; the output comes next unless it is `printed`."""
    state, rows = progress.state, progress.rows
    mark, style = MARKS[result.status]
    ended = Text.assemble((f"{mark} {result.status}", style), f" in {elapsed_of(state)} · ", totals(state, rows))
    lines = errors_of(rows)
    if result.reason:
        lines.append(Text(plain(result.reason), style))
    if state.rehearsed:
        lines.append(rehearsal_line())
    lines += [ended, Text(f"  {look_at(state, rows)}", style="dim")]
    if result.status == "failed":
        lines.append(Text(f"  baton retry {state.run}   once it is mended", style="dim"))
    for line in lines:
        out.print(line, soft_wrap=not out.is_terminal)
    if out.is_terminal and not printed:
        out.print()
