"""The steps of a run as rows of a table, the branches of a fan-out as one. Pure; `view.py` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from baton_schemas.check import check_flow
from baton_schemas.errors import SchemaError
from baton_schemas.flow import decode_flow
from baton_schemas.messages import Error
from baton_schemas.names import step_of
from baton_schemas.plan import Plan
from baton_schemas.state import RunState, StepState

RowStatus = Literal["waiting", "joining", "queued", "running", "done", "failed", "skipped", "dropped"]
"""Those of `StepStatus`, and `waiting`: nothing in the log yet; `running`: a worker says so, or some branches are done.
"""

_OPEN = frozenset({"joining", "queued"})


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step, or all branches of one."""

    step: str
    status: RowStatus = "waiting"
    ended: int = 0
    failed: int = 0
    count: int = 0
    """Branches: how many have ended, how many of those failed, and how many there are; 0 for a single step."""
    arrived: int = 0
    expected: int = 0
    """A step that joins: how many branches have replied, of how many."""
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
    reason: str = ""
    error: Error | None = None
    """Why it failed, or why its last attempt did."""


def plan_of(state: RunState) -> Plan | None:
    """Return the plan of the flow that the log carries; None when it carries none that this release can read."""
    if state.flow_body is None:
        return None
    try:
        return check_flow(decode_flow(state.flow_body))
    except (msgspec.DecodeError, ValueError, SchemaError):
        return None


def rows_of(
    state: RunState, plan: Plan | None, *, running: Mapping[str, int] | None = None, now: datetime | None = None
) -> list[Row]:
    """Return a row for each step, in the order in which they are done.

    `running` are the attempts of steps that workers say they are doing; `now` is for the time of open steps.
    """
    names = list(plan.order) if plan else []
    members: dict[str, list[StepState]] = {name: [] for name in names}
    for step in state.steps.values():
        name = step.name if step.name in members else step_of(step.name)
        members.setdefault(name, []).append(step)
    rows = []
    for name, found in members.items():
        fans = bool(plan.flow.steps[name].each) if plan and name in plan.flow.steps else found[0].name != name
        join = _join_of(name, plan, state)
        rows.append(_row(name, found, fans, join, running or {}, now, over=state.result is not None))
    return rows


def _join_of(name: str, plan: Plan | None, state: RunState) -> StepState | None:
    """Return the step that waits for this one alone, so that what it expects is how many branches there are."""
    successors = plan.successors.get(name, ()) if plan else ()
    alone = len(successors) == 1 and plan is not None and len(plan.sources[successors[0]]) == 1
    return state.steps.get(successors[0]) if alone else None


def _row(
    name: str,
    members: Sequence[StepState],
    fans: bool,
    join: StepState | None,
    running: Mapping[str, int],
    now: datetime | None,
    *,
    over: bool,
) -> Row:
    if not members:
        return Row(step=name, status="dropped" if over else "waiting")
    branches = [step for step in members if step.name != name] if fans else []
    count = max(len(branches), join.expected if join and branches else 0)
    works = [step.work for step in members if step.work]
    usages = [work.usage for work in works if work.usage]
    costs = [work.cost_usd for work in works if work.cost_usd is not None]
    last_error = next((step.error for step in members if step.status == "failed" and step.error), None)
    return Row(
        step=name,
        status=_status(members, count, running),
        ended=sum(1 for step in branches if step.status not in _OPEN and step.status != "dropped"),
        failed=sum(1 for step in branches if step.status == "failed"),
        count=count,
        arrived=sum(step.arrived for step in members),
        expected=sum(step.expected for step in members),
        attempts=max(max(step.attempts, running.get(step.name, 0)) for step in members),
        retries=sum(step.retries for step in members),
        input_tokens=sum(u.input_tokens + u.cache_read_tokens + u.cache_write_tokens for u in usages),
        output_tokens=sum(u.output_tokens for u in usages),
        cost_usd=sum(costs) if costs else None,
        elapsed_s=_elapsed_s(members, now),
        model=next((work.model for work in works if work.model), ""),
        rehearsed=any(work.rehearsed for work in works),
        truncated=any(step.truncated for step in members),
        reason=next((step.reason for step in members if step.reason), ""),
        error=last_error or next((step.error for step in members if step.error), None),
    )


def _status(members: Sequence[StepState], count: int, running: Mapping[str, int]) -> RowStatus:
    statuses = {step.status for step in members}
    if not count:
        (first, *_) = members
        return "running" if first.status == "queued" and first.name in running else first.status
    if "dropped" in statuses:
        return "failed" if "failed" in statuses else "dropped"
    if statuses & _OPEN or len(members) < count:
        begun = statuses - _OPEN or any(step.name in running for step in members)
        return "running" if begun else "queued"
    return "failed" if statuses == {"failed"} else "done"


def _elapsed_s(members: Sequence[StepState], now: datetime | None) -> float | None:
    queued = [step.queued_at for step in members if step.queued_at]
    if not queued:
        return None
    ended = [step.ended_at for step in members if step.ended_at]
    is_open = any(step.status in _OPEN for step in members)
    end = now if is_open else max(ended, default=None)
    return max((end - min(queued)).total_seconds(), 0.0) if end else None
