"""What is in the log of a run when a step has ended: its outcome and what follows; and which steps must have ended."""

from __future__ import annotations

from .demands import Demands
from .flow_file import in_round
from .raw import Record
from .run_log import Kept


def kept_of(run: Demands, token: str) -> Kept | None:
    """Return how the log says that a step ended, from the one record that decides it."""
    if run.flow.asked(token):
        record = run.log.answers.get(token)
        return Kept((record.body or {})["outcome"], record) if record is not None else None
    after = run.course.after(token)
    if run.course.ends_a_loop(token) or len(after) > 1 or any(run.inputs.branches(each) is not None for each in after):
        record = run.log.outcomes.get(token)
        outcome = record.body.get("outcome") if record is not None and record.body else None
    elif not after:
        record = run.log.result
        body = record.body if record is not None else None
        outcome = body.get("outcome") if body and body.get("step") == token else None
    elif run.course.joins(after[0]):
        record = run.log.replies.get((after[0], _in_reply(run, token)))
        outcome = record.body.get("outcome") if record is not None and record.body else None
    else:
        record = run.log.handoffs.get((after[0], token))
        outcome = record.body["cause"].get("outcome") if record is not None and record.body else None
    return Kept(outcome, record) if record is not None and outcome is not None else None


def followers(run: Demands, token: str, kept: Kept) -> list[tuple[str, Record | None]]:
    """Return what must be written after a step has ended, each with the record that is it, if it is there."""
    if run.flow.asked(token):
        body = kept.record.body or {}
        name = f"wake-s{body['wakes']['parked']}" if body.get("wakes") else ""
        return [(f"the handoff {name}", run.log.handoffs.get((body["step"], name)))] if name else []
    step, _, number = run.flow.place(token)
    failed = kept.outcome["status"] == "failed"
    after = run.course.after(token)
    fails = token in run.log.over_budget
    fails = fails or any(run.flow.fails_run(step, run.flow.base(successor)) for successor in after or [step])
    if run.course.is_out_of_rounds(token) or (failed and fails):
        return [("the run's result", run.log.result)]
    found = _begins_behind(run, token)
    if kept.record.kind != "outcome":
        return found
    loop = run.flow.loop_of(step)
    if loop is not None and step == loop.last and run.course.goes_again(loop, number):
        again = in_round(loop.first, number + 1)
        return [(f"the handoff to {again}", run.log.handoffs.get((again, token)))]
    if not after:
        return [("the run's result", run.log.result)]
    for successor in after:
        if run.course.joins(successor):
            found.append((f"its reply to {successor}", run.log.replies.get((successor, _in_reply(run, token)))))
        elif tokens := run.inputs.tokens(successor)[: run.flow.lanes(run.flow.base(successor))]:
            found += [(f"the handoff to {each}", run.log.handoffs.get((each, token))) for each in tokens]
        else:  # word that there was nothing to do, or that it is left out
            name = run.flow.base(successor)
            joins = run.course.after(successor)
            found += [(f"an empty reply to {join}", run.log.replies.get((join, name))) for join in joins]
    return found


def _begins_behind(run: Demands, token: str) -> list[tuple[str, Record | None]]:
    """Return the handoff to the branch that this one lets begin; or what says that it is not needed any more."""
    behind = next_in_lane(run, token)
    if behind is None:
        return []
    (source,) = run.course.sources(token)
    closings = [run.log.closing(join) if went_on_without(run, join) else None for join in run.course.after(token)]
    needless = None if None in closings else max(filter(None, closings), key=lambda each: each.seq)
    return [(f"the handoff to {behind}", run.log.handoffs.get((behind, source)) or needless)]


def next_in_lane(run: Demands, token: str) -> str | None:
    """Return the branch that begins when this one has ended; None when there is none, or it need not wait."""
    step, index, number = run.flow.place(token)
    lanes = run.flow.lanes(step)
    if index is None or lanes is None or index + lanes >= (run.inputs.branches(in_round(step, number)) or 0):
        return None
    return run.inputs.branch(token, index + lanes)


def must_be_there(run: Demands, token: str) -> bool:
    """Say whether a run that is done must have done this: no join after it went on without all."""
    if (asker := run.asking.asker(token)) is not None:
        return run.asking.asks(asker).is_complete and not run.asking.is_late(asker) and must_be_there(run, asker)
    return run.is_done and not any(went_on_without(run, join) for join in run.course.joins_after(token))


def must_have_answers(run: Demands, token: str) -> bool:
    """Say whether what a step asked for must have been answered: one that was late is not waited for."""
    return must_be_there(run, token) and not run.asking.is_late(token)


def went_on_without(run: Demands, join: str) -> bool:
    """Say whether a join may have gone on without all that it could wait for."""
    closing = run.log.closing(join)
    was_late = closing is not None and bool((closing.body or {})["cause"].get("deadline"))
    return was_late or run.flow.policy(run.flow.base(join)).wait is not None


def _in_reply(run: Demands, token: str) -> str:
    """Return how a step or branch is named on the subject of a reply: the join has the round."""
    step, index, _ = run.flow.place(token)
    return step if index is None else f"{step}-{index}"
