"""Single keys from a terminal, without waiting for a line."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator

_ESCAPE = "\x1b"
_ESCAPE_S = 0.05
"""An arrow key comes as ESC and two more at once; a person who presses Esc sends nothing after it for so long."""


@contextlib.contextmanager
def single_keys(fd: int) -> Iterator[None]:
    """Have the terminal hand out keys as they are pressed, unseen, while the context is open."""
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def read_key(fd: int) -> str:
    """Wait for a key and return it: a character, `right`, `left`, `home`, `end`, or `""` when the terminal is gone."""
    pressed = os.read(fd, 1).decode(errors="replace")
    if pressed != _ESCAPE:
        return pressed
    if not select.select([fd], [], [], _ESCAPE_S)[0]:
        return _ESCAPE
    return _ARROWS.get(os.read(fd, 8).decode(errors="replace"), "?")


_ARROWS = {
    f"{lead}{letter}": key
    for lead in "[O"  # normal and application mode
    for letter, key in {"C": "right", "D": "left", "B": "right", "A": "left", "H": "home", "F": "end"}.items()
}
