"""The start of a run: the one handoff that it begins with, and what that one stands for besides its own step."""

from __future__ import annotations

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Begins, Handoff, Joined, Result, Started
from baton_schemas.wire.names import END
from baton_schemas.wire.outcomes import State

from .carry import select
from .entering import enter, join_timers
from .events import Action, Begun, Create, SetTimer, Submitted, View
from .handoffs import handoff_to, result_of
from .joins import shortfall


def first_of(view: View, event: Submitted) -> Create:
    """Return the handoff that starts a run: it carries the flow and the whole input."""
    plan = view.plan
    actor, first = _opening(view, event.run, event.state, 0)[0]
    assert isinstance(first, Handoff), "a flow that passed check_flow starts with a handoff"
    begins = Begins(
        flow_body=Raw(plan.body),
        deadline_s=event.deadline_s,
        source=plan.source,
        parent=event.parent,
        budget=event.budget,
    )
    cause = Started(begins=begins, joined=first.cause if isinstance(first.cause, Joined) else None)
    return Create(actor, replace(first, v=max(first.v, plan.version), cause=cause, state=event.state))


def begun(view: View, event: Begun) -> list[Action]:
    """Return what the first handoff stands for besides its own step: deadlines, and the other first messages."""
    plan, first = view.plan, event.first
    assert isinstance(first.cause, Started)
    begins = first.cause.begins
    assert begins is not None
    actions: list[Action] = []
    if begins.deadline_s:
        due_s = event.stored_at_s + begins.deadline_s
        expired = _expiry(plan, first, event.seq)
        if view.now_s >= due_s:
            return [Create("", expired)]
        actions.append(SetTimer(plan.flow.name, first.run, END, due_s, expired))
    at_once = _joins_begun(view)
    timers = join_timers(view, first.run, plan.first, first.state, event.seq)
    actions += [timer for timer in timers if timer.step not in at_once]
    if plan.starts_many:
        for actor, message in _opening(view, first.run, first.state, event.seq)[1:]:
            # In a run that goes on from another, these steps may be done.
            forked = begins.origin is not None and isinstance(message, Handoff)
            actions.append(Create(actor, replace(message, copied=True) if forked else message))
    return actions


def _expiry(plan: Plan, first: Handoff, start_seq: int) -> Result:
    """Return the result of a run whose deadline has passed."""
    assert isinstance(first.cause, Started)
    deadline_s = first.cause.begins.deadline_s if first.cause.begins else 0.0
    result = result_of(plan, first.run, "", None, start_seq)
    return replace(result, status="expired", reason=f"the deadline of {deadline_s:g} s")


def _opening(view: View, run: str, state: State, start_seq: int) -> list[Create]:
    """Return the first messages of a run, handoffs before replies. A join that waits for nothing begins at once."""
    plan, at_once = view.plan, _joins_begun(view)
    created: list[Create] = []
    for step in plan.first:
        created += enter(view, run, step, Started(), state, None, start_seq)
    created = [item for item in created if isinstance(item.message, Handoff) or item.message.step not in at_once]
    for step in at_once:
        sources = plan.sources[step]
        left_out = {source: view.left_out[source] for source in sources if source in view.left_out}
        error = shortfall(plan, step, 0, 0, len(left_out)) if len(left_out) < len(sources) else None
        cause = Joined(counts=dict.fromkeys(sources, 0), error=error, left_out=left_out)
        kept = select(state, plan.carried[step])
        created.append(Create(plan.actor(step), handoff_to(plan, run, step, cause, kept, start_seq)))
    created.sort(key=lambda item: not isinstance(item.message, Handoff))
    return created


def _joins_begun(view: View) -> list[str]:
    """Return the joins that wait for nothing but fan-outs without branches: the run starts with them."""
    plan = view.plan
    if not plan.starts_many:
        return []
    fan_outs = [step for step in plan.first if plan.step(step).each]
    empty = {step for step in fan_outs if step in view.left_out or not view.lists.get(step)}
    return [step for step in plan.steps if plan.sources[step] and empty.issuperset(plan.sources[step])]
