"""A flow in pixels, from the left to the right: boxes, and lines between them, for whoever draws it. Pure.

What stands where, `layout.py` says; how each step stands, its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from baton_schemas.run.refs import name_of
from baton_schemas.run.rounds import round_of
from baton_schemas.run.state import RunState

from .layout import Edge, Layout, Node, Place
from .rows import Row
from .why import error_of

WIDE, HIGH = 176, 52
"""Of a box."""
_GAP_MIN, _GAP_MAX = 56, 260
_DOWN = 24
"""From a box to the one below."""
_MARGIN = 14
_ASIDE = 24
"""How far right of the steps those stand that are asked."""
_CHAR = 6.2
"""About how wide a letter is, at 11 px."""
_LABEL_MAX = 38
_NOT_BEGUN = frozenset({"waiting"})
_ENDED = frozenset({"done", "failed", "skipped"})


class Box(Struct, frozen=True, kw_only=True):
    """A step, or an agent that is asked beside the steps."""

    name: str
    """Of the step in the flow, or of the agent."""
    x: float
    y: float
    row: Row | None
    """How it stands; None for an agent beside, and where the log has nothing."""
    node: Node | None
    """None for an agent beside."""
    rounds: int = 0
    """Of a step in a loop: how many have begun; 0 for one in none."""
    asked: int = 0
    answered: int = 0
    failed: int = 0
    """Of an agent beside: how often it was asked, and how often that has ended, and badly."""


class Line(Struct, frozen=True, kw_only=True):
    """An arrow: `state` is `taken`, `open` (not yet), `broke` (what came this way broke the run), `again` or `asks`."""

    path: str
    state: str
    source: str
    target: str


class Label(Struct, frozen=True):
    """What is said on an arrow; `text` may be cut, `whole` is not."""

    x: float
    y: float
    text: str
    whole: str


class Drawing(Struct, frozen=True, kw_only=True):
    """A flow in pixels."""

    wide: float
    high: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    labels: tuple[Label, ...]


def drawing_of(layout: Layout, rows: Sequence[Row], state: RunState | None) -> Drawing:
    """Return the boxes and lines of a flow, as far as a run of it has come; without one, as it is written."""
    by_step = _rows_by_step(layout, rows)
    lefts = _lefts(layout)
    error = error_of(state) if state is not None else None
    broken = layout.node(error.step) if error is not None and error.step else None

    def middle(place: Place) -> float:
        return top + place.x * (HIGH + _DOWN) + HIGH / 2

    # The rows of a layout are columns here, and those are centred: the topmost begins at the margin.
    top = _MARGIN + (18 if layout.loops else 0)
    boxes = [
        Box(
            name=name,
            x=lefts[node.place.row],
            y=middle(node.place) - HIGH / 2,
            row=by_step.get(name),
            node=node,
            rounds=_rounds(name, rows, layout),
        )
        for name, node in layout.nodes.items()
    ]
    boxes += [
        Box(
            name=each.agent,
            x=lefts[each.place.row] + _ASIDE,
            y=middle(each.place) - HIGH / 2,
            row=None,
            node=None,
            **_asked(each.agent, rows),
        )
        for each in layout.beside
    ]
    at = {box.name if box.node is not None else "@" + box.name: box for box in boxes}
    lines = [
        Line(
            path=_path(at[edge.source], at[edge.target], edge, lefts, middle),
            state=_state(edge, by_step, broken.step if broken is not None else ""),
            source=edge.source,
            target=edge.target,
        )
        for edge in layout.edges
    ]
    lines += [
        Line(path=_back(at[loop.last], at[loop.first], top), state="again", source=loop.last, target=loop.first)
        for loop in layout.loops
    ]
    lines += [
        Line(path=_aside(at[ask.asker], at[ask.asked]), state="asks", source=ask.asker, target=ask.asked.lstrip("@"))
        for ask in layout.asks
    ]
    labels = [
        Label(at[name].x - 8, at[name].y + HIGH / 2 + _beside_line(number, name, at, layout), _cut(text), text)
        for name, node in layout.nodes.items()
        for number, text in enumerate(node.when)
    ]
    labels += [
        Label(max(at[loop.last].x, at[loop.first].x) + WIDE / 2, top - 16, _cut(words), words)
        for loop in layout.loops
        for words in ["; ".join(loop.says)]
    ]
    high = max(box.y for box in boxes) + HIGH + _MARGIN
    return Drawing(
        wide=max(box.x for box in boxes) + WIDE + _MARGIN,
        high=high,
        boxes=tuple(boxes),
        lines=tuple(lines),
        labels=tuple(labels),
    )


def _rows_by_step(layout: Layout, rows: Sequence[Row]) -> dict[str, Row]:
    """Return the row of each step: of one in a loop, that of the last round that has begun."""
    found: dict[str, Row] = {}
    for row in rows:
        name = name_of(row.step)
        if not row.depth and name in layout.nodes and (name not in found or row.status not in _NOT_BEGUN):
            found[name] = row
    return found


def _asked(agent: str, rows: Sequence[Row]) -> dict[str, int]:
    """Return how often an agent was asked, and what came of it, as far as there are rows of that."""
    asked = answered = failed = 0
    for row in rows:
        if row.depth and agent in (row.step, row.step.rpartition("#")[0]):
            asked += row.count or 1
            answered += row.ended if row.count else row.status in _ENDED
            failed += row.failed if row.count else row.status == "failed"
    return {"asked": asked, "answered": answered, "failed": failed}


def _beside_line(number: int, name: str, at: Mapping[str, Box], layout: Layout) -> float:
    """Return how far below the end of its arrow a condition is written: on the side from which no arrow comes."""
    below = any(edge.target == name and at[edge.source].y < at[name].y for edge in layout.edges)
    return 16 + 13 * number if below else -6 - 13 * (len(layout.nodes[name].when) - 1 - number)


def _rounds(name: str, rows: Sequence[Row], layout: Layout) -> int:
    if not layout.loops:
        return 0
    numbers = [
        round_of(row.step)
        for row in rows
        if not row.depth and name_of(row.step) == name and row.status not in _NOT_BEGUN
    ]
    return max(numbers, default=0) if any(number > 1 for number in numbers) else 0


def _lefts(layout: Layout) -> list[float]:
    """Return where each column begins: there is room before it for what is said on the arrows to it."""
    found, left = [], float(_MARGIN)
    for number, row in enumerate(layout.rows):
        says = [text for each in row if isinstance(each, str) for text in layout.nodes[each].when]
        if number:
            longest = max((len(_cut(text)) for text in says), default=0)
            left += min(max(_GAP_MIN, longest * _CHAR + 22), _GAP_MAX)
        elif says:
            left += min(max(len(_cut(text)) for text in says) * _CHAR + 12, _GAP_MAX)
        found.append(left)
        left += WIDE
    return found


def _state(edge: Edge, by_step: Mapping[str, Row], broken: str) -> str:
    source, target = by_step.get(edge.source), by_step.get(edge.target)
    if edge.source == broken:
        return "broke"
    if source is None or target is None or source.status not in _ENDED:
        # Of a fan-out the first branches may have come when others have not.
        came = target is not None and target.status in ("joining", "queued", "running", "done")
        return "taken" if came and source is not None and source.ended else "open"
    return "open" if target.status in ("waiting", "dropped") and not target.attempts else "taken"


def _path(source: Box, target: Box, edge: Edge, lefts: Sequence[float], middle: object) -> str:
    assert callable(middle)
    x, y = source.x + WIDE, source.y + HIGH / 2
    parts = [f"M{x:g} {y:g}"]
    for place in edge.through:
        left, at = lefts[place.row], middle(place)
        parts.append(_curve(x, y, left, at))
        parts.append(f"H{left + WIDE:g}")
        x, y = left + WIDE, at
    parts.append(_curve(x, y, target.x, target.y + HIGH / 2))
    return "".join(parts)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    half = (to_x - x) / 2
    return f"C{x + half:g} {y:g} {to_x - half:g} {to_y:g} {to_x:g} {to_y:g}"


def _back(last: Box, first: Box, top: float) -> str:
    """Return a line from the top of one box back to the top of another, over all that is between."""
    over, begin, end = top - 12, last.x + WIDE / 2, first.x + WIDE / 2
    return (
        f"M{begin + 10:g} {last.y:g}C{begin + 10:g} {over:g} {begin - 10:g} {over:g} {begin - 20:g} {over:g}"
        f"H{end + 20:g}C{end:g} {over:g} {end:g} {over:g} {end:g} {first.y:g}"
    )


def _aside(asker: Box, asked: Box) -> str:
    """Return a line from the foot of who asks to who is asked, beside the boxes between them."""
    if asked.node is None and asker.x <= asked.x <= asker.x + _ASIDE:
        x = asker.x + _ASIDE / 2
        begin = asker.y + HIGH if asked.y > asker.y else asker.y
        return f"M{x:g} {begin:g}V{asked.y + HIGH / 2:g}H{asked.x:g}"
    right = asked.x > asker.x
    x, to_x = asker.x + (WIDE if right else 0), asked.x + (0 if right else WIDE)
    return f"M{x:g} {asker.y + HIGH - 10:g}" + _curve(x, asker.y + HIGH - 10, to_x, asked.y + HIGH - 10)


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL_MAX else text[: _LABEL_MAX - 1] + "…"
