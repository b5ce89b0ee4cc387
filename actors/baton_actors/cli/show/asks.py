"""Which agents a flow's agents may ask while they work, as lines beside who asks. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from baton_schemas.flow.graph import Plan

_LINES_MAX = 12
"""Beside one step; `--json` has all."""
_LINE = "\N{BOX DRAWINGS LIGHT TRIPLE DASH HORIZONTAL}"


def asks_lines(plan: Plan, step: str) -> tuple[str, ...]:
    """Return a line for each agent that the agent of a step may ask, and below it for those that this one may."""
    lines = list(_lines(plan, plan.flow.steps[step].agent, 0, set()))
    return tuple(lines if len(lines) <= _LINES_MAX else [*lines[: _LINES_MAX - 1], f"{_LINE} and more"])


def _lines(plan: Plan, asker: str, depth: int, told: set[str]) -> Iterator[str]:
    told.add(asker)
    for name in plan.flow.agents[asker].workers:
        who = "itself" if name == asker else name
        again = name in told and name != asker and bool(plan.flow.agents[name].workers)
        yield f"{'   ' * depth}{_LINE} asks {who}" + (" (as above)" if again else "")
        if name not in told and depth < _LINES_MAX:
            yield from _lines(plan, name, depth + 1, told)
