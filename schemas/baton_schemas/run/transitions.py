"""What each event of a run leads to: the messages and the timers, made of the flow and of what came before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import (
    ASKING,
    After,
    Answer,
    Asked,
    Begins,
    Branch,
    Decisive,
    Handoff,
    Joined,
    OutcomeRecord,
    Reply,
    Result,
    Started,
)
from baton_schemas.wire.names import DEADLINE, END
from baton_schemas.wire.outcomes import Blob, Done, Failed, Outcome, ResultStatus, Skipped, State, Value

from .asking import answer_to, woken_by
from .carry import select, with_outcome
from .events import Action, Begun, CancelTimer, Create, Ended, Recorded, SetTimer, Submitted, View
from .joins import Chain, shortfall
from .leaving_out import is_left_out, were_left_out
from .refs import base_of, ended_by, parse, whole
from .rounds import after, follows, next_first, next_state, outlasted

# ---- the start of a run ----------------------------------------------------------------------------


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
    return Create(actor, replace(first, v=ASKING if event.parent else plan.version, cause=cause, state=event.state))


def begun(view: View, event: Begun) -> list[Action]:
    """Return what the first handoff stands for besides its own step: deadlines, and the other first messages."""
    plan, first = view.plan, event.first
    assert isinstance(first.cause, Started)
    begins = first.cause.begins
    assert begins is not None
    actions: list[Action] = []
    if begins.deadline_s:
        due_s = event.stored_at_s + begins.deadline_s
        expired = expiry(plan, first, event.seq)
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


def expiry(plan: Plan, first: Handoff, start_seq: int) -> Result:
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


# ---- the end of a step -----------------------------------------------------------------------------


def decisive(plan: Plan, event: Ended) -> Create:
    """Return the one record that decides a step, on a subject that follows from flow, run and step."""
    handoff, outcome, start_seq = event.handoff, event.outcome, event.start_seq
    if isinstance(handoff.cause, Asked):
        return Create(plan.actor(handoff.cause.step), answer_to(handoff, outcome, start_seq))
    base = base_of(handoff)
    successors, ends_loop = plan.successors[base], plan.step(base).again is not None
    if not successors and not ends_loop:
        return Create(plan.actor(base), result_of(plan, handoff.run, handoff.step, outcome, start_seq))
    if len(successors) == 1 and not plan.step(successors[0]).each and not ends_loop:
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


def _follow(view: View, record: OutcomeRecord) -> list[Action]:
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


def next_branch(plan: Plan, ended: Handoff) -> int | None:
    """Return the index of the branch whose turn comes when the one of this handoff has ended; None when none does.

    Of `concurrency` branches at once the first so many are handed on together, and each of the others follows the one
    so many places before it.
    """
    if ended.branch is None or (at_once := plan.step(ended.step).concurrency) is None:
        return None
    index = ended.branch.index + at_once
    return index if index < ended.branch.count else None


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
    return [Create(plan.actor(base), replace(_branch(entry, view.item, index, ended.branch.count), copied=copied))]


def _again(view: View, record: OutcomeRecord, state: State) -> list[Action]:
    """Return what begins the next round of a loop."""
    first = next_first(view.plan, record.step)
    timers = join_timers(view, record.run, [first], state, record.start_seq)
    return [*timers, *enter(view, record.run, first, After(step=record.step), state, None, record.start_seq)]


def gathered(plan: Plan, chain: Chain) -> list[Action]:
    """Return what closes a join whose chain is complete."""
    actions: list[Action] = [Create(plan.actor(chain.step), chain.closing())]
    if plan.name_of(chain.step) in plan.timed_joins:
        actions.append(CancelTimer(plan.actor(chain.step), chain.head.run, chain.step))
    return actions


def _fails_run(plan: Plan, base: str) -> bool:
    """Say whether a failure of a step, or of a branch of it, ends the run before any of its successors begins."""
    return any(plan.ends_run(base, name) for name in plan.successors[base])


def _failed_run(plan: Plan, record: Handoff | Reply | OutcomeRecord, step: str) -> Create:
    outcome = _outcome_in(record)
    assert outcome is not None
    return Create(plan.actor(step), result_of(plan, record.run, step, outcome, record.start_seq))


def _outcome_in(record: Handoff | Reply | OutcomeRecord) -> Outcome | None:
    if isinstance(record, Handoff):
        return record.cause.outcome if isinstance(record.cause, After) else None
    return record.outcome


def _cause_step(handoff: Handoff) -> str:
    assert isinstance(handoff.cause, After)
    return handoff.cause.step


# ---- what both are made of -------------------------------------------------------------------------


def spreads(plan: Plan, step: str | None) -> dict[str, str]:
    """Return the fan-outs over a list that come right after a step (None: at the start): step to `each`."""
    names = plan.first if step is None else plan.successors[step]
    return {name: plan.steps[name].each for name in names if plan.steps[name].each}


def spreads_again(plan: Plan, last: str) -> dict[str, str]:
    """Return the fan-out that begins the next round of the loop that `last` ends, if it does: step to `each`."""
    first = plan.first_of_loop(last)
    return {first: plan.step(first).each} if plan.step(first).each else {}


def ends_run(plan: Plan, handoff: Handoff) -> bool:
    """Say whether a handoff only tells that its run has failed: its step is not to be done."""
    cause = handoff.cause
    if not isinstance(cause, After) or not isinstance(cause.outcome, Failed):
        return False
    return cause.outcome.ends_run or plan.fails_run(cause.step)


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
        return [Create(plan.actor(step), _branch(entry, item, index, len(items))) for index, item in enumerate(at_once)]
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


def handoff_to(
    plan: Plan, run: str, step: str, cause: Started | After | Joined, state: State, start_seq: int
) -> Handoff:
    """Return the handoff that gives a step, or a whole fan-out, to its actor."""
    return Handoff(
        flow=plan.flow.name, digest=plan.digest, run=run, step=step, cause=cause, state=state, start_seq=start_seq
    )


def _branch(entry: Handoff, item: Value, index: int, count: int) -> Handoff:
    if isinstance(item, Blob):
        branch = Branch(index=index, count=count, blob=item)
    else:
        branch = Branch(index=index, count=count, item=item)
    return replace(entry, step=replace(parse(entry.step), index=index).token, branch=branch)


def place(branch: Branch | None) -> Branch | None:
    """Return which branch it is, without its item."""
    return None if branch is None else Branch(index=branch.index, count=branch.count)


def reply_to(
    plan: Plan, ended: Handoff | OutcomeRecord, join: str, state: State, outcome: Outcome, start_seq: int
) -> Reply:
    """Return what a step, or a branch, that ended tells the step that joins it; `join` has its round."""
    branch = ended.branch
    return Reply(
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
