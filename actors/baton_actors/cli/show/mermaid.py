"""A flow as text for Mermaid, which GitHub and many editors draw. Pure."""

from __future__ import annotations

from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.conditions import written
from baton_schemas.flow.graph import Plan

_PLAIN = " .,'_-/()\N{MULTIPLICATION SIGN}"


def mermaid_of(plan: Plan) -> str:
    """Return a flow chart: steps as boxes, joins as hexagons, a fan-out as an arrow that says over what.

    Agents that may be asked are rounded boxes, at the end of dotted arrows; runs of other flows have double sides.
    """
    ids = {name: f"s{number}" for number, name in enumerate(plan.flow.steps)}
    lines = ["flowchart TD", "  in([input])"]
    lines += [f"  {ids[name]}{_shape(plan, name)}" for name in plan.flow.steps]
    for name in plan.flow.steps:
        says = arrow_of(plan, name)
        arrow = f'-->|"{"<br/>".join(map(_escaped, says))}"|' if says else "-->"
        for source in [ids[source] for source in plan.before(name)] or ["in"]:
            lines.append(f"  {source} {arrow} {ids[name]}")
    for last in plan.loops:
        text = "<br/>".join(map(_escaped, again_of(plan, last)))
        lines.append(f'  {ids[last]} -.->|"{text}"| {ids[plan.first_of_loop(last)]}')
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


def arrow_of(plan: Plan, name: str) -> list[str]:
    """Return what an arrow to a step says: over what it fans out, and what is to hold for it to be done."""
    step = plan.flow.steps[name]
    at_once = f", {step.concurrency} at once" if step.concurrency is not None else ""
    each = [f"\N{MULTIPLICATION SIGN} each {step.each}{at_once}"] if step.each else []
    return each + conditions_of(plan, name)


def conditions_of(plan: Plan, name: str) -> list[str]:
    """Return what is to hold for a step to be done, a line for each condition: `if classify.kind is 'refund'`."""
    return [f"{'and' if number else 'if'} {text}" for number, text in enumerate(written(plan.flow.steps[name].when))]


def again_of(plan: Plan, last: str, *, arrow: bool = True) -> list[str]:
    """Return what is to hold for another round of the loop that a step ends, and how many there are at the most.

    Without an `arrow` it says from where. Nothing for a step that ends none.
    """
    again = plan.flow.steps[last].again
    if again is None:
        return []
    where = [] if arrow else [f"again from {again.start}"]
    texts = [
        f"{'and' if number else 'again if' if arrow else 'if'} {text}"
        for number, text in enumerate(written(again.when))
    ]
    return [*where, *texts, f"at most {again.max_rounds} rounds"]


def _escaped(text: str) -> str:
    """Return a text as Mermaid takes it within quotes: what could end them, or be markup, by its number."""
    return "".join(char if char.isalnum() or char in _PLAIN else f"#{ord(char)};" for char in text)


def _shape(plan: Plan, name: str) -> str:
    # Step names are tokens, which cannot break the quotes.
    nested = plan.nested_of(plan.flow.steps[name].agent)
    if nested is not None:
        return f'[["{name}: {nested.flow.name}"]]'
    person = plan.agent(name).person
    label = f"{name}<br>asks {person}" if person else name
    return f'{{{{"{label}"}}}}' if (plan.opening(name) or name) in plan.joins else f'["{label}"]'
