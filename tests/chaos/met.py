"""Whether the log of a run is what was demanded of it: each step, each join, and the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .demands import Demands
from .following import followers, kept_of, must_be_there, next_in_lane
from .joins import join_violations
from .twins import Done, Failed, Skipped


def violations(run: Demands) -> Iterator[str]:
    """Yield where the log is not as it must be."""
    reached = dict(run.reached)
    for token in run.asking.with_children(run.reached):
        yield from _step(run, token)
        reached[token] = None
    for join in filter(run.course.joins, run.course.steps):
        yield from join_violations(run, join)
        yield from _words_of_nothing(run, join)
    for token, source in run.log.handoffs:
        if (asker := run.asking.asker(token)) is not None:
            if token not in reached and run.asking.asks(asker).is_complete:
                yield f"I12 step {token} of run {run.run} was asked for by {asker}, which has no such question"
        elif token not in reached:
            yield f"I8 step {token} of run {run.run} was handed on by {source}, and the flow has no such step here"
    yield from _result(run)


def _step(run: Demands, token: str) -> Iterator[str]:
    kept, ended = kept_of(run, token), run.ended(token)
    what = f"step {token} of run {run.run}"
    behind = next_in_lane(run, token) if not run.flow.asked(token) else None
    handed_on = [record.seq for (each, _), record in run.log.handoffs.items() if each == behind]
    if handed_on and (kept is None or min(handed_on) < kept.record.seq):
        yield f"I16 {what} had not ended when {behind} was handed on, which is to wait for it"
    if kept is None:
        if must_be_there(run, token):
            yield f"I8 {what} has no outcome, and its run is done"
        return
    status = kept.outcome["status"]
    if isinstance(ended, Failed):
        error = kept.outcome.get("error", {})
        if (status, error.get("step"), error.get("type")) != ("failed", ended.step, ended.type):
            yield f"I8 {what} ended {_short(kept.outcome)}, expected {ended}"
    elif isinstance(ended, Skipped):
        if (status, kept.outcome.get("left_out")) != ("skipped", True) or kept.outcome["reason"] not in ended.reasons:
            yield f"I8 {what} ended {_short(kept.outcome)}, expected {_short(ended)}"
    elif status != "done":
        yield f"I8 {what} ended {_short(kept.outcome)}, expected {_short(ended)}"
    else:
        try:
            found = _as_twins_see_it(run, token, run.value(kept.outcome))
        except ValueError as error:
            yield f"I8 {what}: {error}"
        else:
            if ended is None or found != ended.output:
                yield f"I8 {what} put out {_short(found)}, expected {_short(ended)}"
    if must_be_there(run, token) and not run.flow.asked(token):
        for name, record in followers(run, token, kept):
            if record is None:
                yield f"I8 {what} has ended, and {name} is not in the log"


def _words_of_nothing(run: Demands, join: str) -> Iterator[str]:
    """Yield what fan-outs say wrongly that have no branch: that they are left out, and why, or that they are empty."""
    for source in run.course.sources(join):
        record = run.log.replies.get((join, run.flow.base(source)))
        if run.inputs.branches(source) is None or record is None or record.body is None:
            continue
        outcome, what = record.body["outcome"], f"I8 step {source} of run {run.run}"
        why = run.inputs.left_out(source) if run.inputs.is_left_out(source) else ()
        if run.inputs.branches(source):
            yield f"{what} says {_short(outcome)}, and has branches"
        elif outcome["status"] != "skipped" or outcome.get("left_out", False) != bool(why):
            yield f"{what} says {_short(outcome)}, expected that it is {'left out' if why else 'empty'}"
        elif why and outcome["reason"] not in why:
            yield f"{what} says {_short(outcome)}, expected {_short(Skipped(why))}"


def _as_twins_see_it(run: Demands, token: str, found: Any) -> Any:
    """Return an output as far as twins know it: of the errors in a list, whose they are and of which type."""
    if run.flow.implied.get(run.flow.base(token)) != "list" or not isinstance(found, list):
        return found
    errors = [each.get("error") if isinstance(each, dict) else None for each in found]
    return [
        {"error": error["step"], "type": error["type"]} if isinstance(error, dict) else each
        for each, error in zip(found, errors, strict=True)
    ]


def _result(run: Demands) -> Iterator[str]:
    record = run.log.result
    if record is None or record.body is None:
        return
    body, what = record.body, f"run {run.run}"
    status, step = body["status"], body.get("step", "")
    if status not in ("done", "failed"):
        return
    ended = run.ended(step) if step in run.reached else None
    if ended is None:
        yield f"I8 {what} ended {status} at step {step!r}, to which it does not come"
    elif status == "done" and (run.flow.base(step) != run.flow.final or isinstance(ended, Failed)):
        yield f"I8 {what} is done at step {step}, which is to end as {_short(ended)}"
    elif status == "failed":
        base, after = run.flow.base(step), [run.flow.base(each) for each in run.course.after(step)]
        fatal = not after or step in run.log.over_budget or any(run.flow.fails_run(base, each) for each in after)
        if run.course.is_out_of_rounds(step):
            loop = run.flow.loop_of(base)
            if loop is None or not body.get("reason", "").startswith(f"after {loop.rounds} rounds from "):
                yield f"I8 {what} failed after its last round, and says {_short(body.get('reason'))}"
        elif not isinstance(ended, Failed) or not fatal:
            yield f"I8 {what} failed at step {step}, which ends well, or whose failure ends no run"
        outcome = body.get("outcome") or {}
        if isinstance(ended, Failed) and outcome.get("error", {}).get("type") != ended.type:
            yield f"I8 {what} failed with {_short(outcome)}, expected {ended}"


def _short(value: Any) -> str:
    if isinstance(value, Done):
        value = value.output
    text = str(value) if isinstance(value, Failed | Skipped) else json.dumps(value, default=str)
    return text if len(text) <= 200 else f"{text[:150]}… ({len(text)} characters)"
