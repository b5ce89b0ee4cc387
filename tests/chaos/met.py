"""Whether the log of a run is what was demanded of it: each step, each join, and the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .demands import Demands
from .joins import join_violations
from .twins import Done, Failed


def violations(run: Demands) -> Iterator[str]:
    """Yield where the log is not as it must be."""
    reached = dict(run.reached)
    for token in run.with_children(run.reached):
        yield from _step(run, token)
        reached[token] = None
    for join in filter(run.flow.joins, run.flow.steps):
        yield from join_violations(run, join)
    for token, source in run.log.handoffs:
        if (asker := run.asker(token)) is not None:
            if token not in reached and run.asks(asker).is_complete:
                yield f"I12 step {token} of run {run.run} was asked for by {asker}, which has no such question"
        elif token not in reached and run.flow.base(token) not in run.unknown:
            yield f"I8 step {token} of run {run.run} was handed on by {source}, and the flow has no such step here"
    yield from _result(run)


def _step(run: Demands, token: str) -> Iterator[str]:
    kept, ended = run.kept(token), run.ended(token)
    what = f"step {token} of run {run.run}"
    if kept is None:
        if run.must_be_there(token):
            yield f"I8 {what} has no outcome, and its run is done"
        return
    status = kept.outcome["status"]
    if isinstance(ended, Failed):
        error = kept.outcome.get("error", {})
        if (status, error.get("step"), error.get("type")) != ("failed", ended.step, ended.type):
            yield f"I8 {what} ended {_short(kept.outcome)}, expected {ended}"
    elif status != "done":
        yield f"I8 {what} ended {_short(kept.outcome)}, expected {_short(ended)}"
    else:
        try:
            found = run.value(kept.outcome)
        except ValueError as error:
            yield f"I8 {what}: {error}"
        else:
            if ended is None or found != ended.output:
                yield f"I8 {what} put out {_short(found)}, expected {_short(ended)}"
    if run.must_be_there(token) and not run.flow.asked(token):
        for name, record in run.followers(token, kept):
            if record is None:
                yield f"I8 {what} has ended, and {name} is not in the log"


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
    elif status == "done" and (step != run.flow.final or isinstance(ended, Failed)):
        yield f"I8 {what} is done at step {step}, which is to end as {_short(ended)}"
    elif status == "failed":
        after = run.flow.successors[run.flow.base(step)] or [None]
        fatal = any(run.flow.fails_run(run.flow.base(step), each) for each in after) or after == [None]
        if not isinstance(ended, Failed) or not fatal:
            yield f"I8 {what} failed at step {step}, which ends well, or whose failure ends no run"
        outcome = body.get("outcome") or {}
        if isinstance(ended, Failed) and outcome.get("error", {}).get("type") != ended.type:
            yield f"I8 {what} failed with {_short(outcome)}, expected {ended}"


def _short(value: Any) -> str:
    if isinstance(value, Done):
        value = value.output
    text = str(value) if isinstance(value, Failed) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:150]}… ({len(text)} characters)"
