"""One step of a run, as it is seen by people: what it was given and asked, the attempts at it, what it gave."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from baton_schemas.errors import UnknownStep
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.prompts import Filled
from baton_schemas.run.child_runs import runs_asked
from baton_schemas.run.refs import parse, whole
from baton_schemas.run.state import RunState, StepState
from baton_schemas.wire.facts import Exchange, ModelCall, Spent
from baton_schemas.wire.messages import AskedKind
from baton_schemas.wire.outcomes import Error, Value

from .asked import Asked
from .attempts import Attempt
from .children import Child, Children, asked_with, is_child
from .tool_calls import ToolSeen

SeenStatus = Literal["waiting", "joining", "queued", "running", "done", "failed", "skipped", "dropped"]


_ASKED_WIDE = 60
"""Characters of what a child was asked, in the list of all that a step asked for."""


class BranchSeen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One branch of a fan-out, in a line."""

    step: str
    status: SeenStatus
    attempts: int = 0
    error: Error | None = None
    runs: list[str] = []
    """The runs that it asked for."""


class ChildSeen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that a step asked for, in a line."""

    label: str
    """What people call it: `researcher #3`."""
    step: str
    """Its name in the log."""
    kind: AskedKind = "agent"
    asked: str = ""
    """In a few words."""
    status: SeenStatus
    attempts: int = 0
    elapsed_s: float | None = None
    """From when it was asked to its answer; None while it is open."""
    answered_by: str = ""
    reused: bool = False
    """It was answered in the run that this one goes on from."""
    error: Error | None = None


class RecordedSeen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value that a handler recorded."""

    name: str
    number: int = 1
    value: Value


class StepSeen(Struct, frozen=True, kw_only=True):
    """All that there is to see of a step, or of one branch of it."""

    run: str
    flow: str
    step: str
    of: str
    """The step of the flow: itself, unless it is a branch."""
    status: SeenStatus
    says: str
    """How it stands, as a sentence without a full stop."""
    agent: str = ""
    handler: str = ""
    person: str = ""
    """The role that does it, of an agent that is a person."""
    runs_flow: str = ""
    """The flow that its agent is, and each step of it a run."""
    actor: str = ""
    index: int | None = None
    count: int = 0
    """Of a branch: which of how many. Of a fan-out: how many it has, as far as the log says."""
    state: StepState | None = None
    values: dict[str, Value]
    """What it read; a `Blob` where that is kept beside the log and was not fetched."""
    missing: tuple[str, ...] = ()
    """Branches that it joins and that are not in the log any more."""
    asked: Asked | None = None
    """What its model was asked, or is to be; None for a handler, and where a value is not at hand."""
    filled: tuple[tuple[Filled, ...], tuple[Filled, ...]] = ((), ())
    """The system prompt and the prompt of `asked`, with what of them came from which placeholder."""
    recorded: tuple[str, ...] = ()
    """The hashes of what its model was sent, as the log has them, the last one first."""
    proof: str = ""
    """The one among them which says that `asked` is what was sent; empty when none does."""
    calls: list[ModelCall]
    tools: list[ToolSeen] = []
    """What its model called: functions, and tools of MCP servers."""
    exchanges: list[Exchange] = []
    """What its handler's own client was answered, each with its body inline where that was fetched."""
    spent: list[Spent]
    attempts: list[Attempt]
    branches: list[BranchSeen]
    """Of a fan-out, those that the log names."""
    people: list[StepState] = []
    """What it asked people, and which events it waited for."""
    output: Value | None = None
    error: Error | None = None
    label: str = ""
    """Of a child: what people call it, `researcher #3`."""
    kind: AskedKind | None = None
    """Of a child: who answers."""
    asked_by: str = ""
    """Of a child: who asked for it, as people call it."""
    asker: str = ""
    """The same, as the log names it."""
    child_run: str = ""
    """Of a child that is a flow: the run in which it is done."""
    answered_by: str = ""
    answer_note: str = ""
    """Of a person's answer: who gave it, and with which note."""
    children: list[ChildSeen] = []
    """What it asked for, in the order of the log."""
    unasked: int = 0
    """How many of them it asked for before, and not when it was done last."""
    recorded_values: list[RecordedSeen] = []
    """What its handler recorded."""
    lacking: dict[str, str] = {}
    """Why what is kept beside the log was not fetched (`gone`, `not fetched`), by its SHA-256."""
    runs: list[str] = []
    """The runs that it asked for."""
    reused_from: str = ""
    """The run in which it was done."""


def step_of(plan: Plan, state: RunState, name: str) -> str:
    """Return the step, branch or child (`researcher#3`) that a person means by a name. Raises `UnknownStep`."""
    children = Children(state)
    if name not in plan.steps and (child := children.find(name)):
        return child
    asked, count = children.count(name)
    if name not in plan.steps and count:
        hint = f"{asked!r} was asked {count:,} times: {asked}#1 to {asked}#{count}." if count > 1 else ""
        raise UnknownStep(state.run, name, plan.order, hint=hint or f"{asked!r} was asked once: {asked}#1.")
    if name in plan.steps or ((name in state.steps or branches_of(state, name)) and not is_child(name)):
        if plan.name_of(name) in plan.steps:
            return name
        raise UnknownStep(state.run, name, plan.order)
    ref = parse(name)
    if ref.name in plan.steps and ref.index is not None:
        raise UnknownStep(state.run, name, plan.order, hint=_branches_there(plan, state, ref.name))
    raise UnknownStep(state.run, name, plan.order)


def _branches_there(plan: Plan, state: RunState, step: str) -> str:
    if not plan.step(step).each:
        return f"{step!r} is one step, without branches."
    count = count_of(state, step)
    if not count:
        return f"{step!r} is a fan-out over {plan.step(step).each}, which has no branches so far."
    return f"{step!r} has {count:,} {'branch' if count == 1 else 'branches'}: {step}-0" + (
        f" to {step}-{count - 1}." if count > 1 else "."
    )


def count_of(state: RunState, step: str) -> int:
    """Return how many branches of a fan-out, in one round, the log names."""
    return len(_branches_in(state, step))


def branches_of(state: RunState, base: str) -> list[BranchSeen]:
    """Return the branches of a fan-out, in one round, that the log names, in their order."""
    steps = [state.steps[name] for _, name in sorted(_branches_in(state, base))]
    runs = runs_asked(state)
    return [
        BranchSeen(
            step=step.name,
            status=step.status,
            attempts=step.attempts,
            error=step.error,
            runs=runs.get(step.name, []),
        )
        for step in steps
    ]


def _branches_in(state: RunState, base: str) -> list[tuple[int, str]]:
    """Return the branches of a fan-out, in one round, by their indices."""
    refs = ((parse(name), name) for name in state.steps if name != base and whole(name) == base)
    return [(ref.index, name) for ref, name in refs if ref.index is not None and not ref.key]


def children_of(children: Children, step: str) -> list[ChildSeen]:
    """Return what a step asked for, in the order of the log."""
    return [_seen(child) for child in children.of(step)]


def _seen(child: Child) -> ChildSeen:
    step = child.step
    elapsed_s = (step.ended_at - step.queued_at).total_seconds() if step.ended_at and step.queued_at else None
    return ChildSeen(
        label=child.label,
        step=step.name,
        kind=step.asked or "agent",
        asked=asked_with(step, _ASKED_WIDE),
        status=step.status,
        attempts=step.attempts,
        elapsed_s=elapsed_s,
        answered_by=step.answered_by,
        reused=step.reused,
        error=step.error if step.status == "failed" else None,
    )
