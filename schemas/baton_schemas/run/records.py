"""The decisive record of a step: which message it is, and what follows from it once it is stored."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Answer, Asked, Decisive, Handoff, OutcomeRecord, Reply, Result, Started
from baton_schemas.wire.names import END
from baton_schemas.wire.outcomes import Failed, Outcome, State

from .asking import answer_to, woken_by
from .carry import select, with_outcome
from .entering import enter, join_timers
from .events import Action, CancelTimer, Create, Ended, Recorded, View
from .handoffs import handoff_to, place, reply_to, result_of, to_branch
from .joins import Chain
from .leaving_out import is_left_out
from .refs import base_of, ended_by, whole
from .rounds import after, follows, next_first, next_state, outlasted


def decisive(plan: Plan, event: Ended) -> Create:
    """Return the one record that decides a step, on a subject that follows from flow, run and step."""
    handoff, outcome, start_seq = event.handoff, event.outcome, event.start_seq
    if isinstance(handoff.cause, Asked):
        return Create(plan.actor(handoff.cause.step), answer_to(handoff, outcome, start_seq))
    base = base_of(handoff)
    successors, ends_loop = plan.successors[base], plan.steps[base].again is not None
    if not successors and not ends_loop:
        return Create(plan.actor(base), result_of(plan, handoff.run, handoff.step, outcome, start_seq))
    if len(successors) == 1 and not plan.steps[successors[0]].each and not ends_loop:
        (successor,) = successors
        kept, to = select(event.state, plan.carried[successor] - {base}), after(plan, handoff.step, successor)
        if successor in plan.joins:
            message: Decisive = reply_to(plan, handoff, to, kept, outcome, start_seq)
        else:
            cause = After(step=handoff.step, outcome=outcome)
            message = handoff_to(plan, handoff.run, to, cause, kept, start_seq)
        return Create(plan.actor(successor), message)
    record = OutcomeRecord(
        flow=plan.flow.name,
        digest=plan.digest,
        run=handoff.run,
        step=handoff.step,
        state=select(event.state, plan.record_needs(base) - {base}),
        outcome=outcome,
        branch=place(handoff.branch),
        start_seq=start_seq,
    )
    return Create(plan.actor(base), record)


def recorded(view: View, event: Recorded) -> list[Action]:
    """Return what follows from a decisive record that is stored."""
    plan, record = view.plan, event.record
    match record:
        case Result():
            has_deadline = plan.flow.deadline_s is not None
            return [CancelTimer(record.flow, record.run, END)] if has_deadline else []
        case Handoff():
            return [_failed_run(plan, record, _cause_step(record))] if ends_run(plan, record) else []
        case Answer(outcome=Failed(ends_run=True)):
            return [_failed_run(plan, record, record.child)]
        case Answer():
            woken = woken_by(record)
            return [Create(plan.actor(record.step), woken)] if woken is not None else []
        case Reply(outcome=Failed() as failed) if (
            failed.ends_run or plan.on_failed_branch(record.step, record.source) == "fail"
        ):
            return [_failed_run(plan, record, ended_by(record))]
        case Reply():
            return _in_its_place(view, event)
        case OutcomeRecord(outcome=Failed() as failed) if failed.ends_run or _fails_run(plan, base_of(record)):
            return [_failed_run(plan, record, record.step)]
        case OutcomeRecord():
            return [*_follow(view, record), *_in_its_place(view, event)]
        case _:
            assert_never(record)


# ---- what comes after a step -----------------------------------------------------------------------


def _follow(view: View, record: OutcomeRecord) -> list[Action]:
    """Return what the steps after one that ended are told: handoffs, replies, deadlines, or the end of the run."""
    plan, base = view.plan, base_of(record)
    successors = plan.successors[base]
    # The output of one branch is not yet the list that goes under the name of its step.
    seen = record.state if record.branch else with_outcome(record.state, base, record.outcome)
    match follows(plan, record, view.again):
        case "again":
            return _again(view, record, next_state(plan, base, seen))
        case "fail":
            result = result_of(plan, record.run, record.step, None, record.start_seq)
            return [Create("", replace(result, reason=outlasted(plan, base)))]
        case "on" if not successors:
            return [Create("", result_of(plan, record.run, record.step, record.outcome, record.start_seq))]
        case _:
            pass
    if base in plan.implied and isinstance(record.outcome, Failed):
        view = replace(view, lists={})  # A join that was to bring a list, and fell short, brings none.
    entered = {name: after(plan, record.step, name) for name in successors}
    # A join is entered once it has closed, and not now.
    begun_now = [to for name, to in entered.items() if name not in plan.joins]
    actions: list[Action] = [*join_timers(view, record.run, begun_now, seen, record.start_seq)]
    for name, to in entered.items():
        if name in plan.joins:
            kept = select(record.state, plan.carried[name] - {base})
            reply = reply_to(plan, record, to, kept, record.outcome, record.start_seq)
            actions.append(Create(plan.actor(name), reply))
        else:
            cause = After(step=record.step, outcome=record.outcome if is_left_out(record.outcome) else None)
            actions += enter(view, record.run, to, cause, seen, record.outcome, record.start_seq)
    return actions


def _again(view: View, record: OutcomeRecord, state: State) -> list[Action]:
    """Return what begins the next round of a loop."""
    first = next_first(view.plan, record.step)
    timers = join_timers(view, record.run, [first], state, record.start_seq)
    return [*timers, *enter(view, record.run, first, After(step=record.step), state, None, record.start_seq)]


def _in_its_place(view: View, event: Recorded) -> list[Action]:
    """Return the handoff of the branch that follows one which ended."""
    plan, ended = view.plan, event.handoff
    index = next_branch(plan, ended) if ended is not None else None
    if ended is None or ended.branch is None or index is None or view.item is None:
        return []
    assert isinstance(event.record, Reply | OutcomeRecord)
    base, cause, copied = base_of(ended), ended.cause, ended.copied
    if isinstance(cause, Started):
        copied = copied or (cause.begins is not None and cause.begins.origin is not None)
        cause = Started()
    assert isinstance(cause, Started | After)
    state = select(ended.state, plan.carried[base])
    entry = handoff_to(plan, ended.run, whole(ended.step), cause, state, event.record.start_seq)
    return [Create(plan.actor(base), replace(to_branch(entry, view.item, index, ended.branch.count), copied=copied))]


def next_branch(plan: Plan, ended: Handoff) -> int | None:
    """Return the index of the branch whose turn comes when the one of this handoff has ended; None when none does.

    Of `concurrency` branches at once the first so many are handed on together, and each of the others follows the one
    so many places before it.
    """
    if ended.branch is None or (at_once := plan.step(ended.step).concurrency) is None:
        return None
    index = ended.branch.index + at_once
    return index if index < ended.branch.count else None


def gathered(plan: Plan, chain: Chain) -> list[Action]:
    """Return what closes a join whose chain is complete."""
    actions: list[Action] = [Create(plan.actor(chain.step), chain.closing())]
    if plan.name_of(chain.step) in plan.timed_joins:
        actions.append(CancelTimer(plan.actor(chain.step), chain.head.run, chain.step))
    return actions


# ---- a failure that ends the run -------------------------------------------------------------------


def ends_run(plan: Plan, handoff: Handoff) -> bool:
    """Say whether a handoff only tells that its run has failed: its step is not to be done."""
    cause = handoff.cause
    if not isinstance(cause, After) or not isinstance(cause.outcome, Failed):
        return False
    return cause.outcome.ends_run or plan.fails_run(cause.step)


def _fails_run(plan: Plan, base: str) -> bool:
    """Say whether a failure of a step, or of a branch of it, ends the run before any of its successors begins."""
    return any(plan.ends_run(base, name) for name in plan.successors[base])


def _failed_run(plan: Plan, record: Handoff | Reply | OutcomeRecord | Answer, step: str) -> Create:
    """Return the end of a run that fails with what a record says of a step."""
    outcome = _outcome_in(record)
    assert outcome is not None
    return Create(plan.actor(step), result_of(plan, record.run, step, outcome, record.start_seq))


def _outcome_in(record: Handoff | Reply | OutcomeRecord | Answer) -> Outcome | None:
    if isinstance(record, Handoff):
        return record.cause.outcome if isinstance(record.cause, After) else None
    return record.outcome


def _cause_step(handoff: Handoff) -> str:
    assert isinstance(handoff.cause, After)
    return handoff.cause.step
