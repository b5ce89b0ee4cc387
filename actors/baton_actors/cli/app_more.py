"""The commands for runs that are over or to come: going on from one, what is dead, and schedules."""

from __future__ import annotations

from typing import Annotated

import typer

from baton_actors.cli import options as o

app = typer.Typer()

_RunToGoOnFrom = Annotated[str, typer.Argument(metavar="RUN", help="An id, or its start or end.")]
_Wait = Annotated[bool, typer.Option("--wait", help="Wait for the result and print the output.")]
_NewId = Annotated[str, typer.Option("--run", metavar="ID", help="The id of the new run: the same id starts it once.")]


@app.command()
def retry(
    run: _RunToGoOnFrom,
    run_id: _NewId = "",
    wait: _Wait = False,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Go on with a run that failed, from where it broke.

    A new run, which reuses the steps that were done; its id is printed. For cancelled and expired runs too.
    Actors elsewhere do it, as those of `baton submit`.
    """
    from baton_actors.cli.again import retry_run
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: retry_run(place, run, run_id, wait, json))


@app.command()
def fork(
    run: _RunToGoOnFrom,
    until: Annotated[
        int | None,
        typer.Option("--until", min=1, metavar="N", help="Keep what is done by message N, as `baton log` counts."),
    ] = None,
    after: Annotated[
        str, typer.Option("--after", metavar="STEP", help="Keep what is done when STEP has ended.", show_default=False)
    ] = "",
    run_id: _NewId = "",
    wait: _Wait = False,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Go on from an earlier point of a run.

    A new run, which reuses the steps that were done by then and does the others again.
    """
    from baton_actors.cli.again import fork_run
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: fork_run(place, run, until, after, run_id, wait, json))


@app.command()
def dead(
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many.")] = 20,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """List failed steps and rejected messages, the newest first."""
    from baton_actors.cli.dead import list_dead
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: list_dead(place, limit, json))


@app.command()
def schedule(
    flow: o.Flow,
    pairs: o.Pairs = None,
    cron: Annotated[
        str,
        typer.Option("--cron", metavar="CRON", help="Again and again: '0 0 6 * * *' is each day at 6:00:00 UTC."),
    ] = "",
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="Once: 2026-11-25T06:00 (local; UTC with a Z), or +10m.")
    ] = "",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Replaces the flow's schedule of that name.")
    ] = "",
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Run a flow at a time to come.

    Either --cron or --at. The broker keeps the time; what came due while it was down comes once when it is up.
    """
    from baton_actors.cli.schedule import schedule_flow
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: schedule_flow(place, flow, pairs or [], cron, at, name, json))


@app.command()
def schedules(
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """List what is scheduled."""
    from baton_actors.cli.schedule import list_schedules
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: list_schedules(place, json))


@app.command()
def unschedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `baton schedules` has it, or FLOW/NAME.")],
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Remove a schedule."""
    from baton_actors.cli.schedule import unschedule as remove
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: remove(place, name, json))
