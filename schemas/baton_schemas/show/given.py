"""What a step was given: the values that it reads, from its handoff or from the branches that it joins.

What is kept beside the log is named, and stands in its place once somebody has fetched it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import ERRORS, find, state_at, state_of_join
from baton_schemas.run.refs import base_of, joined, named, replied
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Asked, Handoff, Reply, Woken
from baton_schemas.wire.outcomes import Blob, Done, Error, State, Value

from .children import is_child

Fetched = Mapping[str, bytes]
"""What is kept beside the log, as far as it was fetched, by its SHA-256."""

_decode_errors = msgspec.json.Decoder(list[Error]).decode


class Given(Struct, frozen=True, kw_only=True):
    """The handoff that gave a step to its actor, and the replies that it rests on, in their order."""

    handoff: Handoff
    replies: tuple[Reply, ...] = ()
    missing: tuple[str, ...] = ()
    """Branches that the handoff names and whose replies are not in the log."""


def given_to(entries: Iterable[Entry], step: str) -> Given | None:
    """Return what gave a step (or a branch) to its actor; None when nothing in these entries did."""
    handoff: Handoff | None = None
    replies: dict[str, Reply] = {}
    for entry in entries:
        match entry.message:
            case Handoff(step=name) as message if name == step:
                # One that woke the step says the same; it is all there is where the other was purged.
                if handoff is None or (isinstance(handoff.cause, Woken) and not isinstance(message.cause, Woken)):
                    handoff = message
            case Reply(step=name) as reply if name == step:
                replies.setdefault(replied(reply), reply)
            case _:
                pass
    return None if handoff is None else _rests_on(handoff, replies)


def _rests_on(handoff: Handoff, replies: Mapping[str, Reply]) -> Given:
    closing = joined(handoff)
    if closing is None:
        return Given(handoff=handoff)
    try:
        names = named(closing)
    except ValueError:  # a stranger's
        return Given(handoff=handoff)
    return Given(
        handoff=handoff,
        replies=tuple(replies[name] for name in names if name in replies),
        missing=tuple(name for name in names if name not in replies),
    )


def blobs_of(plan: Plan, given: Given) -> list[Blob]:
    """Return what is kept beside the log of all that a step was given and reads, each once."""
    handoff = given.handoff
    read = {plan.key(handoff.step, name) for name in _reads(plan, handoff)}
    wanted = {*read, plan.opening(base_of(handoff)), ERRORS}
    states = [state_at(given.handoff), *(reply.state for reply in given.replies)]
    found = [blob for state in states for name, blob in state.blobs.items() if name in wanted]
    found += [reply.outcome.blob for reply in given.replies if isinstance(reply.outcome, Done) and reply.outcome.blob]
    if given.handoff.branch is not None and given.handoff.branch.blob is not None:
        found.append(given.handoff.branch.blob)
    return list({blob.sha256: blob for blob in found}.values())


def values_of(plan: Plan, given: Given, fetched: Fetched) -> dict[str, Value]:
    """Return the values that a step reads, in the order of the flow; `errors` only where there are any.

    Of a child they are its arguments. Raises KeyError for a step that the flow has not.

    One that was not fetched is a `Blob`; within the list of a fan-out it is `{"sha256": …, "size_bytes": …}`.
    """
    handoff = given.handoff
    state = _state(plan, given, fetched)
    values: dict[str, Value] = {}
    if (branch := handoff.branch) is not None:
        values["item"] = inline(branch.blob or branch.item, fetched)
        values["index"] = Raw(str(branch.index).encode())
    for name in _reads(plan, handoff):
        value = find(state, plan.key(handoff.step, name))
        if value is not None:
            values[name] = inline(value, fetched)
    if state.errors:
        values["errors"] = Raw(msgspec.json.encode(state.errors))
    return values


def _reads(plan: Plan, handoff: Handoff) -> list[str]:
    """Return the names that a step reads, in the order of the flow; of a child those that it was asked with.

    Raises KeyError for a step that the flow has not.
    """
    if is_child(handoff.step):
        is_agent = not isinstance(handoff.cause, Asked) or handoff.cause.kind == "agent"
        return list(plan.agent(handoff.step).input if is_agent else [*handoff.state.input, *handoff.state.blobs])
    reads = plan.reads[base_of(handoff)]
    return [name for name in (*plan.flow.input, *plan.order) if name in reads]


def _state(plan: Plan, given: Given, fetched: Fetched) -> State:
    handoff = given.handoff
    if joined(handoff) is None:
        return _with_errors(state_at(handoff), fetched)
    return _with_errors(state_of_join(plan, handoff, replies_of(given, fetched)), fetched)


def replies_of(given: Given, fetched: Fetched) -> list[Reply]:
    """Return the replies that a joining step rests on, in their order, with outputs and errors inline."""
    return [_whole(reply, fetched) for reply in given.replies]


def _whole(reply: Reply, fetched: Fetched) -> Reply:
    reply = replace(reply, state=_with_errors(reply.state, fetched))
    if not isinstance(reply.outcome, Done) or reply.outcome.blob is None:
        return reply
    value = inline(reply.outcome.blob, fetched)
    output = Raw(msgspec.json.encode(value)) if isinstance(value, Blob) else value
    return replace(reply, outcome=replace(reply.outcome, output=output, blob=None))


def _with_errors(state: State, fetched: Fetched) -> State:
    """Return a state with the errors inline that are beside the log, if they were fetched."""
    blob = state.blobs.get(ERRORS)
    if blob is None or blob.sha256 not in fetched:
        return state
    try:
        before = _decode_errors(fetched[blob.sha256])
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return state
    rest = {name: other for name, other in state.blobs.items() if name != ERRORS}
    return replace(state, blobs=rest, errors=[*before, *state.errors])


def inline(value: Value, fetched: Fetched) -> Value:
    """Return a value that is kept beside the log as itself, if it was fetched."""
    return Raw(fetched[value.sha256]) if isinstance(value, Blob) and value.sha256 in fetched else value
