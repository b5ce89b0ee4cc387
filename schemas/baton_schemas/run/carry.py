"""What a run carries from step to step: picked so that each message holds what is read later, no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Handoff, Reply
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, State, Value

from .refs import joined, name_of

ERRORS = "errors"
"""Where earlier errors are among the blobs of a state when they were too large to be inline."""
EMPTY = State()


def select(state: State, names: Iterable[str]) -> State:
    """Return the part of a state that is under these names; the errors so far are always kept."""
    wanted = frozenset(names)
    if not state.input and not state.outputs and not state.blobs:
        return state if state.errors else EMPTY
    return State(
        input={name: value for name, value in state.input.items() if name in wanted},
        outputs={name: value for name, value in state.outputs.items() if name in wanted},
        blobs={name: blob for name, blob in state.blobs.items() if name in wanted or name == ERRORS},
        errors=state.errors,
    )


def with_outcome(state: State, step: str, outcome: Outcome | None) -> State:
    """Return the state after a step: its output under its name, or its error among the errors."""
    match outcome:
        case Done(blob=None):
            return msgspec.structs.replace(state, outputs={**state.outputs, step: outcome.output})
        case Done():
            return msgspec.structs.replace(state, blobs={**state.blobs, step: outcome.blob})
        case Failed():
            return msgspec.structs.replace(state, errors=[*state.errors, carried(outcome.error)])
        case _:
            return state


def find(state: State, name: str) -> Value | None:
    """Return the value that a state has under a name, or None."""
    for values in (state.outputs, state.input):
        if name in values:
            return values[name]
    return state.blobs.get(name)


def state_at(handoff: Handoff) -> State:
    """Return what the step of this handoff can see (a join's branches come in `state_of_join`)."""
    match handoff.cause:
        case After(step=step, outcome=outcome):
            return with_outcome(handoff.state, name_of(step), outcome)
        case _:
            return handoff.state


def state_of_join(plan: Plan, handoff: Handoff, replies: Sequence[Reply]) -> State:
    """Return what a merger can see: what its branches carried, and their outputs in the order of the flow.

    `replies` are those that the closing handoff rests on (`refs.named`), in that order, with outputs and errors
    inline. A step with `each` gives the list of its branches' outputs; a branch that failed is left out, or stands as
    `{"error": …}` (`pass`). A step that was left out gives nothing, with `each` too.
    """
    step, closing = name_of(handoff.step), joined(handoff)
    left_out = closing.left_out if closing is not None else {}
    inputs, outputs, blobs = dict(handoff.state.input), dict(handoff.state.outputs), dict(handoff.state.blobs)
    errors: dict[Error, None] = dict.fromkeys(handoff.state.errors)
    fan_outs = [source for source in plan.sources[step] if plan.step(source).each and source not in left_out]
    lists: dict[str, list[Raw]] = {source: [] for source in fan_outs}
    for reply in replies:
        inputs.update(reply.state.input)
        outputs.update(reply.state.outputs)
        blobs.update(reply.state.blobs)
        errors.update(dict.fromkeys(reply.state.errors))
        if isinstance(reply.outcome, Failed):
            errors[carried(reply.outcome.error)] = None
        value = _value_in_join(plan, step, reply)
        if value is None:
            continue
        if reply.source in lists:
            lists[reply.source].append(value)
        else:
            outputs[reply.source] = value
    outputs.update({source: list_of(values) for source, values in lists.items()})
    return State(input=inputs, outputs=outputs, blobs=blobs, errors=list(errors))


def list_of(values: Iterable[Raw]) -> Raw:
    """Return the JSON list of these JSON values."""
    return Raw(b"[" + b",".join(bytes(value) for value in values) + b"]")


def _value_in_join(plan: Plan, step: str, reply: Reply) -> Raw | None:
    match reply.outcome:
        case Done():
            return reply.outcome.output
        case Failed() if plan.on_failed_branch(step, reply.source) == "pass":
            return error_value(reply.outcome.error)
        case _:
            return None


def error_value(error: Error) -> Raw:
    """Return an error as a value that stands in the place of an output: what went wrong, and not in which line."""
    return Raw(msgspec.json.encode({"error": msgspec.structs.replace(error, at=None, traceback="")}))


def carried(error: Error) -> Error:
    """Return an error as it travels on: its traceback is in its own step's record, and belongs in no prompt."""
    return msgspec.structs.replace(error, traceback="") if error.traceback else error
