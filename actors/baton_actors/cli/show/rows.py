"""The steps of a run as rows of a table, the branches of a fan-out as one. Pure; `view.py` draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import name_of
from baton_schemas.run.state import RunState, StepState
from baton_schemas.show.plan import plan_of
from baton_schemas.wire.outcomes import Error

__all__ = ["Row", "RowStatus", "plan_of", "rows_of"]

RowStatus = Literal["waiting", "joining", "queued", "running", "done", "failed", "skipped", "dropped"]
"""Those of `StepStatus`, and `waiting`: nothing in the log yet; `running`: a worker says so, or some branches are done.
"""

_OPEN = frozenset({"joining", "queued"})


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step, or all branches of one."""

    step: str
    status: RowStatus
    ended: int = 0
    failed: int = 0
    count: int = 0
    """Branches: how many have ended, how many of those failed, and how many there are; 0 for a single step."""
    arrived: int = 0
    expected: int = 0
    """A step that joins: how many branches have replied, of how many."""
    reused: int = 0
    """It, or how many of its branches, were done in the run that this one goes on from: no part of what follows."""
    attempts: int = 0
    retries: int = 0
    input_tokens: int = 0
    """All that the model read, from its cache or not."""
    output_tokens: int = 0
    cost_usd: float | None = None
    elapsed_s: float | None = None
    """From its first handoff to its end, or to now; waits and retries included."""
    model: str = ""
    rehearsed: bool = False
    truncated: bool = False
    waits: str = ""
    """What it, or one of its branches, waits for; empty when nothing says that it does."""
    waits_s: float | None = None
    """How long still; None when that is not known."""
    waiting: int = 0
    """Branches that wait for something."""
    reason: str = ""
    error: Error | None = None
    """Why it failed, or why its last attempt did."""


def rows_of(
    state: RunState, plan: Plan | None, *, running: Mapping[str, int] | None = None, now: datetime | None = None
) -> list[Row]:
    """Return a row for each step, in the order in which they are done.

    `running` are the attempts of steps that workers say they are doing; `now` is for the time of open steps.
    """
    names = list(plan.order) if plan else []
    members: dict[str, list[StepState]] = {name: [] for name in names}
    for step in state.steps.values():
        name = step.name if step.name in members else name_of(step.name)
        members.setdefault(name, []).append(step)
    groups = [_Group(name, found, plan, state) for name, found in members.items()]
    return [_row(group, running or {}, now) for group in groups]


class _Group:
    """All that the log says of one step of the flow: itself, or its branches."""

    def __init__(self, name: str, members: Sequence[StepState], plan: Plan | None, state: RunState) -> None:
        step = plan.steps.get(name) if plan else None
        successors = plan.successors.get(name, ()) if plan else ()
        self.name, self.members = name, members
        self.over = state.result is not None
        self.fatal = state.status == "failed" and plan is not None and any(plan.ends_run(name, s) for s in successors)
        """Whether a failure of this step may have been what ended the run."""
        fans = bool(step.each) if step else any(member.name != name for member in members)
        self.branches = [member for member in members if member.name != name] if fans else []
        self.count = max(len(self.branches), state.counts.get(name, 0)) if self.branches else 0

    def status(self, running: Mapping[str, int]) -> RowStatus:
        if not self.members:
            return "dropped" if self.over else "waiting"
        statuses = {member.status for member in self.members}
        if not self.count:
            (status,) = statuses
            return "running" if status == "queued" and self.name in running else status
        missing = bool(statuses & _OPEN) or len(self.members) < self.count
        if "failed" in statuses and (self.fatal or (statuses == {"failed"} and not missing)):
            return "failed"
        if "dropped" in statuses or (missing and self.over):
            return "dropped"
        if missing:
            begun = statuses - _OPEN or any(member.name in running for member in self.members)
            return "running" if begun else "queued"
        return "done"


def _row(group: _Group, running: Mapping[str, int], now: datetime | None) -> Row:
    members = group.members
    ours = [step for step in members if not step.reused]
    works = [step.work for step in ours if step.work]
    usages = [work.usage for work in works if work.usage]
    costs = [work.cost_usd for work in works if work.cost_usd is not None]
    errors = sorted((step for step in members if step.error), key=lambda step: step.status != "failed")
    waits = [step for step in ours if step.name not in running and _waits(step, now)]
    return Row(
        step=group.name,
        status=group.status(running),
        ended=sum(1 for step in group.branches if step.status not in _OPEN and step.status != "dropped"),
        failed=sum(1 for step in group.branches if step.status == "failed"),
        count=group.count,
        arrived=sum(step.arrived for step in members),
        expected=sum(step.expected for step in members),
        reused=len(members) - len(ours),
        attempts=max((max(step.attempts, running.get(step.name, 0)) for step in ours), default=0),
        retries=sum(step.retries for step in ours),
        input_tokens=sum(u.input_tokens + u.cache_read_tokens + u.cache_write_tokens for u in usages),
        output_tokens=sum(u.output_tokens for u in usages),
        cost_usd=math.fsum(costs) if costs else None,
        elapsed_s=_elapsed_s(ours, now),
        model=next((work.model for work in works if work.model), ""),
        rehearsed=any(step.work.rehearsed for step in members if step.work),
        truncated=any(step.truncated for step in members),
        waits=waits[0].waits if waits else "",
        waits_s=_left_s(waits[0], now) if waits else None,
        waiting=len(waits) if group.count else 0,
        reason=next((step.reason for step in members if step.reason), ""),
        error=errors[0].error if errors else None,
    )


def _waits(step: StepState, now: datetime | None) -> bool:
    """Say whether a step waits for something. One whose retry is due does not, whether or not it has begun."""
    left_s = _left_s(step, now)
    return bool(step.waits) and (left_s is None or left_s > 0)


def _left_s(step: StepState, now: datetime | None) -> float | None:
    return (step.due_at - now).total_seconds() if step.due_at and now else None


def _elapsed_s(members: Sequence[StepState], now: datetime | None) -> float | None:
    queued = [step.queued_at for step in members if step.queued_at]
    if not queued:
        return None
    ended = [step.ended_at for step in members if step.ended_at]
    is_open = any(step.status in _OPEN for step in members)
    end = now if is_open else max(ended, default=None)
    return max((end - min(queued)).total_seconds(), 0.0) if end else None
