"""A text of any length: wrapped to its width, drawn where it is seen, and anew only where it has changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from .drawn import strip_of, wrapped
from .palette import Cell, Palette


class Lines(ScrollView, can_focus=True):
    """A text: `show` says what is in it."""

    DEFAULT_CSS = """
    Lines { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    def __init__(self, palette: Palette, *, id: str) -> None:
        super().__init__(id=id)
        self.text: list[Cell] = []
        self._drawn: list[Cell] = []
        self._wide = 0
        self.follows = False
        self.use(palette)

    def use(self, palette: Palette) -> None:
        """Draw in these colours."""
        self._styles, self._paper = palette.styles, Style(bgcolor=palette.paper)
        if self.is_mounted:
            self.refresh()

    def show(self, text: Sequence[Cell]) -> None:
        """Have this text, and draw what is seen of it and has changed."""
        self.text = list(text)
        self._wrap()

    def move(self, by: int) -> None:
        """Scroll by so many lines."""
        self.follows = False
        self.scroll_to(y=self._top + by, animate=False)

    def follow(self) -> None:
        """Stay at its end."""
        self.follows = True
        self.scroll_to(y=self.max_scroll_y, animate=False)

    def go_to(self, wanted: str, by: int = 1) -> bool:
        """Scroll to the next line that has these words; say whether there is one."""
        words = wanted.casefold()
        numbers = range(self._top + by, len(self._drawn)) if by > 0 else range(self._top + by, -1, -1)
        for number in numbers:
            if words in "".join(text for text, _ in self._drawn[number]).casefold():
                self.follows = False
                self.scroll_to(y=number, animate=False)
                return True
        return False

    def render_line(self, y: int) -> Strip:
        """Return a line as it is drawn."""
        number, width = y + self._top, self.size.width
        if number >= len(self._drawn):
            return Strip.blank(width, self._paper)
        return strip_of(self._drawn[number], self._styles, self._paper, width)

    def on_resize(self) -> None:
        """Fit into another width."""
        self._wrap()

    @property
    def _top(self) -> int:
        return int(self.scroll_offset.y)

    def _wrap(self) -> None:
        wide = self.size.width - 1
        if wide <= 0:  # it has no place yet
            return
        before, top = self._drawn, self._top
        self._drawn = [piece for line in self.text for piece in wrapped(line, wide, indent=_indent_of(line))]
        self.virtual_size = Size(self.size.width, len(self._drawn))
        if self.follows:
            self.scroll_to(y=max(len(self._drawn) - self.size.height, 0), animate=False)
        if not self.is_mounted:
            return
        if wide != self._wide or top != self._top:
            self._wide = wide
            self.refresh()
            return
        for y in range(self.size.height):
            number = y + top
            old = before[number] if number < len(before) else None
            if old != (self._drawn[number] if number < len(self._drawn) else None):
                self.refresh(Region(0, y, self.size.width, 1))


def _indent_of(line: Cell) -> int:
    first = line[0][0] if line else ""
    return min(len(first) - len(first.lstrip(" ")), 8)
