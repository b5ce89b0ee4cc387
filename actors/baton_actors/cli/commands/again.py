"""`baton retry` and `baton fork`: a new run that goes on from another, with the steps that it had finished."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace
from rich.text import Text

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.cli import completing
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.commands.run import playing
from baton_actors.cli.exits import OK, BadArgument, CommandError
from baton_actors.cli.going import Going, going_on_from
from baton_actors.cli.nobody import left_to_play, nobody_lines, up_command
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.present import Present, playable, present_flow, shown_source
from baton_actors.cli.show.changes import again_line, changes_line, failed_lines
from baton_actors.cli.show.rows import plan_of, rows_of
from baton_actors.cli.show.view import console
from baton_actors.cli.text import plain
from baton_actors.cli.waiting import wait_for
from baton_actors.processes.signals import Stop
from baton_bus import Client
from baton_bus.client.runs import find_run, read_run
from baton_bus.store.bus import Bus
from baton_schemas.errors import nearest
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.fork import reused, seq_after
from baton_schemas.run.past import Logged
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.children import Children, is_child
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


class _Version(Struct, frozen=True):
    """The flow to go on with."""

    plan: Plan | None = None
    """None for that of the run, unchanged."""
    found: FoundFlow | None = None
    """Where its actors can be started from, if that is known."""
    note: str = ""


class _Asked(Struct, frozen=True):
    """How to go on."""

    until_seq: int = 0
    failed: bool = False
    run_id: str = ""
    wait: bool = False
    json: bool = False


@command()
async def retry(
    place: Place,
    stop: Stop,
    run: o.RunNeeded,
    flow: o.OtherFlow = "",
    same: o.Same = False,
    run_id: o.NewRunId = "",
    wait: o.Wait = False,
    json: o.Json = False,
) -> int:
    """Go on with a run that failed, from where it broke.

    A new run, which reuses the steps that were done; its id is printed. For cancelled and expired runs too, and for
    those branches of a run that failed without ending it. A flow file that was changed since is used as it is now: what
    the change touches is done again. Actors that are up do it; where none is, on this machine, they are started for it,
    as `baton run` does.
    """
    _check_id(run_id)
    async with place.client(reads=True) as client:
        old = await _read(client.bus, run)
        version = _version(old, flow, same)
        if old.state.status == "running":
            advice = f"`baton up` goes on with it, `baton cancel {old.state.run}` ends it"
            raise CannotGoOn(old.state.run, "has not ended, so it needs no retry", advice)
        failed = old.state.status == "done"
        if failed and not _has_failed(old.state):
            advice = f"`baton fork {old.state.run} --after STEP` does what comes after a step again"
            if version.plan is not None:
                advice = f"`baton fork {old.state.run}` does again what has changed in its flow since"
            raise CannotGoOn(old.state.run, "is done, there is nothing to retry", advice)
        asked = _Asked(failed=failed, run_id=run_id, wait=wait, json=json)
        return await _go_on(client, place, stop, old, version, asked)


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
    wait: o.Wait = False,
    json: o.Json = False,
) -> int:
    """Go on from an earlier point of a run.

    A new run, which reuses the steps that were done by then and does the others again. A flow file that was changed
    since is used as it is now: what the change touches is done again.
    """
    _check_id(run_id)
    if until is not None and after:
        raise BadArgument("--until and --after both say from where to go on: give one of them")
    async with place.client(reads=True) as client:
        old = await _read(client.bus, run)
        version = _version(old, flow, same)
        until_seq = 0
        if until is not None:
            until_seq = _seq_of(old, until)
        elif after:
            # What a run has reused came into its log all at once: when each step ended, the other run's log says.
            meant = old
            while _is_reused(old, after):
                old = await _read(client.bus, old.state.forked_from)
            until_seq = _seq_after(old, after)
            if version.plan is None and old.plan.digest != meant.plan.digest:  # that one had another version
                version = replace(version, plan=meant.plan)
        asked = _Asked(until_seq=until_seq, run_id=run_id, wait=wait, json=json)
        return await _go_on(client, place, stop, old, version, asked)


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


def _version(old: _Old, flow: str, same: bool) -> _Version:
    """Return the flow to go on with: the one that is named, or the present version of the run's own.

    Raises `BadArgument`, `UnknownFlow`, `FlowError`, `FlowBroken`.
    """
    if flow and same:
        raise BadArgument("--flow takes another flow and --same that of the run: give one of them")
    source = old.state.source
    present = Present(find_flow(flow)) if flow else Present() if same else present_flow(old.state.flow, source)
    if present.found is not None and present.found.plan.digest != old.plan.digest:
        return _Version(present.found.plan, present.found)
    note = ""
    if present.missing:
        note = f"{present.missing} has no flow {old.state.flow!r} any more: goes on with that of the run"
        note += "; --flow FILE takes another"
    return _Version(None, present.found or playable(old.plan, source), note)


def _has_failed(state: RunState) -> bool:
    """Say whether a step of the flow or a branch has failed. Of a child that did, who asked for it made something."""
    return any(step.status == "failed" and not is_child(step.name) for step in state.steps.values())


def _seq_of(old: _Old, number: int) -> int:
    """Return the stream sequence of the message with this number, from 1."""
    if number > len(old.entries):
        raise BadArgument(f"the run has {len(old.entries)} messages: --until {number} is past its end")
    return old.entries[number - 1].seq


def _is_reused(old: _Old, step: str) -> bool:
    own = [state for state in old.state.steps.values() if not is_child(state.name)]
    found = [state.reused for state in own if step in (state.name, old.plan.name_of(state.name))]
    return bool(found) and all(found)


def _seq_after(old: _Old, step: str) -> int:
    """Return the stream sequence by which a step had ended. Raises `CannotGoOn`."""
    ended = reused(old.plan, old.log)
    steps = {old.plan.name_of(name) for name in ended}
    if step not in ended | steps:
        if asker := _who_asked(old, step):
            what = f"cannot go on after {step!r}, which {asker} asked for: a run goes on after steps of its flow"
            advice = f"`baton fork {old.state.run} --after {asker}` goes on when that step has ended"
            if asker == old.plan.final or asker not in ended | steps:
                advice = (
                    f"`baton fork {old.state.run} --until N` keeps what is done by a message, and does {asker} again"
                )
            raise CannotGoOn(old.state.run, what, advice)
        what = "did not end well there" if step in old.plan.steps else "is no step of its flow"
        if step == old.plan.final and old.state.status == "done":
            what = "is the last step of its flow"
        advice = nearest(step, steps) or "There is none that did: `baton retry` begins anew"
        raise CannotGoOn(old.state.run, f"cannot go on after {step!r}, which {what}", advice)
    return seq_after(old.plan, old.log, step)


def _who_asked(old: _Old, name: str) -> str:
    """Return the step of the flow for which a child was asked that people call so; empty when there is none."""
    children = Children(old.state)
    step, seen = children.find(name) or children.find(f"{name}#1"), set[str]()
    while is_child(step) and step not in seen and step in old.state.steps:
        seen.add(step)
        step = old.state.steps[step].source
    return old.plan.name_of(step) if seen and step in old.state.steps and not is_child(step) else ""


async def _go_on(client: Client, place: Place, stop: Stop, old: _Old, version: _Version, asked: _Asked) -> int:
    new = await client.fork(
        old.state.run, plan=version.plan, until_seq=asked.until_seq, failed=asked.failed, run_id=asked.run_id
    )
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
        for line in _lines(old, version, going, asked):
            out.print(line, soft_wrap=not out.is_terminal)
    elif not waits:
        print_json(_facts(new.id, plan, old, going))
    if plays:
        assert version.found is not None
        return await playing(client, version.found, plan, new, stop, json=asked.json)
    source = version.found.source if version.found and not version.found.recorded else old.state.source
    start = up_command(place, source, plan)
    if asked.wait:
        return await wait_for(client, new.id, plan.flow.name, asked.json, plan=plan, start=start)
    if not asked.json:
        out.print(Text(f"  baton log {new.id} --follow   its actors have to be up", "dim"), soft_wrap=True)
        for line in nobody_lines(left, start):
            out.print(line, soft_wrap=True)
    return OK


def _lines(old: _Old, version: _Version, going: Going, asked: _Asked) -> list[Text]:
    lines = [Text(plain(version.note))] if version.note else []
    if version.plan is not None and version.found is not None and not version.found.recorded:
        file = shown_source(version.found.source)
        lines.append(changes_line(file, going.changed, going.others))
    if asked.failed:
        lines += failed_lines(rows_of(old.state, old.plan, children_max=0))
    lines.append(Text(plain(f"forked from {old.state.run}: reuses {', '.join(going.reused) or 'no step'}")))
    if going.again:
        lines.append(again_line(going.again))
    return lines


def _facts(run: str, plan: Plan, old: _Old, going: Going) -> dict[str, Any]:
    return {
        "run": run,
        "flow": plan.flow.name,
        "forked_from": old.state.run,
        "reused": going.reused,
        "again": going.again,
        "changed": {agent: [change.key for change in changes] for agent, changes in going.changed.items()},
    }
