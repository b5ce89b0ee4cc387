"""A flow as text for Mermaid, which GitHub and many editors draw. Pure."""

from __future__ import annotations

from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.graph import Plan


def mermaid_of(plan: Plan) -> str:
    """Return a flow chart: steps as boxes, joins as hexagons, a fan-out as an arrow that says over what.

    Agents that may be asked are rounded boxes, at the end of dotted arrows; runs of other flows have double sides.
    """
    ids = {name: f"s{number}" for number, name in enumerate(plan.flow.steps)}
    lines = ["flowchart TD", "  in([input])"]
    lines += [f"  {ids[name]}{_shape(plan, name)}" for name in plan.flow.steps]
    for name in plan.flow.steps:
        each, limit = plan.flow.steps[name].each, plan.flow.steps[name].concurrency
        at_once = f", {limit} at once" if limit is not None else ""
        arrow = f'-->|"\N{MULTIPLICATION SIGN} each {each}{at_once}"|' if each else "-->"
        for source in [ids[source] for source in plan.before(name)] or ["in"]:
            lines.append(f"  {source} {arrow} {ids[name]}")
    final = plan.implied.get(plan.final, plan.final)
    lines += ["  out([output])", f"  {ids[final]} --> out"]
    lines += _asking(plan, ids)
    return "\n".join(lines) + "\n"


def _asking(plan: Plan, ids: dict[str, str]) -> list[str]:
    """Return who may ask whom, as dotted arrows; an agent that does no step is a box with round corners."""
    flow, asked = plan.flow, asked_agents(plan.flow)
    places = {name: [ids[step] for step in flow.steps if flow.steps[step].agent == name] for name in flow.agents}
    boxes = {name: f"a{number}" for number, name in enumerate(flow.agents) if name in asked and not places[name]}
    places |= {name: [box] for name, box in boxes.items()}
    arrows = [
        f"  {asker} -.->|asks| {places[worker][0]}"
        for name, agent in flow.agents.items()
        for asker in places[name]
        for worker in agent.workers
    ]
    return [*(f'  {box}("{name}")' for name, box in boxes.items()), *arrows]


def _shape(plan: Plan, name: str) -> str:
    # Step names are tokens; `each` may have dots: neither can break the quotes.
    nested = plan.nested_of(plan.flow.steps[name].agent)
    if nested is not None:
        return f'[["{name}: {nested.flow.name}"]]'
    person = plan.agent(name).person
    label = f"{name}<br>asks {person}" if person else name
    return f'{{{{"{label}"}}}}' if (plan.opening(name) or name) in plan.joins else f'["{label}"]'
