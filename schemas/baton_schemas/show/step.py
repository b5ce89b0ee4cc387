"""One step of a run, as it is seen by people: what it was given and asked, the attempts at it, what it gave."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from baton_schemas.errors import UnknownStep
from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import parse
from baton_schemas.run.state import RunState, StepState
from baton_schemas.wire.facts import ModelCall, Spent
from baton_schemas.wire.outcomes import Error, Value

from .asked import Asked
from .attempts import Attempt

SeenStatus = Literal["waiting", "joining", "queued", "running", "done", "failed", "skipped", "dropped"]


class BranchSeen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One branch of a fan-out, in a line."""

    step: str
    status: SeenStatus
    attempts: int = 0
    error: Error | None = None


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
    recorded: tuple[str, ...] = ()
    """The hashes of what its model was sent, as the log has them, the last one first."""
    proof: str = ""
    """The one among them which says that `asked` is what was sent; empty when none does."""
    calls: list[ModelCall]
    spent: list[Spent]
    attempts: list[Attempt]
    branches: list[BranchSeen]
    """Of a fan-out, those that the log names."""
    output: Value | None = None
    error: Error | None = None
    lacking: dict[str, str] = {}
    """Why what is kept beside the log was not fetched (`gone`, `not fetched`), by its SHA-256."""
    reused_from: str = ""
    """The run in which it was done."""


def step_of(plan: Plan, state: RunState, name: str) -> str:
    """Return the step or branch that a person means by a name. Raises `UnknownStep`."""
    if name in plan.steps or name in state.steps:
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
    """Return how many branches of a fan-out the log names."""
    return sum(1 for name in state.steps if (ref := parse(name)).name == step and ref.index is not None)


def branches_of(state: RunState, base: str) -> list[BranchSeen]:
    """Return the branches of a fan-out that the log names, in their order."""
    found = [(ref.index, name) for name in state.steps if (ref := parse(name)).name == base and ref.index is not None]
    steps = [state.steps[name] for _, name in sorted(found)]
    return [BranchSeen(step=step.name, status=step.status, attempts=step.attempts, error=step.error) for step in steps]
