"""Texts as lines of a screen: cut or filled to a width, wrapped, in the styles of their kinds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len, get_character_cell_size, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from baton_schemas.show.lines import seconds
from baton_schemas.show.plain import plain

from .palette import Cell, Span

_WORD_MAX = 24
"""A line is broken before a word, unless that would leave more columns than this empty."""


def one(text: str, kind: str = "") -> Cell:
    """Return a text of one kind, on one line, without what would control the terminal."""
    return ((plain(text), kind),)


def ticking(took_s: float | None, *, is_open: bool) -> str:
    """Return how long something takes: in whole seconds while it has not ended, so that it does not flicker."""
    if took_s is None:
        return ""
    return f"{took_s:.0f} s" if is_open and took_s < 100 else seconds(took_s)


def fitted(cell: Cell, width: int, *, right: bool = False) -> list[Span]:
    """Return what a cell says in just so many columns; what is too long ends with `…`."""
    taken = sum(cell_len(text) for text, _ in cell)
    if taken <= width:
        space = (" " * (width - taken), "")
        return [space, *cell] if right else [*cell, space]
    found: list[Span] = []
    left = width - 1
    for text, kind in cell:
        size = cell_len(text)
        if size > left:
            found.append((set_cell_size(text, left) + "…", kind))
            break
        found.append((text, kind))
        left -= size
    return found if width > 0 else []


def strip_of(spans: Sequence[Span], styles: Mapping[str, Style], behind: Style, width: int) -> Strip:
    """Return a line of a screen."""
    segments = [Segment(text, behind + styles.get(kind, styles[""])) for text, kind in spans if text]
    return Strip(segments).adjust_cell_length(width, behind)


def wrapped(cell: Cell, width: int, indent: int = 0) -> Iterator[Cell]:
    """Yield a line in pieces of at most so many columns; those after the first are indented."""
    room = max(width, 8)
    indent = min(indent, room // 2)
    line: list[Span] = []
    taken = 0
    for text, kind in cell:
        rest = text
        while rest:
            cut = _cut(rest, room - taken)
            if not cut and taken <= indent:  # even so there is room for any character
                cut = 1
            if cut:
                line.append((rest[:cut], kind))
                taken += cell_len(rest[:cut])
                rest = rest[cut:]
            if rest:
                yield tuple(line)
                rest = rest.removeprefix(" ")
                line, taken = ([(" " * indent, "")] if indent else []), indent
    yield tuple(line)


def _cut(text: str, room: int) -> int:
    """Return how many characters go into so many columns, whole words if these are not long."""
    if len(text) <= room and cell_len(text) <= room:
        return len(text)
    taken = 0
    for number, char in enumerate(text):
        taken += get_character_cell_size(char)
        if taken > room:
            space = text.rfind(" ", max(number - _WORD_MAX, 0), number + 1)
            return space if space > 0 else number
    return len(text)
