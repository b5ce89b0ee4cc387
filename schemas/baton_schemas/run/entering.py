"""Entering a step: its handoff, or one for each of its branches, and the deadlines of the joins that it leads to."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Reply, Started
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Failed, Outcome, Skipped, State

from .carry import select
from .child_runs import version_in
from .events import Create, SetTimer, View
from .handoffs import handoff_to, reply_to, to_branch
from .leaving_out import is_left_out, were_left_out
from .rounds import after


def enter(
    view: View,
    run: str,
    step: str,
    cause: Started | After,
    state: State,
    outcome: Outcome | None,
    start_seq: int,
) -> list[Create]:
    """Return the handoff to a step, or one per item when it fans out, or word that it has none, or is left out.

    `step` has its round; `outcome` is that of the step before it.
    """
    plan, name = view.plan, view.plan.name_of(step)
    entry = handoff_to(plan, run, step, cause, select(state, plan.carried[name]), start_seq)
    if not plan.step(name).each:
        return [Create(plan.actor(step), entry)]
    items, skipped = view.lists.get(name, ()), _left_out(view, name, outcome)
    if items and skipped is None:
        at_once = items[: plan.step(name).concurrency or len(items)]
        return [
            Create(plan.actor(step), to_branch(entry, item, index, len(items))) for index, item in enumerate(at_once)
        ]
    if skipped is None:
        why = "the step before it failed" if isinstance(outcome, Failed) else f"{plan.step(name).each!r} is empty"
        skipped = Skipped(reason=why)
    replies: list[Create] = []
    for join in plan.successors[name]:
        kept = select(state, plan.carried[join])
        reply = reply_to(plan, entry, after(plan, step, join), kept, skipped, start_seq)
        replies.append(Create(plan.actor(join), replace(reply, count=0, each=True)))
    return replies


def _left_out(view: View, step: str, outcome: Outcome | None) -> Skipped | None:
    """Return that a fan-out is left out, with the reason; None when it is not."""
    if is_left_out(outcome):
        return Skipped(reason=were_left_out(view.plan.before(step)), left_out=True)
    return Skipped(reason=view.left_out[step], left_out=True) if step in view.left_out else None


def join_timers(view: View, run: str, entered: Sequence[str], state: State, start_seq: int) -> list[SetTimer]:
    """Return the deadlines that begin to run when these steps (or branches) are entered with this state.

    `entered` have their rounds.
    """
    plan = view.plan
    if not plan.timed_joins:
        return []
    found = [(step, join) for step in entered for join in plan.successors[plan.name_of(step)]]
    joins = {after(plan, step, join) for step, join in found if join in plan.timed_joins}
    timers: list[SetTimer] = []
    for join in sorted(joins):
        after_s = plan.join_policy(join).deadline_s
        assert after_s is not None
        reply = Reply(
            v=version_in(run),
            flow=plan.flow.name,
            digest=plan.digest,
            run=run,
            step=join,
            source=DEADLINE,
            count=0,
            state=select(state, plan.carried[plan.name_of(join)]),
            outcome=Skipped(reason=f"the deadline of {after_s:g} s"),
            start_seq=start_seq,
        )
        timers.append(SetTimer(plan.actor(join), run, join, view.now_s + after_s, reply))
    return timers


def spreads(plan: Plan, step: str | None) -> dict[str, str]:
    """Return the fan-outs over a list that come right after a step (None: at the start): step to `each`."""
    names = plan.first if step is None else plan.successors[step]
    return {name: plan.steps[name].each for name in names if plan.steps[name].each}


def spreads_again(plan: Plan, last: str) -> dict[str, str]:
    """Return the fan-out that begins the next round of the loop that `last` ends, if it does: step to `each`."""
    first = plan.first_of_loop(last)
    return {first: plan.step(first).each} if plan.step(first).each else {}
