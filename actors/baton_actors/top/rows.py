"""A table of any length whose lines are drawn when they are seen, and drawn anew only where a cell has changed."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from .drawn import fitted, one, strip_of
from .palette import Cell, Palette

_GAP = 2
_KEPT_MAX = 2_000
"""Lines that are kept as they were drawn."""


class Column(Struct, frozen=True, kw_only=True):
    """A column."""

    title: str
    wide: int
    """Columns of the terminal that it takes; at least, where it `grows`."""
    right: bool = False
    grows: bool = False
    """It takes what is left; where several do, they share it."""
    from_wide: int = 0
    until_wide: int = 10_000
    """It is there from one width on, and up to less than another."""

    def fits(self, width: int) -> bool:
        """Say whether it is there in a table of such a width."""
        return self.from_wide <= width < self.until_wide


class Row(Struct, frozen=True, kw_only=True):
    """A line of a table."""

    key: str
    cells: tuple[Cell, ...]
    failed: bool = False
    """`n` and `N` go to it."""


class Rows(ScrollView, can_focus=True):
    """A table: `show` says what is in it. The chosen line stays the chosen one, wherever it comes to be."""

    DEFAULT_CSS = """
    Rows { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    class Opened(Message):
        """A line was opened."""

        def __init__(self, rows: Rows, key: str) -> None:
            self.rows, self.key = rows, key
            super().__init__()

    class Chosen(Message):
        """Another line was chosen."""

        def __init__(self, rows: Rows, key: str) -> None:
            self.rows, self.key = rows, key
            super().__init__()

    def __init__(self, columns: Sequence[Column], palette: Palette, *, id: str, newest: str = "first") -> None:
        """`newest` is where new lines come: `first` or `last`; that is where the choice stays while it follows."""
        super().__init__(id=id)
        self.columns, self.newest = columns, newest
        self.rows: list[Row] = []
        self.at = 0
        self.follows = True
        self.drawn = 0
        """How many lines were drawn."""
        self._lines: dict[int, tuple[Row, int, bool, bool, Strip]] = {}
        self.use(palette)

    def use(self, palette: Palette) -> None:
        """Draw in these colours."""
        self._styles = palette.styles
        self._paper, self._at = Style(bgcolor=palette.paper), Style(bgcolor=palette.at)
        self._dim_at = Style(bgcolor=palette.shade)
        self._lines.clear()
        if self.is_mounted:
            self.refresh()

    @property
    def chosen(self) -> str:
        """The key of the chosen line; empty without any."""
        return self.rows[self.at].key if self.at < len(self.rows) else ""

    def show(self, rows: list[Row]) -> None:
        """Have these lines, and draw those that are seen and have changed."""
        before, top_before, at_before = self.rows, self._top, self.at
        self.rows = rows
        self.at = self._at_after(before)
        if len(rows) != len(before):
            self.virtual_size = Size(self.size.width, len(rows) + 1)
        # Who has scrolled away from where the news come sees the same lines as before.
        if self.follows:
            self._see(self.at)
        elif self.newest == "first" and top_before:
            self.scroll_to(y=top_before + self.at - at_before, animate=False)
        self._refresh_changed(before, top_before, at_before)
        if self.chosen != (before[at_before].key if at_before < len(before) else ""):
            self.post_message(self.Chosen(self, self.chosen))

    def choose(self, at: int) -> None:
        """Choose the line of this number, or the nearest there is."""
        at = min(max(at, 0), max(len(self.rows) - 1, 0))
        if at == self.at:
            return
        before, self.at = self.at, at
        self.follows = at == self._newest_at and self.follows
        self._refresh_row(before)
        self._refresh_row(at)
        self._see(at)
        self.post_message(self.Chosen(self, self.chosen))

    def follow(self) -> None:
        """Stay with the newest line."""
        self.choose(self._newest_at)
        self.follows = True
        self._see(self.at)

    def move(self, by: int) -> None:
        """Choose another line, so many further on."""
        self.follows = False
        self.choose(self.at + by)

    def go_to_failure(self, by: int) -> bool:
        """Choose the next, or the previous, line that tells of a failure; say whether there is one."""
        at = self.at + by
        while 0 <= at < len(self.rows):
            if self.rows[at].failed:
                self.move(at - self.at)
                return True
            at += by
        return False

    def open(self) -> None:
        """Open the chosen line."""
        if self.chosen:
            self.post_message(self.Opened(self, self.chosen))

    def render_line(self, y: int) -> Strip:
        """Return a line as it is drawn: the first is the heading."""
        width = self.size.width
        if y == 0:
            titles = tuple(one(column.title, "head") for column in self.columns)
            return self._drawn(titles, width, self._paper)
        number = y - 1 + self._top
        if number >= len(self.rows):
            return Strip.blank(width, self._paper)
        row, is_at, focused = self.rows[number], number == self.at, self.has_focus
        kept = self._lines.get(number)
        if kept is not None and kept[1:4] == (width, is_at, focused) and (kept[0] is row or kept[0] == row):
            return kept[4]
        self.drawn += 1
        behind = (self._at if focused else self._dim_at) if is_at else self._paper
        strip = self._drawn(row.cells, width, behind)
        if len(self._lines) >= _KEPT_MAX:
            self._lines.clear()
        self._lines[number] = (row, width, is_at, focused, strip)
        return strip

    def on_resize(self) -> None:
        """Fit into another size."""
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self._see(self.at)

    def on_focus(self) -> None:
        """Show which line the keys are for."""
        self._refresh_row(self.at)

    def on_blur(self) -> None:
        """Show that they are for another table."""
        self._refresh_row(self.at)

    def on_click(self, event: events.Click) -> None:
        """Choose a line; one that is chosen is opened."""
        number = event.y - 1 + self._top
        if event.y > 0 and number < len(self.rows):
            self.focus()
            if number == self.at:
                self.open()
            else:
                self.move(number - self.at)

    @property
    def _top(self) -> int:
        return int(self.scroll_offset.y)

    @property
    def _newest_at(self) -> int:
        return 0 if self.newest == "first" else max(len(self.rows) - 1, 0)

    def _at_after(self, before: Sequence[Row]) -> int:
        """Return where the chosen line is now; the nearest to where it was, if it is gone."""
        if self.follows or not before:
            return self._newest_at
        if not self.rows:
            return 0
        key = before[self.at].key
        if self.at < len(self.rows) and self.rows[self.at].key == key:
            return self.at
        found = next((number for number, row in enumerate(self.rows) if row.key == key), None)
        return found if found is not None else min(self.at, len(self.rows) - 1)

    def _see(self, at: int) -> None:
        """Scroll as little as shows a line."""
        seen = max(self.size.height - 1, 1)
        top = min(max(self._top, at - seen + 1), at)
        if top != self._top:
            self.scroll_to(y=top, animate=False)

    def _layout(self, width: int) -> list[int]:
        """Return how wide each column is; 0 for one that has no room."""
        there = [column for column in self.columns if column.fits(width)]
        left = width - sum(column.wide for column in there) - _GAP * (len(there) - 1)
        growing = sum(column.grows for column in there)
        wide = []
        for column in self.columns:
            grown = left // growing if column.grows and growing else 0
            wide.append(max(column.wide + grown, 1) if column.fits(width) else 0)
        return wide

    def _drawn(self, cells: Sequence[Cell], width: int, behind: Style) -> Strip:
        spans = []
        for column, cell, wide in zip(self.columns, cells, self._layout(width), strict=True):
            if wide:
                spans += [*fitted(cell, wide, right=column.right), (" " * _GAP, "")]
        return strip_of(spans, self._styles, behind, width)

    def _refresh_changed(self, before: Sequence[Row], top_before: int, at_before: int) -> None:
        if not self.is_mounted:
            return
        width, top = self.size.width, self._top
        if top != top_before:
            return  # all of it is drawn anew
        begins, x = [], 0
        for wide in self._layout(width):
            begins.append((x, wide))
            x += wide + _GAP if wide else 0
        for y in range(1, self.size.height):
            number = y - 1 + top
            old = before[number] if number < len(before) else None
            new = self.rows[number] if number < len(self.rows) else None
            if old is None and new is None:
                break
            if old is None or new is None or (number == self.at) != (number == at_before):
                self.refresh(Region(0, y, width, 1))
            elif old != new:
                changed = [place for place, a, b in zip(begins, old.cells, new.cells, strict=True) if a != b]
                for x, wide in changed:
                    if wide:
                        self.refresh(Region(x, y, wide, 1))

    def _refresh_row(self, number: int) -> None:
        y = number - self._top + 1
        if 0 < y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))
