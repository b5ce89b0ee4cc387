"""The steps of a run as rows of a table, the branches of a fan-out as one, and below each what it asked for.

Pure; the CLI draws them as a table, the console as a page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import name_of, whole
from baton_schemas.run.rounds import in_round, round_of
from baton_schemas.run.state import RunState, StepState
from baton_schemas.wire.messages import AskedKind
from baton_schemas.wire.outcomes import Error

from .children import Children, asked_with, is_child, parked_upon
from .unfolding import CHILDREN_MAX, Node, awaits, unfold, waits_of_step

RowStatus = Literal["waiting", "joining", "queued", "running", "done", "failed", "skipped", "dropped"]
"""Those of `StepStatus`, and `waiting`: nothing in the log yet; `running`: a worker says so, some branches are done, or
it has asked for something.
"""

_OPEN = frozenset({"joining", "queued"})
_ASKED_WIDE = 40
"""Characters of what a child was asked: enough to tell it from those beside it."""


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step, or all branches of one."""

    step: str
    """As `baton show RUN STEP` takes it: of a child `researcher#3`; of several alike the name that they have."""
    status: RowStatus
    depth: int = 0
    """How many steps ask above it: 0 for a step of the flow."""
    token: str = ""
    """Of a row that is one child: its name in the log."""
    asker: str = ""
    """Of children: who asked for them, as `step` names it."""
    kind: AskedKind | None = None
    """Of children: who answers; `agent` also where they are of several kinds."""
    asked: str = ""
    """Of a child: what it was asked, in a few words."""
    ended: int = 0
    failed: int = 0
    count: int = 0
    """Branches, or children alike: how many have ended, how many of those failed, and how many there are; 0 for a
    single step."""
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
    awaits: str = ""
    """What it asked for and has no answer of, in a few words: `researcher #3`; how many where they are several."""
    hidden: int = 0
    """How many were asked for below it that have no row here: there is no room for so many."""
    parked: bool = False
    """Nobody holds it: it comes back with the answer that it waits for."""
    unasked: int = 0
    """How many children it asked for before, and not when it was done last."""
    reason: str = ""
    error: Error | None = None
    """Why it failed, or why its last attempt did."""
    error_of: str = ""
    """Of children: which of them has this error, as `step` names it."""


def rows_of(
    state: RunState,
    plan: Plan | None,
    *,
    running: Mapping[str, int] | None = None,
    now: datetime | None = None,
    children_max: int = CHILDREN_MAX,
) -> list[Row]:
    """Return a row for each step, in the order in which they are done, and below it those of what it asked for.

    `running` are the attempts of steps that workers say they are doing; `now` is for the time of open steps. Of
    children about `children_max` rows are made, the others being folded; 0 for none.
    """
    groups = _groups(state, plan)
    children = Children(state)
    nodes = [Node(group.members, group.name) for group in groups]
    if children_max and children.by_token:
        nodes += unfold(nodes, children, children.orphans(state), children_max)
        rows = []
        for node, group in zip_longest(nodes, groups):
            rows += _with_children(node, group, children, state, running or {}, now)
        return rows
    return [_row(group, children, running or {}, now) for group in groups]


class Standing(Struct, frozen=True):
    """How a step of the flow stands: some of what its `Row` says."""

    step: str
    status: RowStatus
    count: int
    ended: int
    failed: int


def standings_of(state: RunState, plan: Plan | None, now: datetime | None = None) -> list[Standing]:
    """Return how each step of the flow stands, as `rows_of` says it, in a tenth of the time: for lists of many runs."""
    found = []
    over = state.result is not None
    for name, members in _members(state, plan).items():
        if len(members) == 1 and members[0].name == name and members[0].status != "queued":
            found.append(Standing(name, members[0].status, 0, 0, 0))
            continue
        if not members:
            found.append(Standing(name, "dropped" if over else "waiting", 0, 0, 0))
            continue
        group = _Group(name, members, plan, state)
        status = group.status({})
        if status == "queued" and not group.count:  # whether it has begun, what it asked for says
            status = _row(group, Children(state), {}, now).status
        found.append(Standing(name, status, group.count, group.ended, group.failed))
    return found


def _groups(state: RunState, plan: Plan | None) -> list[_Group]:
    return [_Group(name, found, plan, state) for name, found in _members(state, plan).items()]


def _members(state: RunState, plan: Plan | None) -> dict[str, list[StepState]]:
    """Return what the log has of each step of the flow: the step itself, or its branches."""
    members: dict[str, list[StepState]] = {name: [] for name in (in_order(plan, state) if plan else ())}
    for name, step in state.steps.items():
        if name in members:
            members[name].append(step)
        elif not is_child(name):
            members.setdefault(whole(name), []).append(step)
    return members


def _with_children(
    node: Node,
    group: _Group | None,
    children: Children,
    state: RunState,
    running: Mapping[str, int],
    now: datetime | None,
) -> list[Row]:
    """Return the row of a node and, below it, those of its children."""
    rows: list[Row] = []
    pending: list[tuple[Node, str, _Group | None]] = [(node, "", group)]
    while pending:
        node, asker, group = pending.pop()
        row = _row(group or _Group(node.name, node.members, None, state, of_children=True), children, running, now)
        if node.depth:
            row = replace(row, depth=node.depth, asker=asker, kind=node.kind, **_called(node, children))
        if node.hidden:
            row = replace(row, hidden=node.hidden)
        rows.append(row)
        pending += [(below, row.step, None) for below in reversed(node.below)]
    return rows


def _called(node: Node, children: Children) -> dict[str, str]:
    """Return what the row of children is called, and what was asked."""
    if len(node.members) > 1:
        return {}
    step = node.members[0]
    return {"step": children.written(step.name), "token": step.name, "asked": asked_with(step, _ASKED_WIDE)}


def in_order(plan: Plan, state: RunState) -> list[str]:
    """Return the steps in the order in which they are done; those of a loop round by round, as far as there are any."""
    if not plan.loops:
        return list(plan.order)
    begun = {
        last: max((round_of(name) for name in state.steps if name_of(name) in loop), default=1)
        for last, loop in plan.loops.items()
    }
    found: list[str] = []
    for step in plan.order:
        last = plan.loop_of.get(step)
        if last is None:
            found.append(step)
        elif step == plan.first_of_loop(last):
            loop = [other for other in plan.order if other in plan.loops[last]]
            rounds = min(begun[last], plan.rounds_max(last))  # a stranger's message may say anything
            found += [in_round(other, number) for number in range(1, rounds + 1) for other in loop]
    return found


class _Group:
    """All that the log says of one step of the flow: itself, or its branches; or of children that share a row."""

    def __init__(
        self,
        name: str,
        members: Sequence[StepState],
        plan: Plan | None,
        state: RunState,
        *,
        of_children: bool = False,
    ) -> None:
        base = name_of(name)
        step = plan.steps.get(base) if plan and not is_child(name) else None
        successors = plan.successors.get(base, ()) if plan and not is_child(name) else ()
        self.name, self.members = name, members
        self.over = state.result is not None
        self.fatal = state.status == "failed" and plan is not None and any(plan.ends_run(base, s) for s in successors)
        """Whether a failure of this step may have been what ended the run."""
        fans = bool(step.each) if step else any(member.name != name for member in members)
        self.branches = [member for member in members if member.name != name] if fans else []
        if of_children:
            self.branches = list(members) if len(members) > 1 else []
        self.count = max(len(self.branches), state.counts.get(name, 0)) if self.branches else 0

    @property
    def ended(self) -> int:
        """How many branches have ended."""
        return sum([step.status not in _OPEN and step.status != "dropped" for step in self.branches])

    @property
    def failed(self) -> int:
        """How many of those failed."""
        return sum([step.status == "failed" for step in self.branches])

    def status(self, running: Mapping[str, int]) -> RowStatus:
        if not self.members:
            return "dropped" if self.over else "waiting"
        statuses = {member.status for member in self.members}
        if not self.count:
            # A stranger may name a branch of a step that has none.
            own = next((member for member in self.members if member.name == self.name), self.members[0])
            return "running" if own.status == "queued" and own.name in running else own.status
        missing = bool(statuses & _OPEN) or len(self.members) < self.count
        if "failed" in statuses and (self.fatal or (statuses == {"failed"} and not missing)):
            return "failed"
        if "dropped" in statuses or (missing and self.over):
            return "dropped"
        if missing:
            begun = statuses - _OPEN or any(member.name in running for member in self.members)
            return "running" if begun else "queued"
        return "done"


def _row(group: _Group, children: Children, running: Mapping[str, int], now: datetime | None) -> Row:
    members = group.members
    ours = [step for step in members if not step.reused]
    works = [step.work for step in ours if step.work and step.asked != "flow"]  # that run says what it cost
    usages = [work.usage for work in works if work.usage]
    costs = [work.cost_usd for work in works if work.cost_usd is not None]
    errors = sorted((step for step in members if step.error), key=lambda step: step.status != "failed")
    asked = {step.name: [each for each in children.of(step.name) if each.is_open] for step in ours}
    waits = [
        (step, why, left_s)
        for step in ours
        if step.name not in running and (found := waits_of_step(step, asked[step.name], now))
        for why, left_s in [found]
    ]
    awaited = [each for step in ours if step.status in _OPEN for each in asked[step.name]]
    parked = bool(awaited) and all(parked_upon(step, asked[step.name]) for step in ours if step.status in _OPEN)
    status = group.status(running)
    if status == "queued" and not group.count and not waits and not parked and children.of(members[0].name):
        status = "running"  # it has begun: it asked for something
    return Row(
        step=group.name,
        status=status,
        ended=group.ended,
        failed=group.failed,
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
        waits=waits[0][1] if waits else "",
        waits_s=waits[0][2] if waits else None,
        waiting=len(waits) if group.count else 0,
        awaits=awaits(awaited),
        parked=parked,
        unasked=sum(step.unasked for step in ours),
        reason=next((step.reason for step in members if step.reason), ""),
        error=errors[0].error if errors else None,
        error_of=children.written(errors[0].name) if errors and is_child(errors[0].name) else "",
    )


def _elapsed_s(members: Sequence[StepState], now: datetime | None) -> float | None:
    queued = [step.queued_at for step in members if step.queued_at]
    if not queued:
        return None
    ended = [step.ended_at for step in members if step.ended_at]
    is_open = any(step.status in _OPEN for step in members)
    end = now if is_open else max(ended, default=None)
    return max((end - min(queued)).total_seconds(), 0.0) if end else None
