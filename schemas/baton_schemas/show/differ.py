"""Where two runs part: by input, by flow, and by the first step that was given, asked or put out something else. Pure.

Steps are compared by their names, children by what was asked. Values are the same when they are the same JSON, wherever
they are kept; what a model was asked is compared by the hashes that the logs have of it.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import fields

from baton_schemas.flow.flow import Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.changes import Change, changed_agents
from baton_schemas.run.state import StepState, StepStatus
from baton_schemas.wire.outcomes import Error, Value

from .compared import Pair, Run, pairs, same
from .requests import Requests, requests_of
from .running_order import running_order, together
from .summary import Summary, summary_of


class Side(Struct, frozen=True, kw_only=True):
    """A step in one of the runs."""

    status: StepStatus
    output: Value | None = None
    error: Error | None = None
    reason: str = ""
    """Why it was skipped."""
    model: str = ""
    attempts: int = 0
    cost_usd: float | None = None
    elapsed_s: float | None = None
    """From its handoff to its end."""
    reused: bool = False


class StepDiffers(Struct, frozen=True, kw_only=True):
    """A step that is not the same in both runs."""

    step: str
    before: Side | None
    """None where the run does not name it."""
    after: Side | None
    reads: list[Pair] = []
    """What it read, as far as that differs."""
    asked: int = 0
    """The number of its first request to a model that differs, from 1; 0 for none. With 1 it is the prompt itself."""
    answered: int = 0
    """The number of the first answer that differs, to requests that do not."""
    came_to: bool = False
    """Whether it ended otherwise, or put out something else."""

    @property
    def is_alone(self) -> bool:
        """Whether only one of the runs has it."""
        return self.before is None or self.after is None


class FlowDiffers(Struct, frozen=True, kw_only=True):
    """What of the flow is another in the later run; of what has been added the changes are `[]`."""

    agents: dict[str, list[Change]] = {}
    steps: dict[str, list[Change]] = {}
    gone: list[str] = []
    """Steps that it has no more."""
    is_other: bool = False
    """Whether it is another flow, or one of them cannot be read."""


class Difference(Struct, frozen=True, kw_only=True):
    """Two runs beside each other."""

    before: Summary
    after: Summary
    input: list[Pair]
    flow: FlowDiffers
    steps: list[StepDiffers]
    """Those that differ, in the order in which they are done: the first is where the runs part."""
    alike: int
    """How many steps, branches and children are the same in both."""

    @property
    def first(self) -> StepDiffers | None:
        """Where they part; None where no step differs."""
        return self.steps[0] if self.steps else None


def differ(before: Run, after: Run) -> Difference:
    """Return how two runs differ."""
    old, new = before.state, after.state
    names = together(running_order(before.plan, old), running_order(after.plan, new))
    found = [step_differs(before, after, name) for name in names]
    return Difference(
        before=summary_of(old, before.calls),
        after=summary_of(new, after.calls),
        input=pairs(before.input, after.input),
        flow=_flow(before.plan, after.plan),
        steps=[each for each in found if each is not None],
        alike=sum(1 for each in found if each is None),
    )


def step_differs(before: Run, after: Run, name: str) -> StepDiffers | None:
    """Return how a step differs; None when it does not."""
    old, new = before.state.steps.get(name), after.state.steps.get(name)
    if old is None or new is None:
        return StepDiffers(
            step=name,
            before=side_of(before, old) if old is not None else None,
            after=side_of(after, new) if new is not None else None,
        )
    reads: list[Pair] = []
    asked = answered = 0
    if not (old.reused or new.reused):  # what was reused was given and asked nothing here
        reads = pairs(before.values(name), after.values(name))
        asked, answered = _asked(requests_of(before.of_step.get(name, ())), requests_of(after.of_step.get(name, ())))
    came_to = not _ended_alike(old, new)
    if not (reads or asked or answered or came_to):
        return None
    return StepDiffers(
        step=name,
        before=side_of(before, old),
        after=side_of(after, new),
        reads=reads,
        asked=asked,
        answered=answered,
        came_to=came_to,
    )


def _asked(before: Requests, after: Requests) -> tuple[int, int]:
    """Return the numbers of the first request and of the first answer that differ, whichever comes first; else 0."""
    if before.rehearsed != after.rehearsed:
        return 0, 0  # the hash of what is rehearsed is another one
    for number, (old, new) in enumerate(zip(before.calls, after.calls, strict=False), start=1):
        if old.sha256 != new.sha256:
            return number, 0
        if not same(old.answer, new.answer):
            return 0, number
    return 0, 0


def _ended_alike(old: StepState, new: StepState) -> bool:
    if old.status != new.status:
        return False
    match old.status:
        case "failed":
            return (old.error and str(old.error)) == (new.error and str(new.error))
        case "skipped":
            return old.reason == new.reason
        case _:
            return same(old.blob or old.output, new.blob or new.output)


def side_of(run: Run, step: StepState) -> Side:
    """Return a step of a run as a side of the comparison."""
    elapsed_s = (step.ended_at - step.queued_at).total_seconds() if step.ended_at and step.queued_at else None
    return Side(
        status=step.status,
        output=run.output(step),
        error=step.error,
        reason=step.reason,
        model=step.work.model if step.work else "",
        attempts=step.attempts,
        cost_usd=run.cost_of.get(step.name),
        elapsed_s=max(elapsed_s, 0.0) if elapsed_s is not None else None,
        reused=step.reused,
    )


def _flow(before: Plan | None, after: Plan | None) -> FlowDiffers:
    if before is None or after is None:
        return FlowDiffers(is_other=before is not after)
    old, new = before.flow.steps, after.flow.steps
    steps = {name: _changes(old[name], step) if name in old else [] for name, step in new.items()}
    return FlowDiffers(
        agents=changed_agents(before, after) if before.digest != after.digest else {},
        steps={name: changes for name, changes in steps.items() if changes or name not in old},
        gone=[name for name in old if name not in new],
        is_other=before.flow.name != after.flow.name,
    )


def _changes(old: Step, new: Step) -> list[Change]:
    keys = [field.name for field in fields(Step)]
    return [Change(key, getattr(old, key), getattr(new, key)) for key in keys if getattr(old, key) != getattr(new, key)]
