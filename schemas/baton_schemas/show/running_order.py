"""Steps, branches and children of a run in the order in which they are done, whatever came first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import parse, whole
from baton_schemas.run.state import RunState

from .children import Children, is_child
from .rows import in_order


def running_order(plan: Plan | None, state: RunState) -> list[str]:
    """Return the tokens that a log names: by the flow, then by branch, each followed by what it asked for.

    Without a plan it is the order of the log. Model calls that go in batches are part of who asked for them.
    """
    children = Children(state)
    groups: dict[str, list[str]] = {name: [] for name in in_order(plan, state)} if plan else {}
    for name in state.steps:
        if not is_child(name):
            groups.setdefault(name if name in groups else whole(name), []).append(name)
    found: dict[str, None] = {}
    for names in groups.values():
        pending = sorted(names, key=lambda name: parse(name).index or 0, reverse=True)
        while pending:
            name = pending.pop()
            if name not in found:  # in a stranger's log two may ask for each other
                found[name] = None
                pending += [child.step.name for child in reversed(children.of(name))]
    return [*found, *(name for name, step in state.steps.items() if name not in found and step.asked != "batch")]


def together(before: Sequence[str], after: Iterable[str]) -> list[str]:
    """Return two orders as one: that of the first, with what only the second has behind what it comes after there."""
    known = set(before)
    behind: dict[str | None, list[str]] = {}
    last: str | None = None
    for name in after:
        if name in known:
            last = name
        else:
            behind.setdefault(last, []).append(name)
    merged = list(behind.get(None, ()))
    for name in before:
        merged += [name, *behind.get(name, ())]
    return merged
