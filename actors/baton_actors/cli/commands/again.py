"""`baton retry` and `baton fork`: a new run that goes on from another, with the steps that it had finished."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from msgspec import Struct
from rich.text import Text

from baton_actors.cli import completing
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.commands.run import playing
from baton_actors.cli.exits import OK, BadArgument
from baton_actors.cli.inputs import budget_from
from baton_actors.cli.nobody import nobody_lines, up_command
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.changes import again_line, changes_line, failed_lines
from baton_actors.cli.show.console import console
from baton_actors.cli.text import plain
from baton_actors.cli.waiting import wait_for
from baton_actors.orders.again import Again, allow, fork_of, go_on, retry_of
from baton_actors.orders.origins import Origin, read_origin, seq_of
from baton_actors.orders.present import shown_source
from baton_actors.processes.signals import Stop
from baton_bus import Client
from baton_bus.client.left import left_to_play
from baton_schemas.flow.graph import Plan
from baton_schemas.show.going import Going, going_on_from
from baton_schemas.show.rows import rows_of
from baton_schemas.wire.money import Budget, shown_budget
from baton_schemas.wire.names import check_token


class _Asked(Struct, frozen=True):
    """How to go on."""

    run_id: str = ""
    budget: Budget | None = None
    wait: bool = False
    stream: bool = False
    json: bool = False


@command()
async def retry(
    place: Place,
    stop: Stop,
    run: o.RunNeeded,
    flow: o.OtherFlow = "",
    same: o.Same = False,
    run_id: o.NewRunId = "",
    budget: o.Budget = "",
    wait: o.Wait = False,
    stream: o.Stream = False,
    json: o.Json = False,
) -> int:
    """Go on with a run that failed, from where it broke.

    A new run, which reuses the steps that were done; its id is printed. With --budget, one that has not ended may spend
    so much in all, and what it has parked for that goes on. For cancelled and expired runs too, and for those branches
    of a run that failed without ending it. A flow file that was changed since is used as it is now: what the change
    touches is done again. Actors that are up do it; where none is, on this machine, they are started for it, as `baton
    run` does.
    """
    _check(run_id, flow, same)
    may_spend = budget_from(budget)
    async with place.client(reads=True) as client:
        old = await read_origin(client.bus, run)
        if old.state.status == "running" and may_spend is not None:
            waits = wait or stream
            code = await _allow(client, old, may_spend, json=json and not waits, quiet=waits)
            if not waits:
                return code
            start = up_command(place, old.state.source, old.plan)
            return await wait_for(
                client, old.state.run, old.plan.flow.name, json, plan=old.plan, start=start, stream=stream
            )
        again = retry_of(old, flow, same, may_spend)
        asked = _Asked(run_id=run_id, budget=may_spend, wait=wait or stream, stream=stream, json=json)
        return await _go_on(client, place, stop, again, asked)


@command()
async def fork(
    place: Place,
    stop: Stop,
    run: o.RunNeeded,
    until: Annotated[
        int | None,
        typer.Option("--until", min=1, metavar="N", help="Keep what is done by message N, as `baton log` counts."),
    ] = None,
    after: Annotated[
        str,
        typer.Option(
            "--after",
            metavar="STEP",
            help="Keep what is done when STEP has ended.",
            show_default=False,
            autocompletion=completing.steps,
        ),
    ] = "",
    flow: o.OtherFlow = "",
    same: o.Same = False,
    run_id: o.NewRunId = "",
    budget: o.Budget = "",
    wait: o.Wait = False,
    stream: o.Stream = False,
    json: o.Json = False,
) -> int:
    """Go on from an earlier point of a run.

    A new run, which reuses the steps that were done by then and does the others again. A flow file that was changed
    since is used as it is now: what the change touches is done again.
    """
    _check(run_id, flow, same)
    may_spend = budget_from(budget)
    if until is not None and after:
        raise BadArgument("--until and --after both say from where to go on: give one of them")
    async with place.client(reads=True) as client:
        old = await read_origin(client.bus, run)
        if until is not None and until > len(old.entries):
            raise BadArgument(f"the run has {len(old.entries)} messages: --until {until} is past its end")
        until_seq = seq_of(old, until) if until is not None else 0
        again = await fork_of(client.bus, old, after=after, until_seq=until_seq, flow=flow, same=same, budget=may_spend)
        asked = _Asked(run_id=run_id, budget=may_spend, wait=wait or stream, stream=stream, json=json)
        return await _go_on(client, place, stop, again, asked)


def _check(run_id: str, flow: str, same: bool) -> None:
    if run_id:
        check_token("run id", run_id)
    if flow and same:
        raise BadArgument("--flow takes another flow and --same that of the run: give one of them")


async def _allow(client: Client, old: Origin, budget: Budget, *, json: bool, quiet: bool) -> int:
    """Let a run that has not ended spend more; `quiet`, say so on stderr.

    Raises `CannotGoOn` where it has spent that already.
    """
    run, done = old.state.run, await allow(client, old, budget)
    waiting, taken = done.waiting, done.taken
    if json:
        print_json({"run": run, "allowed": budget, "woken": waiting, "taken": taken})
        return OK
    steps = "1 step goes on" if waiting == 1 else f"{waiting} steps go on"
    says = "nothing waited for it" if not waiting else steps if taken else f"{steps} once workers are up"
    print(
        f"{run} may spend {shown_budget(budget)} in all: {says}", file=sys.stderr if quiet else sys.stdout, flush=True
    )
    return OK


async def _go_on(client: Client, place: Place, stop: Stop, again: Again, asked: _Asked) -> int:
    old, version = again.old, again.version
    new = await go_on(client, again, run_id=asked.run_id, budget=asked.budget)
    plan = version.plan or old.plan
    _, first = await client.engine.runs.first(new.id)
    going = going_on_from(old.plan, old.log, rows_of(old.state, old.plan, children_max=0), plan, first)
    left = await left_to_play(client.bus, plan)
    # On a server that is named, others may be about to play, with credentials and code of their own; and what its log
    # names as handlers, anybody may have written who can publish there.
    plays = version.found is not None and bool(left) and not place.named
    waits, out = asked.wait or plays, console(stderr=True)
    if not asked.json:
        print(new.id, file=sys.stderr if waits else sys.stdout, flush=True)
        for line in _lines(again, going):
            out.print(line, soft_wrap=not out.is_terminal)
    elif not waits:
        print_json(_facts(new.id, plan, old, going))
    if plays:
        assert version.found is not None
        return await playing(client, version.found, plan, new, stop, json=asked.json, stream=asked.stream)
    source = version.found.source if version.found and not version.found.recorded else old.state.source
    start = up_command(place, source, plan)
    if asked.wait:
        return await wait_for(client, new.id, plan.flow.name, asked.json, plan=plan, start=start, stream=asked.stream)
    if not asked.json:
        out.print(Text(f"  baton log {new.id} --follow   its actors have to be up", "dim"), soft_wrap=True)
        for line in nobody_lines(left, start):
            out.print(line, soft_wrap=True)
    return OK


def _lines(again: Again, going: Going) -> list[Text]:
    old, version = again.old, again.version
    lines = [Text(plain(version.note))] if version.note else []
    if version.plan is not None and version.found is not None and not version.found.recorded:
        file = shown_source(version.found.source)
        lines.append(changes_line(file, going.changed, going.others))
    if again.failed:
        lines += failed_lines(rows_of(old.state, old.plan, children_max=0))
    lines.append(Text(plain(f"forked from {old.state.run}: reuses {', '.join(going.reused) or 'no step'}")))
    if going.again:
        lines.append(again_line(going.again))
    return lines


def _facts(run: str, plan: Plan, old: Origin, going: Going) -> dict[str, Any]:
    return {
        "run": run,
        "flow": plan.flow.name,
        "forked_from": old.state.run,
        "reused": going.reused,
        "again": going.again,
        "changed": {agent: [change.key for change in changes] for agent, changes in going.changed.items()},
    }
