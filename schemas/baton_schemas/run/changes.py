"""What differs between two versions of a flow, as far as it decides what a finished step had come to.

A step is changed when what it was told, what it was given, or what it was given it by is another: the model, the
prompts or the handler's key of its agent (of a person: who is asked, and what may be answered), the values that it
reads, its `each`, `when` and `again`, the steps right before it, or how it joins them; or when an agent that it may ask
is another. Another `max_tokens` touches only answers that were cut off, or that would be now; those of agents that are
asked are not looked at, and count as such. How often, how long and by whom a step is tried (`max_attempts`,
`timeout_s`, `actor`, …) is no such change, nor is the name of its agent or what a failure of it would have meant. The
code that a handler's key names is in no flow: that it was edited is not seen here.
"""

from __future__ import annotations

import hashlib

from msgspec import Struct
from msgspec.structs import fields, replace

from baton_schemas.flow.conditions import roots_of
from baton_schemas.flow.flow import Agent
from baton_schemas.flow.graph import Plan, each_of
from baton_schemas.flow.tools import tools_of
from baton_schemas.wire.outcomes import Blob, Done, Failed, Outcome, State, Value

from .past import Past


class Change(Struct, frozen=True):
    """What of an agent is another in the later version."""

    key: str
    """As in flow files."""
    before: object
    after: object


def changed_agents(before: Plan, after: Plan) -> dict[str, list[Change]]:
    """Return what changed, by agent of the later version in its order; `[]` for one that the other has not.

    The model is the one that its tier names.
    """
    found: dict[str, list[Change]] = {}
    for name, agent in after.flow.agents.items():
        old = before.flow.agents.get(name)
        if old is None:
            found[name] = []
        elif changes := _changes(_told(before, old), _told(after, agent)):
            found[name] = changes
    return found


def why_changed(past: Past, plan: Plan, given: State, step: str) -> str:
    """Return why a step of the later version is not what it was in the run: `its prompt`; empty when it is.

    `given` is the input of the run that goes on. Nothing is said here of the steps before it.
    """
    before = past.plan
    if step not in before.steps:
        return "it is new"
    old, new = before.steps[step], plan.steps[step]
    keys = {change.key for change in _changes(_told(before, before.agent(step)), _told(plan, plan.agent(step)))}
    if changed := [key for key in _DECIDING if key in keys]:
        return f"another {', '.join(changed)}"
    if _version(before, old.agent) != _version(plan, new.agent):
        return "another version of its flow"
    if why := _why_asks_otherwise(before, plan, step):
        return why
    if old.each != new.each:
        return "another each"
    if old.when != new.when:
        return "another when"
    if old.again != new.again:
        return "another again"
    if before.loops.get(before.loop_of.get(step, "")) != plan.loops.get(plan.loop_of.get(step, "")):
        return "another loop"
    if frozenset(before.sources[step]) != frozenset(plan.sources[step]):
        return "another after"
    if before.reads[step] != plan.reads[step]:
        return "it reads other values"
    if step in plan.joins and (why := _why_joins_otherwise(past, plan, step)):
        return why
    looked_at = plan.reads[step] | each_of(plan, step) | roots_of(new.when)
    if new.again is not None:
        looked_at |= roots_of(new.again.when)
    names = looked_at & (before.flow.input.keys() | plan.flow.input.keys())
    others = [name for name in sorted(names) if not _is_same(past.first.state, given, name)]
    return f"another input {', '.join(others)}" if others else ""


_DECIDING = (
    *("model", "system", "prompt", "handler"),
    *("workers", "tools", "flow", "given", "person", "answers", "output", "output_schema", "default"),
)


def answers_alike(before: Plan, after: Plan, agent: str) -> bool:
    """Say whether what an agent answered when it was asked still stands: it is who it was, and in both versions."""
    old, new = before.flow.agents.get(agent), after.flow.agents.get(agent)
    if old is None or new is None:
        return old is new
    keys = {change.key for change in _changes(_told(before, old), _told(after, new))}
    return _version(before, agent) == _version(after, agent) and not keys.intersection((*_DECIDING, "max_tokens"))


def _why_asks_otherwise(before: Plan, plan: Plan, step: str) -> str:
    """Return what would make the agents that a step's agent may ask answer otherwise, or its model be told of others.

    Which of them it did ask is not looked at: what it would ask now, only its handler knows.
    """
    if step in plan.implied:
        return ""  # nobody is called
    pending, seen = [plan.flow.steps[step].agent], set[str]()
    while pending:
        name = pending.pop(0)
        agent, old = plan.flow.agents[name], before.flow.agents.get(name if seen else before.flow.steps[step].agent)
        seen.add(name)
        if old is None:
            continue  # nobody can have asked it
        if agent.asks_models and tools_of(plan.flow, agent) != tools_of(before.flow, old):
            return "it may ask others" if len(seen) == 1 else f"{name}, which it may ask, may ask others"
        keys = {change.key for change in _changes(_told(before, old), _told(plan, agent))}
        if len(seen) > 1 and _version(before, name) != _version(plan, name):
            return f"another version of the flow {name}, which it may ask"
        if len(seen) > 1 and (changed := [key for key in (*_DECIDING, "max_tokens") if key in keys]):
            return f"another {', '.join(changed)} of {name}, which it may ask"
        pending += [worker for worker in agent.workers if worker not in seen and worker not in pending]
    return ""


def _version(plan: Plan, agent: str) -> str:
    """Return which version of a flow an agent is; empty for one that is none."""
    nested = plan.nested_of(agent)
    return nested.digest if nested is not None else ""


def is_cut_otherwise(past: Past, plan: Plan, step: str, outcome: Outcome) -> bool:
    """Say whether a model's answer was cut off, or would be now, as `max_tokens` is another than it was."""
    agent = plan.agent(step)
    if not agent.asks_models or not isinstance(outcome, Done):
        return False
    limit = plan.tier(agent).max_tokens
    if limit == past.plan.tier(past.plan.agent(step)).max_tokens:
        return False
    usage = outcome.work.usage
    return outcome.truncated or usage is None or usage.output_tokens > limit


def _told(plan: Plan, agent: Agent) -> Agent:
    """Return an agent with the model and the `max_tokens` that its tier gives it."""
    if not agent.asks_models:
        return agent
    tier = plan.tier(agent)
    return replace(agent, model=tier.model, max_tokens=tier.max_tokens)


def _changes(before: Agent, after: Agent) -> list[Change]:
    pairs = [(field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(Agent)]
    return [Change(name, old, new) for name, old, new in pairs if old != new]


def _why_joins_otherwise(past: Past, plan: Plan, step: str) -> str:
    """Return what would make the join close with other branches, or make something else of them."""
    old, new = past.plan.join_policy(step), plan.join_policy(step)
    if (old.wait, old.min_done, old.deadline_s) != (new.wait, new.min_done, new.deadline_s):
        return "another join"
    for source in plan.sources[step]:
        tokens = [token for each in past.rounds(source) for token in past.tokens(each)]
        failed = any(isinstance(past.outcomes[token], Failed) for token in tokens)
        if failed and past.plan.on_failed_branch(step, source) != plan.on_failed_branch(step, source):
            return "a failed branch means something else to its join"
    return ""


def _is_same(before: State, after: State, name: str) -> bool:
    """Say whether a field of the input has the same value, wherever that is kept."""
    old, new = _input(before, name), _input(after, name)
    if isinstance(old, Blob) == isinstance(new, Blob):
        return old == new
    return old is not None and new is not None and _sha256(old) == _sha256(new)


def _input(state: State, name: str) -> Value | None:
    return state.input.get(name) or state.blobs.get(name)


def _sha256(value: Value) -> str:
    return value.sha256 if isinstance(value, Blob) else hashlib.sha256(bytes(value)).hexdigest()
