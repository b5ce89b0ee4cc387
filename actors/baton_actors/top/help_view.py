"""Which key does what."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from .asking import written
from .palette import Cell, Palette

_KEYS = (
    ("j k", "next, previous row"),
    ("Enter l", "open"),
    ("Esc h", "back"),
    ("/", "search: words, or status=failed flow=… since=1h sort=cost"),
    ("n N", "next, previous failure, or place found"),
    ("g r  g q  g a", "runs, queues, attention"),
    ("Tab", "the other part: steps, log"),
    ("3 4 5", "steps, log, output of a run"),
    ("f", "follow what comes"),
    ("space", "freeze, go on"),
    ("c", "copy the command that says the same"),
    ("t", "dark or light"),
    ("? q", "this, leave"),
)
_ACTS = ("r F X", "retry, fork, cancel (each asks)")


class HelpScreen(ModalScreen[None]):
    """Says which key does what."""

    CSS = """
    HelpScreen { align: center middle; background: $paper 60%; }
    HelpScreen > Vertical { width: auto; max-width: 96%; height: auto; max-height: 96%; border: round $dim;
      padding: 0 1; background: $paper; }
    HelpScreen Static { width: auto; height: auto; background: $paper; color: $ink; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,h,q,enter", "dismiss"),
    ]

    def __init__(self, palette: Palette, *, read_only: bool) -> None:
        super().__init__()
        self.palette = palette
        keys = _KEYS if read_only else (*_KEYS[:9], _ACTS, *_KEYS[9:])
        self.lines: list[Cell] = [((f"{key:<14}", "bold"), (what, "")) for key, what in keys]

    def compose(self) -> ComposeResult:
        """Make its parts."""
        with Vertical():
            yield Static(written(self.lines, self.palette), markup=False)
