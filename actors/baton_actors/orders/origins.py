"""The run that a new one goes on from, as its log has it: from where on that can be, and with which flow."""

from __future__ import annotations

from msgspec import Struct

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.errors import ActorError
from baton_actors.orders.present import Present, playable, present_flow
from baton_bus.client.runs import find_run, read_run
from baton_bus.engine.forking import given_to
from baton_bus.store.bus import Bus
from baton_schemas.errors import nearest
from baton_schemas.flow.budgets import with_budget
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.fork import reused, seq_after
from baton_schemas.run.past import Logged
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.children import Children, is_child
from baton_schemas.show.plan import plan_of
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.money import Budget


class CannotGoOn(ActorError):
    """No run can go on from this one, or not in this way."""

    def __init__(self, run: str, reason: str, advice: str) -> None:
        """`reason` is what is the matter with `run`, `advice` what to do instead."""
        self.run, self.reason, self.advice = run, reason, advice
        super().__init__(f"{run} {reason}. {advice}")


class Origin(Struct, frozen=True):
    """The run to go on from, as its log has it."""

    state: RunState
    plan: Plan
    entries: list[Entry]
    log: list[Logged]


class Version(Struct, frozen=True):
    """The flow to go on with."""

    plan: Plan | None = None
    """None for that of the run, unchanged."""
    found: FoundFlow | None = None
    """Where its actors can be started from, if that is known."""
    note: str = ""


async def read_origin(bus: Bus, name: str) -> Origin:
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
    return Origin(state, plan, entries, log)


def version_of(old: Origin, flow: str, same: bool, budget: Budget | None = None) -> Version:
    """Return the flow to go on with: the one that is named, or the present version of the run's own.

    With `same` that one as the run has it. `budget` is what the new run may spend, where somebody says so.

    Raises `UnknownFlow`, `FlowError`, `FlowBroken`.
    """
    source = old.state.source
    present = Present(find_flow(flow)) if flow else Present() if same else present_flow(old.state.flow, source)
    # What somebody allowed the run to spend is in the flow that it has.
    given = budget or _given(old)
    now = with_budget(present.found.plan, given) if present.found is not None else None
    if now is not None and now.digest != with_budget(old.plan, given).digest:
        return Version(now, present.found)
    note = ""
    if present.missing:
        note = f"{present.missing} has no flow {old.state.flow!r} any more: goes on with that of the run"
        note += "; --flow FILE takes another"
    return Version(None, present.found or playable(old.plan, source), note)


def _given(old: Origin) -> Budget | None:
    """Return what whoever started the run allowed it to spend."""
    firsts = (entry.message for entry in old.entries if isinstance(entry.message, Handoff))
    return next(filter(None, map(given_to, firsts)), None)


def has_failed(state: RunState) -> bool:
    """Say whether a step of the flow or a branch has failed. Of a child that did, who asked for it made something."""
    return any(step.status == "failed" and not is_child(step.name) for step in state.steps.values())


def seq_of(old: Origin, number: int) -> int:
    """Return the stream sequence of the message with this number, from 1. Raises `CannotGoOn`."""
    if not 1 <= number <= len(old.entries):
        advice = f"Its messages are 1 to {len(old.entries)}"
        raise CannotGoOn(old.state.run, f"has no message {number}", advice)
    return old.entries[number - 1].seq


def is_reused(old: Origin, step: str) -> bool:
    """Say whether a step, each of its branches, was itself taken over from another run."""
    own = [state for state in old.state.steps.values() if not is_child(state.name)]
    found = [state.reused for state in own if step in (state.name, old.plan.name_of(state.name))]
    return bool(found) and all(found)


def seq_by_which(old: Origin, step: str) -> int:
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


def _who_asked(old: Origin, name: str) -> str:
    """Return the step of the flow for which a child was asked that people call so; empty when there is none."""
    children = Children(old.state)
    step, seen = children.find(name) or children.find(f"{name}#1"), set[str]()
    while is_child(step) and step not in seen and step in old.state.steps:
        seen.add(step)
        step = old.state.steps[step].source
    return old.plan.name_of(step) if seen and step in old.state.steps and not is_child(step) else ""
