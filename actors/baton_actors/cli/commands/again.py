"""`baton retry` and `baton fork`: a new run that goes on from another, with the steps that it had finished."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Annotated

import typer
from msgspec import Struct
from rich.text import Text

from baton_actors.cli import completing
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument, CommandError
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.rows import plan_of, rows_of
from baton_actors.cli.show.view import console
from baton_actors.cli.text import plain
from baton_actors.cli.waiting import wait_for
from baton_bus import Client
from baton_bus.client.runs import find_run, read_run
from baton_bus.store.bus import Bus
from baton_schemas.errors import nearest
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.fork import Logged, reused, seq_after
from baton_schemas.run.state import Entry, RunState
from baton_schemas.wire.names import check_token


class CannotGoOn(CommandError):
    """No run can go on from this one, or not in this way."""

    def __init__(self, run: str, reason: str, advice: str) -> None:
        """`reason` is what is the matter with `run`, `advice` what to do instead."""
        self.run, self.reason, self.advice = run, reason, advice
        super().__init__(f"{run} {reason}. {advice}")


class _Old(Struct, frozen=True):
    """The run to go on from, as its log has it."""

    state: RunState
    plan: Plan
    entries: list[Entry]
    log: list[Logged]


@command()
async def retry(
    place: Place, run: o.RunNeeded, run_id: o.NewRunId = "", wait: o.Wait = False, json: o.Json = False
) -> int:
    """Go on with a run that failed, from where it broke.

    A new run, which reuses the steps that were done; its id is printed. For cancelled and expired runs too.
    Actors elsewhere do it, as those of `baton submit`.
    """
    _check_id(run_id)
    async with place.client(reads=True) as client:
        old = await _read(client.bus, run)
        run = old.state.run
        if old.state.status == "done":
            advice = f"`baton fork {run} --after STEP` does what comes after a step again"
            raise CannotGoOn(run, "is done, there is nothing to retry", advice)
        if old.state.status == "running":
            advice = f"`baton up` goes on with it, `baton cancel {run}` ends it"
            raise CannotGoOn(run, "has not ended, so it needs no retry", advice)
        return await _go_on(client, old, 0, run_id, wait, json)


@command()
async def fork(
    place: Place,
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
    run_id: o.NewRunId = "",
    wait: o.Wait = False,
    json: o.Json = False,
) -> int:
    """Go on from an earlier point of a run.

    A new run, which reuses the steps that were done by then and does the others again.
    """
    _check_id(run_id)
    if until is not None and after:
        raise BadArgument("--until and --after both say from where to go on: give one of them")
    async with place.client(reads=True) as client:
        old = await _read(client.bus, run)
        until_seq = 0
        if until is not None:
            until_seq = _seq_of(old, until)
        elif after:
            # What a run has reused came into its log all at once: when each step ended, the other run's log says.
            while _is_reused(old, after):
                old = await _read(client.bus, old.state.forked_from)
            until_seq = _seq_after(old, after)
        return await _go_on(client, old, until_seq, run_id, wait, json)


def _check_id(run_id: str) -> None:
    if run_id:
        check_token("run id", run_id)


async def _read(bus: Bus, name: str) -> _Old:
    """Return the run that is meant. Raises `UnknownRun`, `AmbiguousRun`, `CannotGoOn`."""
    head = await find_run(bus, name)
    entries = await read_run(bus, head)
    state = fold(entries)
    plan = plan_of(state)
    if state.flow_body is None:
        advice = "Put right what its reason says (`baton show` has it), and submit it again"
        raise CannotGoOn(head.run, "never began, its task was refused", advice)
    if plan is None:
        raise CannotGoOn(head.run, "has a flow that this release cannot read", "Use the release that it was made with")
    # On whose subject a message is does not matter for which steps are reused.
    log = [Logged(entry.seq, "", entry.message) for entry in entries if entry.message is not None]
    return _Old(state, plan, entries, log)


def _seq_of(old: _Old, number: int) -> int:
    """Return the stream sequence of the message with this number, from 1."""
    if number > len(old.entries):
        raise BadArgument(f"the run has {len(old.entries)} messages: --until {number} is past its end")
    return old.entries[number - 1].seq


def _is_reused(old: _Old, step: str) -> bool:
    found = [state.reused for name, state in old.state.steps.items() if step in (name, old.plan.name_of(name))]
    return bool(found) and all(found)


def _seq_after(old: _Old, step: str) -> int:
    """Return the stream sequence by which a step had ended. Raises `CannotGoOn`."""
    ended = reused(old.plan, old.log)
    steps = {old.plan.name_of(name) for name in ended}
    if step not in ended | steps:
        what = "did not end well there" if step in old.plan.flow.steps else "is no step of its flow"
        if step == old.plan.final and old.state.status == "done":
            what = "is the last step of its flow"
        advice = nearest(step, steps) or "There is none that did: `baton retry` begins anew"
        raise CannotGoOn(old.state.run, f"cannot go on after {step!r}, which {what}", advice)
    return seq_after(old.plan, old.log, step)


async def _go_on(client: Client, old: _Old, until_seq: int, run_id: str, wait: bool, as_json: bool) -> int:
    flow = old.plan.flow.name
    run = (await client.fork(old.state.run, until_seq=until_seq, run_id=run_id)).id
    steps = _in_words(old, reused(old.plan, old.log, until_seq))
    if not as_json:
        print(run, file=sys.stderr if wait else sys.stdout, flush=True)
        out = console(stderr=True)
        out.print(Text(plain(f"forked from {old.state.run}: reuses {', '.join(steps) or 'no step'}")), soft_wrap=True)
        if not wait:
            out.print(Text(f"  baton log {run} --follow   its actors have to be up", "dim"), soft_wrap=True)
    elif not wait:
        print_json({"run": run, "flow": flow, "forked_from": old.state.run, "reused": steps})
    return await wait_for(client, run, flow, as_json) if wait else OK


def _in_words(old: _Old, ended: Collection[str]) -> list[str]:
    """Return the steps that are reused, in the order of the flow; of a fan-out, how many branches if not all."""
    words = []
    for row in rows_of(old.state, old.plan):
        branches = sum(1 for name in ended if name != row.step and old.plan.name_of(name) == row.step)
        if row.step in ended or branches == row.count > 0:
            words.append(row.step)
        elif branches:
            words.append(f"{row.step} {branches}/{row.count}")
    return words
