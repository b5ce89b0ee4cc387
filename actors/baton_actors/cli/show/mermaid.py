"""A flow as text for Mermaid, which GitHub and many editors draw. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from baton_schemas.flow.graph import Plan
from baton_schemas.show.graph_words import arrow_of
from baton_schemas.show.layout import Layout, Node, layout_of

_PLAIN = " .,'_-/()\N{MULTIPLICATION SIGN}"


def mermaid_of(plan: Plan) -> str:
    """Return a flow chart: steps as boxes, joins as hexagons, a fan-out as an arrow that says over what.

    Agents that may be asked are rounded boxes, at the end of dotted arrows; runs of other flows have double sides.
    """
    layout = layout_of(plan)
    ids = {name: f"s{number}" for number, name in enumerate(layout.nodes)}
    lines = ["flowchart TD", "  in([input])"]
    lines += [f"  {ids[name]}{_shape(node)}" for name, node in layout.nodes.items()]
    sources = {name: ["in"] for name in layout.first} | {edge.target: [] for edge in layout.edges}
    for edge in layout.edges:
        sources[edge.target].append(ids[edge.source])
    for name in layout.nodes:
        says = arrow_of(plan, name)
        arrow = f'-->|"{_in_lines(says)}"|' if says else "-->"
        lines += [f"  {source} {arrow} {ids[name]}" for source in sources[name]]
    lines += [f'  {ids[loop.last]} -.->|"{_in_lines(loop.says)}"| {ids[loop.first]}' for loop in layout.loops]
    lines += ["  out([output])", f"  {ids[layout.final]} --> out"]
    lines += _asking(plan, layout, ids)
    return "\n".join(lines) + "\n"


def _asking(plan: Plan, layout: Layout, ids: dict[str, str]) -> list[str]:
    """Return who may ask whom, as dotted arrows; an agent that does no step is a box with round corners."""
    numbers = {name: number for number, name in enumerate(plan.flow.agents)}
    beside = sorted(layout.beside, key=lambda each: numbers[each.agent])
    boxes = {each.key: f"a{numbers[each.agent]}" for each in beside}
    ids = ids | boxes
    arrows = [f"  {ids[ask.asker]} -.->|asks| {ids[ask.asked]}" for ask in layout.asks]
    return [*(f'  {boxes[each.key]}("{each.agent}")' for each in beside), *arrows]


def _in_lines(texts: Iterable[str]) -> str:
    return "<br/>".join(map(_escaped, texts))


def _escaped(text: str) -> str:
    """Return a text as Mermaid takes it within quotes: what could end them, or be markup, by its number."""
    return "".join(char if char.isalnum() or char in _PLAIN else f"#{ord(char)};" for char in text)


def _shape(node: Node) -> str:
    # Step names are tokens, which cannot break the quotes.
    if node.does == "flow":
        return f'[["{node.step}: {node.by}"]]'
    label = f"{node.step}<br>asks {node.by}" if node.does == "person" else node.step
    return f'{{{{"{label}"}}}}' if node.joins else f'["{label}"]'
