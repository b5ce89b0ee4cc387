"""Two runs beside each other: where they part, what differs there, and all steps that differ. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from baton_actors.cli.show.console import MARKS
from baton_actors.cli.show.costs import cost_of, dollars, rehearsal_line
from baton_actors.cli.show.run_page import elapsed_of
from baton_actors.cli.text import plain
from baton_schemas.show.children import short_name
from baton_schemas.show.compared import Pair
from baton_schemas.show.differ import Difference, FlowDiffers, Side, StepDiffers
from baton_schemas.show.differ_words import changes_of, end_of, text_in, what_differs
from baton_schemas.show.excerpt import head_of
from baton_schemas.show.lines import seconds
from baton_schemas.show.summary import Summary, standing_of
from baton_schemas.show.text_diff import Piece, pieces

STEPS_SHOWN = 30
"""Steps that differ and are listed; `--json` has all."""
_PAIRS_SHOWN = 8
"""Values that differ and are shown, of the input and of a step."""
_AROUND = 60
"""Characters that are shown before and after what differs."""
_TEXT_MAX = 1_600
"""Characters of each side of a difference: what comes after is counted."""


def diff_page(found: Difference, prompts: Sequence[dict[str, str]], width: int = 80) -> RenderableType:
    """Return how two runs differ."""
    parts: list[RenderableType] = [_heads(found.before, found.after)]
    if found.before.rehearsed or found.after.rehearsed:
        parts.append(rehearsal_line())
    parts.append(Text())
    parts += _pairs("input", found.input)
    parts += _flow(found.flow)
    first = found.first
    if first is None:
        alike = "neither has one" if not found.alike else f"{found.alike:,} alike"
        return Group(*parts, Text(f"no step differs: {alike}"))
    parts.append(
        Text.assemble("they part at ", (plain(_name(first.step)), "bold"), f", which {plain(what_differs(first))}")
    )
    parts += _pairs("read", [pair for pair in first.reads if pair not in found.input])
    for each in prompts if not first.reads else ():  # else they differ by what was read
        parts += _texts(each["name"], each["before"], each["after"])
    if first.came_to and first.before is not None and first.after is not None:
        parts += _texts("came to", end_of(first.before), end_of(first.after))
    parts += [Text(), _steps(found.steps[:STEPS_SHOWN], width)]
    if len(found.steps) > STEPS_SHOWN:
        parts.append(Text(f"and {len(found.steps) - STEPS_SHOWN:,} more", "dim"))
    if found.alike:
        parts.append(Text(f"{found.alike:,} {'step is' if found.alike == 1 else 'steps are'} alike", "dim"))
    return Group(*parts)


def _heads(before: Summary, after: Summary) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(7):
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=26 if column == 2 else None)
    for label, run in (("before", before), ("after", after)):
        mark, style = MARKS[run.status]
        table.add_row(
            Text(label, "dim"),
            Text.assemble((f"{mark} ", style), (plain(run.flow or "?"), "bold")),
            Text(plain(run.run), no_wrap=True),
            Text(plain(standing_of(run)), style),
            Text(elapsed_of(run), "dim", no_wrap=True),
            Text(f"{run.steps_done}/{run.steps}", "dim", no_wrap=True),
            Text(cost_of(run), "yellow" if run.rehearsed else ""),
        )
    return table


def _pairs(what: str, pairs: Sequence[Pair]) -> Iterator[RenderableType]:
    for pair in pairs[:_PAIRS_SHOWN]:
        yield from _texts(f"{what} {pair.name}", text_in(pair.before), text_in(pair.after))
    if len(pairs) > _PAIRS_SHOWN:
        yield Text(f"  and {len(pairs) - _PAIRS_SHOWN:,} more", "dim")


def _texts(name: str, before: str, after: str) -> Iterator[RenderableType]:
    """Yield what differs between two texts, with a little of what is before and after it."""
    yield Text.assemble("  ", (plain(name), "bold"))
    found = pieces(before, after)
    yield from _side("- ", "red", [piece for piece in found if piece.kind != "added"])
    yield from _side("+ ", "green", [piece for piece in found if piece.kind != "removed"])


def _side(sign: str, style: str, found: Sequence[Piece]) -> Iterator[RenderableType]:
    text, left = Text(style="", no_wrap=False), _TEXT_MAX
    for number, piece in enumerate(found):
        said = piece.text if piece.kind != "same" else _shortened(piece.text, number > 0, number + 1 < len(found))
        if len(said) > left:
            text.append(plain(said[:left].replace("\n", "⏎")), style if piece.kind != "same" else "dim")
            rest = len(said) - left + sum(len(other.text) for other in found[number + 1 :])
            text.append(f"… ({rest:,} more characters)", "dim")
            break
        text.append(plain(said.replace("\n", "⏎")), style if piece.kind != "same" else "dim")
        left -= len(said)
    table = Table.grid()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text.assemble("    ", (sign, style)), text)
    yield table


def _shortened(text: str, has_before: bool, has_after: bool) -> str:
    """Return the ends of what both have: that which is next to what differs."""
    head = text[:_AROUND] if has_before else ""
    tail = text[-_AROUND:] if has_after else ""
    return text if len(text) <= len(head) + len(tail) + 1 else f"{head}…{tail}"


def _flow(flow: FlowDiffers) -> Iterator[Text]:
    parts = changes_of(flow)
    if flow.is_other:
        yield Text("their flows are not the same", "yellow")
    if parts:
        yield Text.assemble("  ", ("flow", "bold"), f"  {plain(', '.join(parts))}")


def _name(step: str) -> str:
    return short_name(step)


def _steps(steps: Iterable[StepDiffers], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("step", no_wrap=True, max_width=max(width // 4, 12))
    table.add_column("before", no_wrap=True)
    table.add_column("after", no_wrap=True)
    table.add_column("what differs", overflow="fold")
    for step in steps:
        table.add_row(
            Text(plain(_name(step.step))), _told(step.before), _told(step.after), Text(plain(what_differs(step)))
        )
    return table


def _told(side: Side | None) -> Text:
    if side is None:
        return Text("\N{EN DASH}", "dim")
    words: list[str] = [side.status if not side.reused else "reused"]
    if side.elapsed_s is not None and not side.reused:
        words.append(seconds(side.elapsed_s))
    if side.cost_usd:
        words.append(dollars(side.cost_usd))
    return Text(head_of(" ".join(words), 40), "red" if side.status == "failed" else "")
