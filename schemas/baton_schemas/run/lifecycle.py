"""Who gets what next: pure functions of the flow and the record of a step.

`decide` gives the one record that decides a step's outcome; `follow` gives what must be written once that
record is stored, whoever wrote it. Both are deterministic, and all they give is written create-only, so
doing either twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, assert_never

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import select, with_outcome
from baton_schemas.run.joins import shortfall
from baton_schemas.wire.messages import (
    VERSION,
    Blob,
    Decisive,
    Done,
    Failed,
    Handoff,
    Outcome,
    OutcomeRecord,
    Reply,
    Result,
    Skipped,
    State,
)
from baton_schemas.wire.names import DEADLINE, JOIN, START, branch_name, step_of

Value = Raw | Blob
"""A value of the user's, inline or in the object store."""

Lists = Mapping[str, Sequence[Value]]
"""The lists to fan out over, by the step that does so (see `spreads`)."""


class Routed(NamedTuple):
    """A message and the actor in its subject (for a result, nobody reads it)."""

    actor: str
    message: Decisive


def start(plan: Plan, run: str, state: State, lists: Lists, start_seq: int = 0) -> list[Routed]:
    """Return the first messages of a run. The first is the handoff that `submit` writes.

    That one carries the flow and the whole input; the worker that holds it writes the others (with
    `start_seq`, the sequence of the first) before it runs the handler. A join that waits for nothing but
    empty lists of the input begins at once.
    """
    empty = {step for step in plan.first if plan.step(step).each and not lists.get(step)}
    begun = [step for step in plan.flow.steps if plan.sources[step] and empty.issuperset(plan.sources[step])]
    routed: list[Routed] = []
    for step in plan.first:
        routed += _enter(plan, run, step, START, state, None, lists, start_seq)
    routed = [item for item in routed if isinstance(item.message, Handoff) or item.message.step not in begun]
    for step in begun:
        kept = select(state, plan.carried[step])
        begin = _handoff(plan, run, step, JOIN, kept, None, start_seq)
        routed.append(Routed(plan.actor(step), replace(begin, error=shortfall(plan, step, 0, 0))))
    routed.sort(key=lambda item: not isinstance(item.message, Handoff))
    first = routed[0].message
    assert isinstance(first, Handoff), "a flow that passed check_flow starts with a handoff"
    whole_state = replace(state, blobs={**state.blobs, **first.state.blobs})
    whole = replace(first, state=whole_state, flow_body=Raw(plan.body), start_seq=0)
    return [Routed(routed[0].actor, whole), *routed[1:]]


def decide(plan: Plan, handoff: Handoff, state: State, outcome: Outcome, start_seq: int) -> Routed:
    """Return the decisive record of the step of `handoff`, which saw `state` and ended with `outcome`."""
    step, base = handoff.step, base_of(handoff)
    successors = plan.successors[base]
    if not successors:
        return Routed(plan.actor(base), _result(plan, handoff.run, step, outcome, start_seq))
    if len(successors) == 1 and not plan.step(successors[0]).each:
        (successor,) = successors
        kept = select(state, plan.carried[successor] - {base})
        if successor in plan.joins:
            message: Decisive = _reply(plan, handoff, successor, kept, outcome, start_seq)
        else:
            message = _handoff(plan, handoff.run, successor, step, kept, outcome, start_seq)
        return Routed(plan.actor(successor), message)
    record = OutcomeRecord(
        v=VERSION,
        flow=plan.flow.name,
        digest=plan.digest,
        run=handoff.run,
        step=step,
        state=select(state, plan.record_needs(base) - {base}),
        outcome=outcome,
        index=handoff.index,
        count=handoff.count,
        start_seq=start_seq,
    )
    return Routed(plan.actor(base), record)


def base_of(message: Handoff | OutcomeRecord) -> str:
    """Return the step of a message, without the index of a branch."""
    return step_of(message.step) if message.count else message.step


def spreads(plan: Plan, step: str | None) -> dict[str, str]:
    """Return the fan-outs over a list that come right after a step (None: at the start): step to `each`."""
    names = plan.first if step is None else plan.successors[step]
    return {name: plan.step(name).each for name in names if plan.step(name).each}


def follow(plan: Plan, record: Decisive, lists: Lists) -> list[Routed]:
    """Return what is to be written after a record: handoffs, replies, the result.

    `lists` has an entry for each step in `spreads` of the record's step; one that is missing is empty.
    """
    match record:
        case Result():
            return []
        case Handoff(outcome=Failed()) if plan.fails_run(record.source):
            return [_failed_run(plan, record, record.source)]
        case Handoff():
            return []
        case Reply(outcome=Failed()) if plan.on_failed_branch(record.step, record.branch) == "fail":
            return [_failed_run(plan, record, record.branch)]
        case Reply():
            return []
        case OutcomeRecord():
            return _follow_outcome(plan, record, lists)
        case _:
            assert_never(record)


class JoinTimer(NamedTuple):
    """The deadline of a join: the reply that the broker is to send it, and after how long."""

    actor: str
    after_s: float
    reply: Reply


def join_timers(plan: Plan, run: str, entered: Iterable[str], state: State, start_seq: int) -> list[JoinTimer]:
    """Return the deadlines that begin to run when these steps are entered with this state."""
    joins = {join for step in entered for join in plan.successors[step] if join in plan.timed_joins}
    timers: list[JoinTimer] = []
    for join in sorted(joins):
        after_s = plan.join_policy(join).deadline_s
        assert after_s is not None
        reply = Reply(
            v=VERSION,
            flow=plan.flow.name,
            digest=plan.digest,
            run=run,
            step=join,
            branch=DEADLINE,
            count=0,
            state=select(state, plan.carried[join]),
            outcome=Skipped(reason=f"the deadline of {after_s:g} s"),
            start_seq=start_seq,
        )
        timers.append(JoinTimer(plan.actor(join), after_s, reply))
    return timers


def _follow_outcome(plan: Plan, record: OutcomeRecord, lists: Lists) -> list[Routed]:
    base = base_of(record)
    successors = plan.successors[base]
    if isinstance(record.outcome, Failed) and any(plan.ends_run(record.step, name) for name in successors):
        return [_failed_run(plan, record, record.step)]
    after = with_outcome(record.state, base, record.outcome)
    routed: list[Routed] = []
    for name in successors:
        if name in plan.joins:
            kept = select(record.state, plan.carried[name] - {base})
            reply = _reply(plan, record, name, kept, record.outcome, record.start_seq)
            routed.append(Routed(plan.actor(name), reply))
        else:
            routed += _enter(plan, record.run, name, base, after, record.outcome, lists, record.start_seq)
    return routed


def _enter(
    plan: Plan,
    run: str,
    step: str,
    source: str,
    state: State,
    outcome: Outcome | None,
    lists: Lists,
    start_seq: int,
) -> list[Routed]:
    """Return the handoff to a step, or one per item when it fans out, or word that there was no item."""
    kept = select(state, plan.carried[step])
    entry = _handoff(plan, run, step, source, kept, None, start_seq)
    if not plan.step(step).each:
        return [Routed(plan.actor(step), entry)]
    items = lists.get(step, ())
    if items:
        return [Routed(plan.actor(step), _branch(entry, item, index, len(items))) for index, item in enumerate(items)]
    why = "the step before it failed" if isinstance(outcome, Failed) else f"{plan.step(step).each!r} is empty"
    replies: list[Routed] = []
    for join in plan.successors[step]:
        reply = _reply(plan, entry, join, select(state, plan.carried[join]), Skipped(reason=why), start_seq)
        replies.append(Routed(plan.actor(join), replace(reply, count=0)))
    return replies


def _failed_run(plan: Plan, record: Handoff | Reply | OutcomeRecord, step: str) -> Routed:
    assert record.outcome is not None
    return Routed(plan.actor(step), _result(plan, record.run, step, record.outcome, record.start_seq))


def _result(plan: Plan, run: str, step: str, outcome: Outcome, start_seq: int) -> Result:
    return Result(
        v=VERSION,
        flow=plan.flow.name,
        digest=plan.digest,
        run=run,
        status="done" if isinstance(outcome, Done) else "failed",
        step=step,
        outcome=outcome,
        start_seq=start_seq,
    )


def _handoff(
    plan: Plan, run: str, step: str, source: str, state: State, outcome: Outcome | None, start_seq: int
) -> Handoff:
    return Handoff(
        v=VERSION,
        flow=plan.flow.name,
        digest=plan.digest,
        run=run,
        step=step,
        source=source,
        state=state,
        outcome=outcome,
        start_seq=start_seq,
    )


def _branch(entry: Handoff, item: Value, index: int, count: int) -> Handoff:
    step = branch_name(entry.step, index)
    if isinstance(item, Blob):
        state = replace(entry.state, blobs={**entry.state.blobs, "item": item})
        return replace(entry, step=step, state=state, index=index, count=count)
    return replace(entry, step=step, item=item, index=index, count=count)


def _reply(
    plan: Plan,
    ended: Handoff | OutcomeRecord,
    join: str,
    state: State,
    outcome: Outcome,
    start_seq: int,
) -> Reply:
    return Reply(
        v=VERSION,
        flow=plan.flow.name,
        digest=plan.digest,
        run=ended.run,
        step=join,
        branch=ended.step,
        index=ended.index,
        count=ended.count or 1,
        state=state,
        outcome=outcome,
        start_seq=start_seq,
    )
