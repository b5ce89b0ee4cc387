"""Whether agents can ask each other: workers that there are, bounds, and placeholders that name what they are given."""

from __future__ import annotations

from collections.abc import Iterable

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.flow import Agent, Field, Flow
from baton_schemas.flow.limits import check_at_least, check_parts
from baton_schemas.flow.prompts import Placeholder
from baton_schemas.flow.tools import KEY

_KEY_RULE = "1 to 64 characters from A-Z, a-z, 0-9, '_', '-' and '.': a model is told of it"


def check_workers(flow: Flow) -> None:
    """Raise `FlowError` for the first worker that is none, or is named twice, and for a bound that is none."""
    check_parts("agents", sum(len(agent.workers) for agent in flow.agents.values()))
    for name, agent in flow.agents.items():
        place = f"agents.{name}"
        for index, worker in enumerate(agent.workers):
            if worker not in flow.agents:
                hint = nearest(worker, flow.agents)
                raise FlowError(f"{place}.workers[{index}]", repr(worker), "an agent of this flow", hint=hint)
            if worker in agent.workers[:index]:
                raise FlowError(f"{place}.workers[{index}]", f"{worker!r} once more", "each worker once")
        for key in ("max_rounds", "max_asks", "max_depth"):
            check_at_least(f"{place}.{key}", getattr(agent, key), 1)


def asked_agents(flow: Flow) -> frozenset[str]:
    """Return the agents that a run may ask: workers of those that its steps use, and theirs, and so on."""
    pending, found = [step.agent for step in flow.steps.values()], set[str]()
    seen = set(pending)
    while pending:
        for worker in flow.agents[pending.pop()].workers:
            found.add(worker)
            if worker not in seen:
                seen.add(worker)
                pending.append(worker)
    return frozenset(found)


def refuse_unused(flow: Flow, name: str) -> None:
    """Raise the `FlowError` for an agent that no step uses and nobody asks who is used."""
    askers = [asker for asker, agent in flow.agents.items() if name in agent.workers and asker != name]
    asked = f", and only {', '.join(map(repr, askers))} may ask, which no step leads to" if askers else ""
    raise FlowError(
        f"agents.{name}",
        f"the agent {name!r}, which no step uses{asked}",
        "a step for every agent, or an agent of a step that has it among its `workers`",
        hint=f"Add [steps.{name}], correct a step's `agent`, or remove this one.",
    )


def check_given(place: str, agent: Agent, key: str, named: Iterable[Placeholder]) -> None:
    """Raise `FlowError` for the first placeholder that names nothing that an agent is given when it is asked.

    `place` is that of the agent, `key` that of the prompt. It is given its `input`, and nothing of the flow's.
    """
    for found in named:
        if found.name not in agent.input:
            expected = "a name of its `input`: that is all it is given when another agent asks it"
            hint = nearest(found.name, agent.input) if agent.input else ""
            raise FlowError(
                f"{place}.{key}",
                f"the placeholder {{{found.name}}} at character {found.position}",
                expected,
                hint=hint or f'Declare it: input = {{ {found.name} = "str" }}.',
                near=f"{{{found.name}",
            )


def check_keys(place: str, fields: dict[str, Field]) -> None:
    """Raise `FlowError` for the first field, also within records, whose name no model can be told."""
    for name, field in fields.items():
        if not KEY.match(name):
            raise FlowError(f"{place}.{name}", repr(name), _KEY_RULE)
        check_keys(f"{place}.{name}.fields", field.fields)
