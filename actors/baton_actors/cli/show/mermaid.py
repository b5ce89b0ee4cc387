"""A flow as text for Mermaid, which GitHub and many editors draw. Pure."""

from __future__ import annotations

from baton_schemas.flow.graph import Plan


def mermaid_of(plan: Plan) -> str:
    """Return a flow chart: steps as boxes, joins as hexagons, a fan-out as an arrow that says over what."""
    ids = {name: f"s{number}" for number, name in enumerate(plan.flow.steps)}
    lines = ["flowchart TD", "  in([input])"]
    lines += [f"  {ids[name]}{_shape(plan, name)}" for name in plan.flow.steps]
    for name in plan.flow.steps:
        each = plan.flow.steps[name].each
        arrow = f'-->|"\N{MULTIPLICATION SIGN} each {each}"|' if each else "-->"
        for source in [ids[source] for source in plan.sources[name]] or ["in"]:
            lines.append(f"  {source} {arrow} {ids[name]}")
    lines += ["  out([output])", f"  {ids[plan.final]} --> out"]
    return "\n".join(lines) + "\n"


def _shape(plan: Plan, name: str) -> str:
    # Step names are tokens; `each` may have dots: neither can break the quotes.
    return f'{{{{"{name}"}}}}' if name in plan.joins else f'["{name}"]'
