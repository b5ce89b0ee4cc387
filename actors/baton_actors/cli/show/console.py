"""Where commands print: on a console with colours that can be read, and signs for how things stand."""

from __future__ import annotations

from rich.console import Console
from rich.theme import Theme

from baton_schemas.show import marks

_STYLES = {
    "waiting": "dim",
    "queued": "dim",
    "joining": "cyan",
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "skipped": "dim",
    "dropped": "dim",
    "cancelled": "yellow",
    "expired": "yellow",
}
MARKS = {status: (mark, _STYLES[status]) for status, mark in marks.MARKS.items()}
"""Sign and colour of each status: the sign says the same without the colour."""
_COLOURS = Theme({"green": "color(28)", "cyan": "color(30)", "yellow": "color(136)", "red": "color(160)"})
"""What the names of colours stand for: shades that can be read on black and on white alike. A terminal's own yellow and
cyan vanish on white in many. A test works out their contrast."""


def console(*, stderr: bool = False) -> Console:
    """Return where a command prints: texts as they are, colours only on a terminal and without NO_COLOR."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, theme=_COLOURS)
