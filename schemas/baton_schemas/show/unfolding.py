"""What steps asked for, as a tree of which a screen has room: children that are alike in one row where they are many.

Pure; `rows.py` makes rows of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from baton_schemas.run.state import StepState
from baton_schemas.wire.messages import AskedKind

from .children import Child, Children, parked_upon

CHILDREN_MAX = 24
"""Rows of children in one table: with those of the steps they are to fit a screen."""
_ALONE_MAX = 5
"""Children of one name below one row that have rows of their own; more share one, as branches do."""
_NAMES_MAX = 6
"""Names below one row; where there are more, all of a kind share one: an event a page, say, has as many names."""
_KINDS: dict[AskedKind, str] = {
    "agent": "agents",
    "flow": "flows",
    "person": "people",
    "sleep": "sleeps",
    "event": "events",
}
_TIMES = "\N{MULTIPLICATION SIGN}"


_ROWS_MIN = 3
"""Rows of children that there are at least, however small a screen is."""


def room_for(lines: int) -> int:
    """Return how many rows of children there are where a screen has so many lines for them."""
    return max(min(CHILDREN_MAX, lines), _ROWS_MIN)


class Node:
    """One row: a step, or the children of one name, and below it what they asked for."""

    def __init__(self, members: Sequence[StepState], name: str, depth: int = 0, kind: AskedKind | None = None) -> None:
        self.members, self.name, self.depth, self.kind = members, name, depth, kind
        self.below: list[Node] = []
        self.hidden = 0
        """What was asked below it, as far down as it goes, and has no row."""


def unfold(nodes: Iterable[Node], children: Children, orphans: Sequence[Child], rows_max: int) -> list[Node]:
    """Put below these nodes what they asked for, and below that what it did, to about `rows_max` nodes in all.

    Returns nodes for `orphans`, whose asker is not known. What is nearer to the flow's steps is unfolded first.
    """
    seen: set[str] = set()  # in a stranger's log two may ask for each other
    beside = Node((), "")
    left = rows_max - _put_below(beside, orphans, rows_max, seen)
    level = [*nodes, *beside.below]
    while level:
        for node in level:
            asked = _asked_of(node.members, children, seen)
            if left > 0:
                left -= _put_below(node, asked, left, seen)
            while left <= 0 and asked and not node.below:
                node.hidden += len(asked)
                seen |= {child.step.name for child in asked}
                asked = _asked_of([child.step for child in asked], children, seen)
        level = [below for node in level for below in node.below]
    return beside.below


def _asked_of(members: Iterable[StepState], children: Children, seen: set[str]) -> list[Child]:
    return [child for step in members for child in children.of(step.name) if child.step.name not in seen]


def _put_below(node: Node, asked: Sequence[Child], left: int, seen: set[str]) -> int:
    """Put what was asked below a node; return how many nodes that took: few where there is no room for all."""
    seen |= {child.step.name for child in asked}
    groups: dict[str, list[Child]] = {}
    for child in asked:
        groups.setdefault(child.name, []).append(child)
    if len(groups) > (_NAMES_MAX if left >= _NAMES_MAX else 1):
        groups = {}
        for child in asked:
            groups.setdefault(_KINDS[child.step.asked or "agent"], []).append(child)
    room = left - len(groups)
    for name, group in groups.items():
        kind, depth = group[0].step.asked or "agent", node.depth + 1
        if len(group) <= min(_ALONE_MAX, room + 1):
            node.below += [Node((child.step,), child.name, depth, kind) for child in group]
            room -= len(group) - 1
        else:
            node.below.append(Node([child.step for child in group], name, depth, kind))
    return len(node.below)


def awaits(awaited: Sequence[Child]) -> str:
    """Return in a few words what a step asked for and has no answer of: `researcher #3, sleep #1`."""
    groups: dict[str, list[Child]] = {}
    for child in awaited:
        groups.setdefault(child.name, []).append(child)
    words = [group[0].label if len(group) == 1 else f"{name} {_TIMES}{len(group):,}" for name, group in groups.items()]
    return ", ".join(words[:3]) + (f" and {len(words) - 3:,} more" if len(words) > 3 else "")


def waits_of_step(step: StepState, asked: Sequence[Child], now: datetime | None) -> tuple[str, float | None] | None:
    """Return what a step waits for beside those of its own `asked` children, and for how long still; None for nothing.

    One whose retry is due does not wait, whether or not it has begun.
    """
    if step.waits and not parked_upon(step, asked):
        left_s = (step.due_at - now).total_seconds() if step.due_at and now else None
        return (step.waits, left_s) if left_s is None or left_s > 0 else None
    if step.status != "queued":
        return None
    left_s = (step.answers_at - now).total_seconds() if step.answers_at and now else None
    match step.asked:
        case "person":
            return "a person", None
        case "event":
            return "a word from outside", None
        case "sleep":
            return ("its time", left_s) if left_s is None or left_s > 0 else None
        case _:
            return None
