"""A flow drawn with characters: a box per step, one level below what it waits for, and lines between. Pure.

What stands where, `show/layout.py` of schemas says. Lines share a row between two levels only where they belong
together: those of one source, or, where no source has several, those to one target.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import NamedTuple

from baton_actors.cli.show.asks import asks_lines
from baton_schemas.flow.graph import Plan
from baton_schemas.show.graph_words import again_of, each_of
from baton_schemas.show.layout import Edge, Layout, Loop, Node, layout_of

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = " ╵╷│╴┘┐┤╶└┌├─┴┬┼"
"""A line character by the sides that it touches, as a sum of the four above."""
_GAP = 3
"""Columns between two boxes."""


class _Place(NamedTuple):
    """A box in a level, or the place where an edge passes it (no lines of text)."""

    key: str
    text: tuple[str, ...]
    beside: tuple[str, ...] = ()
    """On the right of the box: the agents that its agent may ask."""
    on_arrow: tuple[str, ...] = ()
    """What is said on the arrows to it, just above the box."""

    @property
    def width(self) -> int:
        """In columns; odd always, so that the middles of levels are in line."""
        return self.box_width + 2 * self.margin

    @property
    def box_width(self) -> int:
        """Of the box alone, in columns; what is said on the arrow to it has room above it."""
        wide = max((len(line) for line in self.on_arrow), default=0)
        return max(*(len(line) + 4 for line in self.text), wide) | 1 if self.text else 1

    @property
    def margin(self) -> int:
        """Of what is beside the box, in columns; on its left they are left free, so that it stands in the middle."""
        return max(map(len, self.beside), default=0)

    @property
    def lines(self) -> tuple[str, ...]:
        """The text with as many lines as what is beside it."""
        return (*self.text, *[""] * (len(self.beside) - len(self.text)))


def draw(plan: Plan, width: int) -> list[str]:
    """Return the lines of the drawing; a list of steps when the drawing would not fit into `width` columns."""
    layout = layout_of(plan)
    loops: dict[str, Loop] = {}
    levels, edges = _levels(plan, layout, plan.loops.keys())
    outer = {level[-1].key for level in levels}
    for loop in layout.loops:
        fits = _columns(levels) + _GAP + 2 + max(map(len, loop.says)) + 2 <= width
        if loop.first != loop.last and {loop.first, loop.last} <= outer and fits and not loops:
            loops[loop.last] = loop
    levels, edges = _levels(plan, layout, plan.loops.keys() - loops.keys())
    if _columns(levels) + 2 > width:
        return _as_list(plan, layout)
    canvas = _Canvas(levels, edges, _columns(levels))
    for loop in loops.values():
        canvas.arrow_back(loop.first, loop.last, loop.says)
    return canvas.lines()


def _columns(levels: list[list[_Place]]) -> int:
    return max(sum(place.width + _GAP for place in level) - _GAP for level in levels)


def _text(plan: Plan, node: Node, *, loops: bool) -> tuple[str, ...]:
    """Return the lines of a box; with `loops` a step with `again` says so itself, and no arrow does."""
    lines = [node.step]
    if node.does == "person":
        lines.append(f"asks {node.by}")
    if node.does == "flow":
        lines.append(f"a run of {node.by}")
    lines += each_of(plan, node.step)
    if node.joins:
        lines.append("joins all" if node.joins == "all" else f"joins the first {node.joins}")
    if node.lists:
        lines.append("puts out a list" + ("" if node.lists == "all" else f" of the first {node.lists}"))
    return (*lines, *(again_of(plan, node.step, arrow=False) if loops else ()))


def _levels(plan: Plan, layout: Layout, told: Collection[str]) -> tuple[list[list[_Place]], list[tuple[str, str]]]:
    """Return the places by level, and the edges between places of neighbouring levels.

    The boxes of the steps that are `told` say that there is a loop.
    """
    levels: list[list[_Place]] = []
    for number, row in enumerate(layout.rows):
        levels.append([])
        for each in row:
            if isinstance(each, Edge):
                levels[-1].append(_Place(_passing(each, number), ()))
            else:
                text, node = _text(plan, layout.nodes[each], loops=each in told), layout.nodes[each]
                levels[-1].append(_Place(each, text, asks_lines(plan, each), node.when))
    edges: list[tuple[str, str]] = []
    for edge in layout.edges:
        ends = [edge.source, *(_passing(edge, place.row) for place in edge.through), edge.target]
        edges += pairwise(ends)
    return levels, edges


def _passing(edge: Edge, row: int) -> str:
    return f"{edge.source} > {edge.target} {row}"


class _Canvas:
    """Cells, each with the sides that a line touches in it, and text over them."""

    def __init__(self, levels: list[list[_Place]], edges: list[tuple[str, str]], columns: int) -> None:
        self._sides: dict[tuple[int, int], int] = {}
        self._text: dict[tuple[int, int], str] = {}
        self._ends: dict[str, tuple[int, int]] = {}
        """By box: the row of its name, and its right side."""
        self._height = 0
        middles: dict[str, int] = {}
        starts: list[list[int]] = []
        for level in levels:
            column = (columns - sum(place.width + _GAP for place in level) + _GAP) // 2
            starts.append([])
            for place in level:
                starts[-1].append(column)
                middles[place.key] = column + place.width // 2
                column += place.width + _GAP
        for number, level in enumerate(levels):
            above = max(len(place.on_arrow) for place in level)
            for place in level:
                self._arrow(place, middles[place.key], above, arrives=number > 0)
            self._height += above
            tall = max(len(place.lines) for place in level) + 2
            for place, column in zip(level, starts[number], strict=True):
                self._place(place, column, middles[place.key], tall, arrives=number > 0)
            self._height += tall
            if number + 1 < len(levels):
                keys = {place.key for place in level}
                self._connect([(middles[a], middles[b]) for a, b in edges if a in keys])

    def arrow_back(self, first: str, last: str, says: tuple[str, ...]) -> None:
        """Draw an arrow from one box up to another, right of all that is drawn, and what it says beside it."""
        (to, left), (row, begin) = self._ends[first], self._ends[last]
        right = max(column for _, column in [*self._sides, *self._text]) + _GAP
        for at, start in ((to, left), (row, begin)):
            for column in range(start + 1, right):
                self._line(at, column, _LEFT | _RIGHT)
        self._line(row, begin, _RIGHT)
        self._line(row, right, _LEFT | _UP)
        self._line(to, right, _LEFT | _DOWN)
        for at in range(to + 1, row):
            self._line(at, right, _UP | _DOWN)
        self._text[to, left + 1] = "◄"
        above = max((to + row - len(says) + 1) // 2, 0)
        self._height = max(self._height, above + len(says))
        for at, line in enumerate(says, above):
            for offset, char in enumerate(line):
                self._text[at, right + 2 + offset] = char

    def lines(self) -> list[str]:
        """Return the drawing, indented by two."""
        right = max(column for _, column in [*self._sides, *self._text]) + 1
        return [
            "  " + "".join(self._cell(row, column) for column in range(right)).rstrip() for row in range(self._height)
        ]

    def _cell(self, row: int, column: int) -> str:
        return self._text.get((row, column)) or _LINES[self._sides.get((row, column), 0)]

    def _line(self, row: int, column: int, sides: int) -> None:
        self._sides[row, column] = self._sides.get((row, column), 0) | sides

    def _arrow(self, place: _Place, middle: int, tall: int, *, arrives: bool) -> None:
        """Draw the arrow to a box, or a line that passes, through so many rows, and what it says over its end."""
        for row in range(self._height, self._height + tall if arrives else self._height):
            self._line(row, middle, _UP | _DOWN)
        for row, line in enumerate(place.on_arrow, self._height + tall - len(place.on_arrow)):
            for offset, char in enumerate(line):
                self._text[row, middle - len(line) // 2 + offset] = char

    def _place(self, place: _Place, left: int, middle: int, tall: int, *, arrives: bool) -> None:
        """Draw a box as tall as it needs, and the line from it to the end of its level; or a line that passes."""
        top = self._height
        box = len(place.lines) + 2 if place.text else 0
        for row in range(top + box, top + tall):
            self._line(row, middle, _UP | _DOWN)
        if not box:
            return
        left += place.margin
        right, bottom = left + place.box_width - 1, top + box - 1
        self._ends[place.key] = (top + 1, right + place.margin + bool(place.margin))
        for row in (top, bottom):
            for column in range(left + 1, right):
                self._line(row, column, _LEFT | _RIGHT)
        for row in range(top + 1, bottom):
            self._line(row, left, _UP | _DOWN)
            self._line(row, right, _UP | _DOWN)
            line = place.lines[row - top - 1]
            for offset, char in enumerate(line.center(place.box_width - 2)):
                self._text[row, left + 1 + offset] = char
        for row, line in enumerate(place.beside, start=top + 1):
            for offset, char in enumerate(line, start=right + 1):
                self._text[row, offset] = char
        for row, column, sides in (
            (top, left, _DOWN | _RIGHT),
            (top, right, _DOWN | _LEFT),
            (bottom, left, _UP | _RIGHT),
            (bottom, right, _UP | _LEFT),
        ):
            self._line(row, column, sides)
        if box < tall:
            self._line(bottom, middle, _DOWN)
        if arrives:
            self._text[top, middle] = "▼"

    def _connect(self, pairs: list[tuple[int, int]]) -> None:
        """Draw the edges from one level to the next, by columns."""
        alone = len({source for source, _ in pairs}) == len(pairs)
        shared = sorted({target if alone else source for source, target in pairs if source != target})
        top, count = self._height, max(len(shared), 1)
        self._height += count
        for source, target in pairs:
            self._line(top - 1, source, _DOWN)
            turn = top + shared.index(target if alone else source) if source != target else self._height
            for row in range(top, self._height):
                if row != turn:
                    self._line(row, source if row < turn else target, _UP | _DOWN)
            if source != target:
                self._line(turn, source, _UP | (_RIGHT if target > source else _LEFT))
                self._line(turn, target, _DOWN | (_LEFT if target > source else _RIGHT))
                for column in range(min(source, target) + 1, max(source, target)):
                    self._line(turn, column, _LEFT | _RIGHT)


def _as_list(plan: Plan, layout: Layout) -> list[str]:
    """Return a line per step, in order, with what it waits for."""
    wide = max(map(len, layout.nodes))
    lines = []
    for name in (name for name in plan.order if name in layout.nodes):
        after = f"after {', '.join(plan.before(name))}" if plan.before(name) else "first"
        text = _text(plan, layout.nodes[name], loops=name in plan.loops)
        lines.append("  " + "  ".join([name.ljust(wide), after, *text[1:], *layout.nodes[name].when]))
        lines += [f"    {line}" for line in asks_lines(plan, name)]
    return lines
