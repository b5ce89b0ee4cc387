"""Asking before something is done: what it would do, and Enter for yes. It is done once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from baton_schemas.show.plain import plain

from .doing import Ask, Preview
from .drawn import one
from .looking import ERRORS
from .palette import Cell, Palette

if TYPE_CHECKING:
    from .app import Top

_CHOICES_SHOWN = 8


def written(lines: list[Cell], palette: Palette) -> Text:
    """Return lines as a text in the styles of their kinds."""
    styles = palette.styles
    text = Text("\n", end="").join(
        Text.assemble(*((plain(part), styles.get(kind, styles[""])) for part, kind in line)) for line in lines
    )
    text.overflow = "fold"
    return text


class AskScreen(ModalScreen[str]):
    """A question. Enter says yes; it returns the run in which what was done is seen, or nothing."""

    app: Top

    CSS = """
    AskScreen { align: center middle; background: $paper 60%; }
    AskScreen > Vertical { width: 76; max-width: 96%; height: auto; max-height: 90%; border: round $dim;
      padding: 0 1; background: $paper; }
    AskScreen Static { height: auto; background: $paper; color: $ink; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "confirm"),
        Binding("escape,h,q,n", "dismiss('')"),
        Binding("j,down", "choose(1)"),
        Binding("k,up", "choose(-1)"),
        Binding("c", "copy"),
    ]

    def __init__(self, ask: Ask, palette: Palette) -> None:
        super().__init__()
        self.ask, self.palette = ask, palette
        self.at = ask.choices.index(ask.first) if ask.first else 0
        self.shown: Preview | None = None
        self.is_doing = False
        self._previewing: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        """Make its parts."""
        with Vertical():
            yield Static(id="ask", markup=False)

    def on_mount(self) -> None:
        """Say what it would do."""
        self._preview()

    def action_choose(self, by: int) -> None:
        """Go to another choice."""
        at = min(max(self.at + by, 0), max(len(self.ask.choices) - 1, 0))
        if at != self.at and not self.is_doing:
            self.at = at
            self._preview()

    def action_copy(self) -> None:
        """Copy the command that does the same."""
        if self.shown is not None:
            self.app.copy_command(self.shown.command)

    def action_confirm(self) -> None:
        """Do it, unless it is being done."""
        if self.shown is not None and not self.is_doing:
            self.is_doing = True
            self.run_worker(self._do(self.shown), name=self.ask.verb)

    def _preview(self) -> None:
        self.shown = None
        self._write([one("…", "dim")])
        if self._previewing is not None:
            self._previewing.cancel()
        self._previewing = asyncio.create_task(self._previewed(), name="preview")

    async def _previewed(self) -> None:
        choice = self.ask.choices[self.at] if self.ask.choices else ""
        try:
            shown = await self.ask.preview(choice)
        except ERRORS as error:
            self._write([(("✗ ", "mark.failed"), *one(str(error), "failed"))])
            return
        if not self.is_mounted:
            return
        self.shown = shown
        self._write([*shown.lines, (), one(shown.command, "dim")])

    async def _do(self, shown: Preview) -> None:
        try:
            run = await self.ask.do(shown)
        except ERRORS as error:
            self.is_doing = False
            self._write([(("✗ ", "mark.failed"), *one(str(error), "failed"))])
            return
        self.dismiss(run)

    def _write(self, lines: list[Cell]) -> None:
        choices = self.ask.choices
        low = min(max(self.at - _CHOICES_SHOWN // 2, 0), max(len(choices) - _CHOICES_SHOWN, 0))
        shown = list(enumerate(choices))[low : low + _CHOICES_SHOWN]
        chosen: list[Cell] = [
            one(f"{'▸' if at == self.at else ' '} {each}", "bold" if at == self.at else "dim") for at, each in shown
        ]
        move = "j k choose · " if len(choices) > 1 else ""
        foot = one(f"{move}Enter {self.ask.verb} · Esc leaves it", "bold")
        head = one(self.ask.title, "bold")
        text = [head, (), *chosen, *([()] if chosen else []), *lines, (), foot]
        self.query_one("#ask", Static).update(written(text, self.palette))
