"""The steps of a flow as they are done: those that are written, and those that `each` implies beside them.

The branches of a last step with `each` are merged by a step that puts out their list, `{step}--list`. Before a step
with `each` that joins there is one which joins for it, `{step}--join`: so that each step either joins or fans out. No
step that is written has a double hyphen in its name. The flow, and its digest, stay as they are written.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from baton_schemas.flow.flow import Agent, Flow, Step
from baton_schemas.wire.names import JOIN, LIST

CLOSING, OPENING = f"--{LIST}", f"--{JOIN}"
IMPLIED = Agent(handler="built-in:merge", reads=[])
"""Who does a step that is implied: any worker of the actor of the step that implies it, without code or model."""


class Layout(NamedTuple):
    """The steps of a flow as they are done, in the order of the flow."""

    steps: dict[str, Step]
    sources: dict[str, tuple[str, ...]]
    """By step: those that come right before it."""
    implied: dict[str, str]
    """By step that is implied: the one that implies it."""


def lay_out(flow: Flow) -> Layout:
    """Return the steps of a flow that passed `check_flow`, or whose names lead somewhere at least."""
    written = {name: sources_of(flow, name) for name in flow.steps}
    waited_for = {source for sources in written.values() for source in sources}
    steps: dict[str, Step] = {}
    sources: dict[str, tuple[str, ...]] = {}
    implied: dict[str, str] = {}
    for name, step in flow.steps.items():
        joins = joins_before(flow, written[name])
        if step.each and joins:
            opening = name + OPENING
            steps[opening] = replace(step, each="", concurrency=None, when=None, after=list(written[name]))
            sources[opening], implied[opening] = written[name], name
        steps[name] = step
        sources[name] = (name + OPENING,) if step.each and joins else written[name]
        if step.each and name not in waited_for:
            closing = name + CLOSING
            join = None if joins else step.join
            steps[closing] = replace(step, each="", concurrency=None, when=None, after=[name], join=join)
            sources[closing], implied[closing] = (name,), name
    return Layout(steps, sources, implied)


def joins_before(flow: Flow, sources: tuple[str, ...]) -> bool:
    """Say whether a step that comes after these waits for several branches."""
    return len(sources) > 1 or any(source in flow.steps and flow.steps[source].each for source in sources)


def sources_of(flow: Flow, name: str) -> tuple[str, ...]:
    """Return the steps that a flow names right before one: `after`, and the step whose list `each` names."""
    step = flow.steps[name]
    root = step.each.split(".")[0]
    if root in flow.steps and not step.after:
        return (root,)
    return tuple(step.after)
