"""How a step stands, in a sentence: not begun, in a queue, waiting, running, done, failed, skipped, dropped, reused."""

from __future__ import annotations

from datetime import datetime

from baton_schemas.flow.graph import Plan
from baton_schemas.run.asking import waits_for
from baton_schemas.run.state import RunState, StepState

from .lines import seconds
from .step import BranchSeen, SeenStatus, StepSeen, branches_of

_NAMED_MAX = 3
_ENDED = {"done": "was done", "failed": "failed", "cancelled": "was cancelled", "expired": "expired"}


def status_of(state: RunState, own: StepState | None, branches: list[BranchSeen], running: int) -> SeenStatus:
    """Return how a step stands, or all branches of one; `running` is the attempt that a worker says it is making."""
    if own is not None:
        return "running" if own.status == "queued" and running else own.status
    statuses = {branch.status for branch in branches}
    if not branches:
        return "dropped" if state.result is not None else "waiting"
    if len(statuses) == 1:
        return statuses.pop()
    for status in ("dropped", "queued", "failed") if state.result is not None else ("queued", "failed"):
        if status in statuses:
            return "running" if status == "queued" else status
    return "done"


def says_of(plan: Plan, state: RunState, seen: StepSeen, running: int, now: datetime | None) -> str:
    """Return how a step stands, as a sentence without a full stop."""
    own = seen.state
    if seen.branches:
        return _of_branches(seen.branches, state.counts.get(seen.of, 0))
    if own is None or (seen.status == "joining" and not seen.kind):
        return _not_begun(plan, state, seen)
    took = f" in {seconds((own.ended_at - own.queued_at).total_seconds())}" if own.ended_at and own.queued_at else ""
    match seen.status:
        case "done" if seen.reused_from:
            return f"done in run {seen.reused_from}, and reused here"
        case "done" if seen.answered_by or seen.answer_note:
            by = f" by {seen.answered_by}" if seen.answered_by else ""
            return f"answered{by}{took}" + (f": {seen.answer_note}" if seen.answer_note else "")
        case "done":
            return f"done{took}" + (", its answer cut off at max_tokens" if own.truncated else "")
        case "failed":
            times = own.error.attempts if own.error is not None else own.attempts
            return "failed" + (f" after {times} tries" if times > 1 else "") + took
        case "skipped":
            return f"skipped: {own.reason}" if own.reason else "skipped"
        case "dropped":
            ended = _ENDED[state.result.status] if state.result else "was over"
            return f"dropped: the run {ended} before it ended" + (
                "" if seen.attempts or seen.children else "; it may not have begun"
            )
        case "running":
            since_s = _since_s(own, now)
            handed = f", {seconds(since_s)} after its handoff" if since_s is not None else ""
            return f"is being done now, attempt {running}{handed}"
        case _:
            return _queued(state, seen, own, now)


def _queued(state: RunState, seen: StepSeen, own: StepState, now: datetime | None) -> str:
    open_ = [child for child in seen.children if child.status in ("queued", "running")]
    if open_:
        some = ", ".join(child.label for child in open_[:_NAMED_MAX])
        more = f" and {len(open_) - _NAMED_MAX:,} more" if len(open_) > _NAMED_MAX else ""
        parked = any(own.waits == waits_for(child.step) for child in open_)
        return f"waits for {some}{more}" + ("; nobody holds it until then" if parked else "")
    if not own.waits and seen.kind not in (None, "agent"):
        return _asked_of_nobody(seen, own, now)
    if own.waits:
        left_s = (own.due_at - now).total_seconds() if own.due_at is not None and now is not None else None
        due = "" if left_s is None else f", due in {seconds(left_s)}" if left_s > 0 else ", which is due"
        return f"waits for {own.waits}{due}{_done_of_batch(state, own)}"
    since_s = _since_s(own, now)
    ago = f" {seconds(since_s)} ago" if since_s is not None else ""
    return f"was handed to {seen.actor}{ago}; nobody has said yet what came of it"


def _done_of_batch(state: RunState, own: StepState) -> str:
    """Say how many calls of the run have come that went with the batch for which a step waits."""
    calls = [step for step in state.steps.values() if step.batch]
    batch = next((call.batch for call in calls if call.source == own.name and call.status == "queued"), "")
    done = sum(call.batch == batch and call.status in ("done", "failed") for call in calls)
    return f", of which {done:,} {'has' if done == 1 else 'have'} come to this run" if batch and done else ""


def _asked_of_nobody(seen: StepSeen, own: StepState, now: datetime | None) -> str:
    """Say what a child waits for that no worker does."""
    left_s = (own.answers_at - now).total_seconds() if own.answers_at is not None and now is not None else None
    until = "" if left_s is None else f", for {seconds(left_s)} more" if left_s > 0 else ", whose time is up"
    match seen.kind:
        case "person":
            return f"waits for a person{until}"
        case "event":
            return f"waits for a word from outside{until}"
        case "flow":
            return f"is done by another run, {seen.child_run}{until}"
        case _:
            return "waits for its time" + (until or "")


def _since_s(own: StepState, now: datetime | None) -> float | None:
    return max((now - own.queued_at).total_seconds(), 0.0) if own.queued_at is not None and now is not None else None


def _not_begun(plan: Plan, state: RunState, seen: StepSeen) -> str:
    before = plan.sources[seen.of]
    if state.result is not None:
        return f"never begun: the run {_ENDED[state.result.status]} before"
    if seen.status == "joining" and seen.state is not None:
        return f"has not begun: {seen.state.arrived:,} of the {seen.state.expected:,} that it waits for have ended"
    if not before:
        return "has not begun: its handoff is not in the log"
    stand = ", ".join(f"{name} ({_stands(plan, state, name)})" for name in before)
    return f"has not begun: it comes after {stand}"


def _stands(plan: Plan, state: RunState, name: str) -> str:
    branches = branches_of(state, name) if plan.step(name).each else []
    if branches:
        return _of_branches(branches, state.counts.get(name, 0))
    own = state.steps.get(name)
    return own.status if own is not None else "has not begun"


def _of_branches(branches: list[BranchSeen], count: int) -> str:
    counts: dict[str, int] = {}
    for branch in branches:
        counts[branch.status] = counts.get(branch.status, 0) + 1
    each = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    if count > len(branches):
        each += f", {count - len(branches):,} not begun"
    count = max(count, len(branches))
    return f"{count:,} {'branch' if count == 1 else 'branches'}: {each}"
