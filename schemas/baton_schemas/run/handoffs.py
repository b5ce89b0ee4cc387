"""Handoffs, replies and results of a run, with what all of them carry: its flow, and where it began."""

from __future__ import annotations

from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Branch, Handoff, Joined, OutcomeRecord, Reply, Result, Started
from baton_schemas.wire.outcomes import Blob, Done, Outcome, ResultStatus, Skipped, State, Value

from .child_runs import version_in
from .refs import base_of, parse, token_of


def handoff_to(
    plan: Plan, run: str, step: str, cause: Started | After | Joined, state: State, start_seq: int
) -> Handoff:
    """Return the handoff that gives a step, or a whole fan-out, to its actor."""
    return Handoff(
        v=version_in(run),
        flow=plan.flow.name,
        digest=plan.digest,
        run=run,
        step=step,
        cause=cause,
        state=state,
        start_seq=start_seq,
    )


def to_branch(entry: Handoff, item: Value, index: int, count: int) -> Handoff:
    """Return the handoff of one branch, made of that of the whole fan-out."""
    if isinstance(item, Blob):
        branch = Branch(index=index, count=count, blob=item)
    else:
        branch = Branch(index=index, count=count, item=item)
    ref = parse(entry.step)
    return replace(entry, step=token_of(ref.name, index, ref.round, ref.key), branch=branch)


def place(branch: Branch | None) -> Branch | None:
    """Return which branch it is, without its item."""
    return None if branch is None else Branch(index=branch.index, count=branch.count)


def reply_to(
    plan: Plan, ended: Handoff | OutcomeRecord, join: str, state: State, outcome: Outcome, start_seq: int
) -> Reply:
    """Return what a step, or a branch, that ended tells the step that joins it; `join` has its round."""
    branch = ended.branch
    return Reply(
        v=version_in(ended.run),
        flow=plan.flow.name,
        digest=plan.digest,
        run=ended.run,
        step=join,
        source=base_of(ended),
        index=branch.index if branch else 0,
        count=branch.count if branch else 1,
        each=branch is not None,
        state=state,
        outcome=outcome,
        start_seq=start_seq,
        round=parse(ended.step).round,
    )


def result_of(plan: Plan, run: str, step: str, outcome: Outcome | None, start_seq: int) -> Result:
    """Return how a run ended, by the outcome of a step; without one, as failed."""
    return Result(
        flow=plan.flow.name,
        digest=plan.digest,
        run=run,
        status="done" if isinstance(outcome, Done | Skipped) else "failed",
        step=step,
        outcome=outcome,
        start_seq=start_seq,
        children=leaves_children(plan, "done" if isinstance(outcome, Done) else "failed"),
    )


def leaves_children(plan: Plan, status: ResultStatus) -> bool:
    """Say whether a run that ends so may leave runs open that it asked for."""
    return bool(plan.nested) and (status != "done" or plan.leaves_branches or plan.handlers_ask_flows)
